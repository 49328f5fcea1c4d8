"""Chapter 9: baskets as sentences, and the BasketGPT that completes and predicts them.

Read `log` (the interaction log as arrays; prediction points), `catalogue` (products and histories as people type them),
`features` (of user, item and user-item, at a prediction point), `shop_features` (all that is counted, as of any day),
`batches` (windows of tokens, and the loss), `network`, `task` (what it is trained on), and `model`, which fits and
recommends.
"""
