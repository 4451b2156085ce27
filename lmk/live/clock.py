"""The device's CLOCK_MONOTONIC as seen from the host."""

from __future__ import annotations

import time


class DeviceClock:
    """Estimates device time from the host's clock; never goes backwards.

    ``observe`` takes (host time before asking, device time, host time after): the answer with the shortest round
    trip is believed, because half of it bounds the error.
    """

    def __init__(self) -> None:
        self._offset_ns = 0
        self._error_ns = 1 << 62
        self._latest_ns = 0

    def observe(self, before_ns: int, device_ns: int, after_ns: int) -> None:
        """Take one measurement; all three in nanoseconds."""
        error_ns = (after_ns - before_ns) // 2
        if error_ns <= self._error_ns:
            self._error_ns = error_ns
            self._offset_ns = device_ns - (before_ns + error_ns)

    def now_ns(self) -> int:
        """Device time now, at least as late as everything given to ``reached``."""
        return self.reached(time.monotonic_ns() + self._offset_ns)

    def reached(self, device_ns: int) -> int:
        """Device time is at least this; returns the latest time known."""
        self._latest_ns = max(self._latest_ns, device_ns)
        return self._latest_ns
