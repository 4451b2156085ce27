"""lmk: change how Android kills processes under memory pressure, and see on the desk what that does."""

__version__ = "0.1.0"
