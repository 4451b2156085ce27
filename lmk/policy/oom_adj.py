"""Android's named oom_score_adj levels (ProcessList.java, Android 13 to 16; reference: lmkd section 2.1)."""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum

OOM_SCORE_ADJ_MIN = -1000
OOM_SCORE_ADJ_MAX = 1000


class OomAdj(IntEnum):
    """The levels ActivityManager assigns; each is the lowest value of its tier."""

    NATIVE = -1000
    SYSTEM = -900
    PERSISTENT_PROC = -800
    PERSISTENT_SERVICE = -700
    FOREGROUND = 0
    PERCEPTIBLE_RECENT_FOREGROUND = 50
    VISIBLE = 100
    PERCEPTIBLE = 200
    PERCEPTIBLE_MEDIUM = 225
    PERCEPTIBLE_LOW = 250
    BACKUP = 300
    HEAVY_WEIGHT = 400
    SERVICE = 500
    HOME = 600
    PREVIOUS_APP = 700
    SERVICE_B = 800
    CACHED_APP_MIN = 900
    CACHED_APP_LMK_FIRST = 950
    CACHED_APP_MAX = 999


_TIERS: tuple[tuple[int, str], ...] = (
    (-1000, "native"),
    (-900, "system"),
    (-800, "persistent"),
    (0, "foreground"),
    (1, "perceptible-recent"),
    (100, "visible"),
    (200, "perceptible"),
    (300, "backup"),
    (400, "heavy-weight"),
    (500, "service"),
    (600, "home"),
    (700, "previous"),
    (800, "service-b"),
    (900, "cached"),
)
_TIER_FLOORS = tuple(floor for floor, _ in _TIERS)


def tier(oom_score_adj: int) -> str:
    """Name of the tier an oom_score_adj in -1000..1000 belongs to. ValueError outside of that range."""
    if not OOM_SCORE_ADJ_MIN <= oom_score_adj <= OOM_SCORE_ADJ_MAX:
        raise ValueError(f"oom_score_adj {oom_score_adj} is outside -1000..1000")
    return _TIERS[bisect_right(_TIER_FLOORS, oom_score_adj) - 1][1]
