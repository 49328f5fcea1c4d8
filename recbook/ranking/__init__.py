"""Chapter 12: retrieve a few hundred candidates, then rank them.

Read `rankers` (one interface for all), `candidates` (channels and their round-robin interleaving), `features` (what a
ranker reads of a candidate), `lambdarank` (LightGBM's LambdaRank on those features), `cold_start` (shoppers without a
history), `diversity` (MMR, complements by lift).
"""
