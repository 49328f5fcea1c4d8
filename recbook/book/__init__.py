"""What the pages of the book share, not the system: nothing in another room needs it.

`page` (openings, tables, sources), `workshop` (what a chapter needs of earlier ones), `exercises` (the checks) and
`doctor` (what is installed and what is missing).
"""
