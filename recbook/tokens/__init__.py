"""Chapter 5: text and products as tokens, in a file that is mapped into memory.

Read `vocabulary` (byte-pair encoding, control tokens, a token for every product), `documents` (what the language model
reads), `files` (token files and the windows that training reads).
"""
