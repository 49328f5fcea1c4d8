"""Chapter 10: low-rank adapters, and what they are trained on: requests with the answers of a good assistant.

Read `layers` (adapters beside frozen matrices), `files` (in `peft`'s format), `instructions` (requests and answers),
`pairs` (batches in which only answers count), `pretraining` (what the base reads before), `grading` (judging answers).
"""
