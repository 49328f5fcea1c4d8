"""Chapter 22: the whole system, from receipts to explained recommendations.

Read `build` (the stages), `retrieve_and_rank`, `recommender` (one object), `files` (one folder); then `commands` and
`scoring`, which the command line runs.
"""
