"""Why a policy did what it did: the record of one decision, cheap enough to be always on.

A ``Decision`` holds the numbers that were compared, not sentences: rules are walked again from
the numbers when somebody asks (``lmk.policy.explain``).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Evaluation:
    """One pass over the rules; names follow lmkd's mp_event_psi. Percentages are integers."""

    watermark: int  #: lowest breached one: 0 min, 1 low, 2 high, 3 none
    reclaim: int  #: 0 none, 1 kswapd, 2 direct
    swap_low: bool
    thrashing_pct: int
    thrashing_limit_pct: int  #: the running limit, cut by earlier kills
    max_thrashing_pct: int
    carried_thrashing_pct: int
    base_file_pages: int
    base_refaults: int
    critical_stall: bool
    check_filecache: bool
    reason: int  #: lmkd's number, -1 none
    min_adj: int  #: before a critical stall lowers it to 0
    windows: int  #: thrashing windows passed since the last reset; 0 inside the window

    def recorded_values(self) -> list[int]:
        """The values in the order of ``dbg`` of recorded behaviour."""
        return [int(field) for field in attrs.astuple(self)]


@attrs.frozen(kw_only=True)
class Decision:
    """One decision, with or without a kill. A request (answered with None) so that every target sees it."""

    strategy: str  #: psi, minfree, vmpressure or vendor
    level: int
    by_event: bool
    #: every pass; lmkd's first kill (Android 15 and later) looks twice
    evaluations: tuple[Evaluation, ...]
    #: further numbers the rules compared, by name with unit
    values: Mapping[str, int | float | bool]
    reason: int
    reason_text: str
    min_adj: int  #: lowest killable oom_score_adj, after a critical stall; 0 when there is no reason
    killed_pids: tuple[int, ...]
