"""A deterministic simulation of one Android device under memory pressure; docs/simulator.md describes the model."""
