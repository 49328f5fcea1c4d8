"""Chapter 13: a language model as the ranker: our own, any of Hugging Face's, or one behind an endpoint.

Read `prompts` (what it is told), `training_lists` (lists of the past to learn from), `gpt_ranker`, `hf_ranker`,
`api_ranker`. Until that chapter is written, Chapter 12 teaches them.
"""
