"""Chapter 8: controlled text from a GPT.

Read `sampling` (how the next token is drawn), then `generate` (batches, streams, stop tokens, constraints).
"""
