"""Chapter 1: a messy file of shop receipts becomes clean lines, baskets, a catalogue and an audit of every row.

Read `schema` (the eight columns, and what is refused), `load` (files of every kind), `receipts` (the rules of
cleaning); then `shop`, the embedded shop that simulates receipts, from `shop_products` (what it sells) and `shop_noise`
(the faults of a real log).
"""
