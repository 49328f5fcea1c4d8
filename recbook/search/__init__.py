"""Chapter 4: the nearest of many products, by brute force and by FAISS.

Read `index` (build and search), `queries` (what one asks an index with), `measures` (recall, bytes, larger catalogues),
`files` (indexes on disk).
"""
