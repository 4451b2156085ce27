"""Recorded behaviour of the real lmkd as a target: load, replay, compare."""
