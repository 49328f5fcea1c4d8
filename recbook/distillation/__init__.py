"""Chapter 16: a small student that learns from what a large teacher recommends.

Read `labels` (the teacher's labels, as JSON Lines), then `student` (soft targets, the joint loss, the distillation
dataset, `distil`).
"""
