"""Conversational recommendation: what a shopper says in several turns, as the state of a dialogue.

Read `dialogue` (state and turns), then what it recognises: `prices`, `patterns`. Its chapter, 15, is not yet written.
"""
