"""Chapter 14: explanations that say only what the receipts prove.

The facts: `facts`, `fact_store`. Writing: `templates`, `pretraining`, `constraints`, `generate`, `narrator`. Checking:
`entities` and `claim_patterns`, `clauses`, `claim_checker`; testing the checker: `corruptions`; how well texts read:
`text_metrics`. The room is larger than others because a checker of English text needs word lists.
"""
