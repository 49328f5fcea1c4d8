"""Chapter 9: baskets as sentences, and the BasketGPT that completes and predicts them.

Read `log` (who bought what and when, as arrays; prediction points), `catalogue` (what is typed at a counter, as columns),
`shopper_features` and `item_features` (what is counted), `batches` (a log as the network reads it), `network`, and
`model`, which fits and recommends.
"""
