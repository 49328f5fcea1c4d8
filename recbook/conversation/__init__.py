"""Recommendation in several turns: what a shopper says, as the state of a dialogue.

Read `dialogue` (state and turns), then what it recognises: `prices`, `patterns`. Its chapter, 15, is not yet written.
"""
