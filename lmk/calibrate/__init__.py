"""Measuring the constants of a calibration on a device (docs/simulator.md)."""
