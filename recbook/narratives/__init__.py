"""Chapter 14: explanations that say only what the receipts prove.

The facts: `facts`, `fact_store`. Writing: `templates`, `pretraining`, `constraints`, `generate`, `narrator`. Checking:
`entities` and `claim_patterns`, `clauses`, `claim_checker`; trying it: `corruptions`; how texts read: `text_metrics`.
The room is larger than others since a checker of English needs its words: a later one may need fewer.
"""
