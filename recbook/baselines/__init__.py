"""Chapter 2: the numbers to beat, and how a recommender is judged honestly.

Read `metrics` (what a ranking is worth), `intervals` (how sure a figure is), `evaluation` (time cuts, targets, the
scoreboard), `models` (popularity to EASE); then `results`, which keeps measured figures.
"""
