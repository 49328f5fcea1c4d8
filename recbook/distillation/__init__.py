"""Chapter 16: a small student that learns from what a large teacher recommends.

Read `labels` (what the teacher says, as JSON Lines), then `student` (the loss, the dataset, `distil`).
"""
