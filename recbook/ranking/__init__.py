"""Chapter 12: retrieve a few hundred candidates, then rank them.

Read `rankers` (one interface), `candidates` (the channels), `features`, `lambdarank` (the learned blend),
`cold_start` (somebody whom nobody knows), `diversity` (MMR, complements).
"""
