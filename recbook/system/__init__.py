"""Chapter 22: the whole system, from receipts to explained recommendations.

Read `build` (the stages), `retrieve_and_rank` (the two-stage recommender), `recommender` (all parts in one object),
`files` (one folder on disk); then `commands` and `scoring`, which the command line runs.
"""
