"""Memory pressure levels of memory cgroup v1, as lmkd's old strategy hears of them.

Source: mm/vmpressure.c, Linux 6.12 (vmpressure, vmpressure_prio, vmpressure_calc_level, vmpressure_event): reclaim is
judged in windows of scanned pages by the share that could not be reclaimed; whoever listens to a level hears of it and
of all above it.
"""

from __future__ import annotations

from typing import Final

from lmk.sim.lru import SWAP_CLUSTER_MAX

#: vmpressure_win, vmpressure_level_med and vmpressure_level_critical.
_WINDOW_PAGES: Final = SWAP_CLUSTER_MAX * 16
_MEDIUM_PCT: Final = 60
_CRITICAL_PCT: Final = 95
LOW: Final = 0
MEDIUM: Final = 1
CRITICAL: Final = 2


class Vmpressure:
    """What the root group's listeners are told; counts per listened level since somebody took them."""

    def __init__(self) -> None:
        self._listening: set[int] = set()
        self._scanned = self._reclaimed = 0
        self._counts = [0, 0, 0]

    def listen(self, level: int) -> None:
        """Somebody registers an eventfd for a level."""
        self._listening.add(level)

    def stop(self, level: int) -> None:
        """The eventfd is closed."""
        self._listening.discard(level)
        self._counts[level] = 0

    def take(self) -> tuple[int, int, int]:
        """Read and clear the eventfds."""
        low, medium, critical = self._counts
        self._counts = [0, 0, 0]
        return low, medium, critical

    def note(self, scanned: int, reclaimed: int) -> tuple[int, ...]:
        """A run of reclaim; the levels whose listeners hear of it now."""
        if not self._listening or not scanned:
            return ()
        self._scanned += scanned
        self._reclaimed += reclaimed
        if self._scanned < _WINDOW_PAGES:
            return ()
        level = _level(self._scanned, self._reclaimed)
        self._scanned = self._reclaimed = 0
        # The newest first (vmpressure_register_event), and lmkd registers the critical one last.
        told = tuple(sorted((listener for listener in self._listening if listener <= level), reverse=True))
        for listener in told:
            self._counts[listener] += 1
        return told

    def hopeless(self) -> tuple[int, ...]:
        """vmpressure_prio: reclaim scans deep (priority 3 and below) and finds nothing."""
        return self.note(_WINDOW_PAGES, 0)


def _level(scanned: int, reclaimed: int) -> int:
    """vmpressure_calc_level, in its integers."""
    pressure = 0
    if reclaimed < scanned:
        scale = scanned + reclaimed
        pressure = (scale - reclaimed * scale // scanned) * 100 // scale
    if pressure >= _CRITICAL_PCT:
        return CRITICAL
    return MEDIUM if pressure >= _MEDIUM_PCT else LOW
