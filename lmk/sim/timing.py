"""How finely simulated time is divided, and what goes first at one instant."""

from __future__ import annotations

from typing import Final

from lmk.units import NS_PER_MS

#: Resolution of time while kswapd or direct reclaim is at work; no rate depends on it.
STEP_MAX_NS: Final = 10 * NS_PER_MS
#: And its lower bound, so that a run along a watermark advances.
STEP_MIN_NS: Final = NS_PER_MS // 2

#: Order of events at one instant.
PRIORITY_KERNEL: Final = 0
PRIORITY_PROCESS: Final = 1
PRIORITY_SCENARIO: Final = 2
PRIORITY_OBSERVER: Final = 3
