"""recbook: the code that the chapters of "Recommenders That Explain Themselves" build up, a room per chapter.

Importing the package imports nothing heavy; each module brings what it needs where it is used.
"""

__version__ = "0.1.0"
