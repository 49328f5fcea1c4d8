"""Chapter 10: low-rank adapters, and the instruction set that they are trained on: requests with good answers.

Read `layers` (LoRA layers beside frozen matrices), `files` (adapters on disk, in the format of `peft`), `instructions`
(requests, prompts and answers), `pairs` (batches in which only answers count), `pretraining` (the copy task and the
answer fragments that the base reads before), and `grading` (answers judged by rules).
"""
