"""Chapter 2: the numbers to beat, and how a recommender is judged honestly.

Read `metrics` (of ranked lists), `intervals` (bootstrap and paired tests), `evaluation` (time cuts, targets, the
scoreboard), `models` (popularity to EASE); then `results`, which keeps measured figures.
"""
