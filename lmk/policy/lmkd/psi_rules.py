"""The PSI strategy's rules, in lmkd's order: the first whose condition holds gives the kill reason.

Source of all of them: the decision chain of mp_event_psi (reference: section 4.8). Each rule is a small
function over an ``Evaluation``; it returns whether it fired and then fills in the outcome. Words:
*thrashing limit* is the property, *running limit* the one that thrashing kills have cut; *critical
thrashing* is thrashing_limit_critical. "low watermark breached" means free memory below low or min.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lmk.policy.decision import Evaluation
from lmk.policy.lmkd.kill_reason import VENDOR_KILL_BASE, KillReason
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.versions import Behaviour
from lmk.policy.lmkd.victim import PERCEPTIBLE_ADJ
from lmk.policy.lmkd.watermark import HIGH, MIN
from lmk.units import c_div, c_int32, c_int64

NO_RECLAIM: Final = 0
KSWAPD_RECLAIM: Final = 1
DIRECT_RECLAIM: Final = 2
CRITICAL_LEVEL: Final = 2
#: Perceptible apps are safe from this score upward.
ABOVE_PERCEPTIBLE: Final = PERCEPTIBLE_ADJ + 1

Rule = Callable[[Evaluation, LmkdParams, Behaviour], bool]


def vendor_kill(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> bool:
    """Fires for a vendor kill event; its numbers give reason and score. Always the only rule looked at."""
    if e.vendor_reason is None:
        return False
    e.reason, e.min_adj = e.vendor_reason + VENDOR_KILL_BASE, e.vendor_min_adj
    e.reason_text = f"vendor kill with the reason {e.reason}, min_score_adj {e.min_adj}"
    return True


def pressure_after_kill(e: Evaluation, p: LmkdParams, _b: Behaviour) -> bool:
    """Fires when free memory is below the min watermark in the first wake-up after a kill.

    Surprise: that wake-up may have ended early because nothing was reclaimed; then the chance is gone.
    """
    if not e.after_kill or e.watermark != MIN:
        return False
    e.reason, e.min_adj = KillReason.PRESSURE_AFTER_KILL, p.pressure_after_kill_min_score
    e.reason_text = "min watermark is breached even after kill"
    return True


def not_responding(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> bool:
    """Fires for an event of level critical (PSI full), never for a poll; no memory number is looked at."""
    if e.level != CRITICAL_LEVEL or not e.by_event:
        return False
    e.reason = KillReason.NOT_RESPONDING
    e.reason_text = "device is not responding"
    return True


def low_swap_and_thrashing(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires when swap is low and thrashing > thrashing limit (the property, not the running limit).

    Perceptible apps are safe unless the min watermark is breached or thrashing >= critical thrashing.
    """
    if not e.swap_low or e.thrashing_pct <= p.thrashing_limit:
        return False
    e.reason = KillReason.LOW_SWAP_AND_THRASHING
    e.reason_text = (
        f"device is low on swap ({c_int64(e.free_swap_pages * e.page_kib)}kB < "
        f"{c_int64(e.swap_threshold_pages * e.page_kib)}kB) and thrashing ({e.thrashing_pct}%)"
    )
    if e.watermark > MIN and not _critical_thrashing(e, p, b):
        e.min_adj = ABOVE_PERCEPTIBLE
    e.check_filecache = True
    return True


def low_mem_and_swap(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires when swap is low and the low watermark is breached.

    Perceptible apps are safe unless the min watermark is breached or thrashing >= critical thrashing.
    """
    if not e.swap_low or e.watermark >= HIGH:
        return False
    e.reason = KillReason.LOW_MEM_AND_SWAP
    e.reason_text = (
        f"{_mark(e, b)} watermark is breached and swap is low "
        f"({c_int64(e.free_swap_pages * e.page_kib)}kB < {c_int64(e.swap_threshold_pages * e.page_kib)}kB)"
    )
    if e.watermark > MIN and not _critical_thrashing(e, p, b):
        e.min_adj = ABOVE_PERCEPTIBLE
    return True


def low_mem_and_swap_util(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires when the low watermark is breached, swap_util_max < 100, and the share of swappable memory
    that is swapped out > swap_util_max."""
    if e.watermark >= HIGH or p.swap_util_max >= 100 or not b.swap_util_rule:
        return False
    used_pct = swap_utilization_pct(e)
    if used_pct <= p.swap_util_max:
        return False
    e.reason = KillReason.LOW_MEM_AND_SWAP_UTIL
    e.reason_text = (
        f"{_mark(e, b)} watermark is breached and swap utilization is high ({used_pct}% > {p.swap_util_max}%)"
    )
    return True


def low_mem_and_thrashing(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires when the low watermark is breached and thrashing > running limit; a kill cuts that limit.

    Perceptible apps are safe unless thrashing >= critical thrashing; the min watermark changes nothing.
    """
    if e.watermark >= HIGH or e.thrashing_pct <= e.thrashing_limit_pct:
        return False
    e.reason = KillReason.LOW_MEM_AND_THRASHING
    e.reason_text = f"{_mark(e, b)} watermark is breached and thrashing ({e.thrashing_pct}%)"
    _thrashing_kill(e, p, b)
    return True


def direct_recl_and_thrashing(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires in direct reclaim with thrashing > running limit; a kill cuts that limit. No watermark needed.

    Perceptible apps are safe unless thrashing >= critical thrashing.
    """
    if e.reclaim != DIRECT_RECLAIM or e.thrashing_pct <= e.thrashing_limit_pct:
        return False
    e.reason = KillReason.DIRECT_RECL_AND_THRASHING
    e.reason_text = f"device is in direct reclaim and thrashing ({e.thrashing_pct}%)"
    _thrashing_kill(e, p, b)
    return True


def direct_recl_stuck(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires in direct reclaim for longer than direct_reclaim_threshold_ms (> 0).

    Surprise: as long as there is no memory event listener the duration is the time since boot.
    """
    limit_ms = p.direct_reclaim_threshold_ms
    if not b.direct_reclaim_stuck_rule or e.reclaim != DIRECT_RECLAIM:
        return False
    if limit_ms <= 0 or e.direct_reclaim_ms <= limit_ms:
        return False
    e.reason = KillReason.DIRECT_RECL_STUCK
    e.reason_text = f"device is stuck in direct reclaim ({e.direct_reclaim_ms}ms > {limit_ms}ms)"
    return True


def low_filecache_after_thrashing(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires when a rule with thrashing fired earlier and the file cache < filecache_min_kb since then.

    A file cache that is big enough ends the watch; while an earlier rule fires the watch goes on.
    """
    if not e.check_filecache or not b.filecache_rule:
        return False
    if b.filecache_needs_watermark and e.watermark > HIGH:
        return False
    if e.file_lru_kib >= p.filecache_min_kb:
        e.check_filecache = False
        return False
    e.reason, e.min_adj = KillReason.LOW_FILECACHE_AFTER_THRASHING, ABOVE_PERCEPTIBLE
    e.reason_text = f"filecache is low ({e.file_lru_kib}kB < {p.filecache_min_kb}kB) after thrashing"
    return True


def low_mem(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    """Fires when nothing else did and the low watermark is breached; lowmem_min_oom_score (701) protects.

    Surprise: in the second look before the first kill the reason of the first look counts as "else".
    """
    if not b.low_mem_rule or e.reason != KillReason.NONE or e.watermark >= HIGH:
        return False
    if b.low_mem_skipped and p.lowmem_min_oom_score > 1000:
        return False
    e.reason, e.min_adj = KillReason.LOW_MEM, p.lowmem_min_oom_score
    e.reason_text = f"{_mark(e, b)} watermark is breached"
    return True


#: In lmkd's order. The first that fires decides.
RULES: tuple[Rule, ...] = (
    vendor_kill,
    pressure_after_kill,
    not_responding,
    low_swap_and_thrashing,
    low_mem_and_swap,
    low_mem_and_swap_util,
    low_mem_and_thrashing,
    direct_recl_and_thrashing,
    direct_recl_stuck,
    low_filecache_after_thrashing,
    low_mem,
)


def evaluate(e: Evaluation, p: LmkdParams, b: Behaviour) -> None:
    """Walk the rules; the outcome is in the evaluation."""
    for rule in RULES:
        if rule(e, p, b):
            return


def swap_utilization_pct(e: Evaluation) -> int:
    """calc_swap_utilization: swapped out memory as a share of all that could be."""
    used = c_int64(e.swap_total_pages - e.free_swap_pages)
    swappable = c_int64(e.anon_pages + e.shmem_pages + used)
    return c_int32(c_div(c_int64(used * 100), swappable)) if swappable > 0 else 0


def _mark(e: Evaluation, b: Behaviour) -> str:
    return "min" if e.watermark == MIN and b.watermark_word else "low"


def _critical_thrashing(e: Evaluation, p: LmkdParams, b: Behaviour) -> bool:
    return b.critical_thrashing_factor != 0 and e.thrashing_pct >= p.thrashing_limit_critical


def _thrashing_kill(e: Evaluation, p: LmkdParams, b: Behaviour) -> None:
    e.cut_limit = True
    if not _critical_thrashing(e, p, b):
        e.min_adj = ABOVE_PERCEPTIBLE
    e.check_filecache = True
