"""The simulator against the emulator: the same input on both, and how far they agree (docs/simulator.md)."""
