"""Chapter 3: product texts as unit vectors, so that a dot product says how alike two descriptions are.

Read `text_vectors` (TF-IDF, LSA, nearest products), then `encoder` (a sentence-transformer, packaged or from the hub).
"""
