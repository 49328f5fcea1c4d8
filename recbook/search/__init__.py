"""Chapter 4: the nearest of many products, by brute force and by FAISS.

Read `index` (build and search), `queries` (by text, by history), `measures` (recall, bytes, larger catalogues), `files`
(indexes on disk).
"""
