"""Chapter 13: a language model as the ranker: our own, any of Hugging Face's, or one behind an endpoint.

Read `prompts` (what the model reads), `training_lists` (listwise training data from past baskets), `gpt_ranker`,
`hf_ranker`, `api_ranker`. Until that chapter is written, Chapter 12 teaches them.
"""
