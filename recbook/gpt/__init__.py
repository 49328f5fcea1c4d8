"""Chapter 6: a GPT, GPT-2's architecture to the letter.

Read `config` (its shape, and what that costs), `model` (the transformer with its key-value cache), `cross_entropy` (the
loss of a large vocabulary without its logits).
"""
