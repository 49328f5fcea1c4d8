"""Chapter 6: a GPT, GPT-2's architecture to the letter.

Read `config` (the model's shape, and what that costs), `model` (the transformer with its key-value cache),
`cross_entropy` (the loss over a large vocabulary without the whole logits).
"""
