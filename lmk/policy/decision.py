"""Why a policy did what it did: the record of one decision, cheap enough to be always on.

A ``Decision`` holds the numbers that were compared, not sentences: rules are walked again from
the numbers when somebody asks (``lmk.policy.explain``).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.define(kw_only=True)
class Evaluation:
    """One pass over the rules of the PSI strategy: what it saw, then what came out.

    The policy fills it in while it works; afterwards nobody changes it. Pages are base pages of
    ``page_kib`` KiB; percentages are integers.
    """

    # what the wake-up is
    level: int
    by_event: bool
    after_kill: bool
    vendor_reason: int | None = None
    vendor_min_adj: int = 0
    page_kib: int = 4
    # memory and swap
    free_pages: int = 0  #: MemFree without free CMA
    min_pages: int = 0
    low_pages: int = 0
    high_pages: int = 0
    watermark: int = 3  #: lowest breached one: 0 min, 1 low, 2 high, 3 none
    swap_total_pages: int = 0
    swap_free_pages: int = 0  #: SwapFree
    easy_pages: int = 0  #: easily available memory
    free_swap_pages: int = 0  #: what counts as free swap
    swap_threshold_pages: int = 0
    swap_low: bool = False
    anon_pages: int = 0
    shmem_pages: int = 0
    file_lru_kib: int = 0
    # reclaim and thrashing
    reclaim: int = 0  #: 0 none, 1 kswapd, 2 direct
    direct_reclaim_ms: int = 0
    thrashing_pct: int = 0
    thrashing_limit_pct: int = 0  #: the running limit, cut by earlier kills
    max_thrashing_pct: int = 0
    carried_thrashing_pct: int = 0
    base_file_pages: int = 0
    base_refaults: int = 0
    windows: int = 0  #: thrashing windows passed since the last reset; 0 inside the window
    full_stall_pct: float = 0.0  #: memory PSI full avg10; 0 when it could not be read
    critical_stall: bool = False
    # state that the rules read and write
    checked_filecache: bool = False  #: before
    check_filecache: bool = False  #: after
    # outcome; the first kill's second pass starts with the first one's
    reason: int = -1  #: lmkd's number, -1 none
    reason_text: str = ""
    min_adj: int = 0  #: before a critical stall lowers it to 0
    cut_limit: bool = False  #: a kill shall cut the running limit

    def recorded_values(self) -> list[int]:
        """The values in the order of ``dbg`` of recorded behaviour."""
        return [
            self.watermark,
            self.reclaim,
            int(self.swap_low),
            self.thrashing_pct,
            self.thrashing_limit_pct,
            self.max_thrashing_pct,
            self.carried_thrashing_pct,
            self.base_file_pages,
            self.base_refaults,
            int(self.critical_stall),
            int(self.check_filecache),
            self.reason,
            self.min_adj,
            self.windows,
        ]


@attrs.frozen(kw_only=True)
class Decision:
    """One decision, with or without a kill. A request (answered with None) so that every target sees it."""

    strategy: str  #: psi, minfree, vmpressure or vendor
    level: int
    by_event: bool
    #: every pass; lmkd's first kill (Android 15 and later) looks twice
    evaluations: tuple[Evaluation, ...] = ()
    #: other strategies: the numbers the rules compared, by name with unit
    values: Mapping[str, int | float | bool | str] = attrs.field(factory=dict)
    reason: int = -1
    reason_text: str = ""
    min_adj: int = 0  #: lowest killable oom_score_adj, after a critical stall; 0 when there is no reason
    killed_pids: tuple[int, ...] = ()
    killed_adjs: tuple[int, ...] = ()  #: their scores in the process table, in the same order
    #: why no rule was looked at, "" when they were: "pending kill", "lower event", "no reclaim", "unreadable"
    ended_early: str = ""
