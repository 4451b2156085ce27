"""What ``lmk top`` shows at one moment, as values: how near each threshold is, who would die next, who died last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lmk.policy.decision import Evaluation
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.psi_rules import swap_utilization_pct
from lmk.policy.lmkd.versions import Behaviour
from lmk.report.tiers import tier_name

#: From this score down lmkd takes the heaviest process of a slot (PERCEPTIBLE_APP_ADJ).
_HEAVIEST_FROM_ADJ = 200


@attrs.frozen(kw_only=True)
class Gauge:
    """One threshold. ``share`` is 1 where it fires, less before; None: what it compares is not known."""

    name: str
    now: str
    limit: str
    gap: str
    share: float | None
    #: what reaching it means
    means: str

    @property
    def fires(self) -> bool:
        """Reached."""
        return self.share is not None and self.share >= 1


@attrs.frozen(kw_only=True)
class Running:
    """One process lmkd may know. ``order`` rises with its registration; sizes of -1 or None are not known."""

    pid: int
    name: str
    adj: int
    order: int
    rss_kib: int | None = None


@attrs.frozen(kw_only=True)
class TierRow:
    """The processes of one tier; ``victim`` is whom lmkd would take there first."""

    tier: str
    adj: int
    count: int
    rss_kib: int | None
    victim: Running | None
    why: str


@attrs.frozen(kw_only=True)
class LastKill:
    """A kill that happened."""

    t_s: float | None
    name: str
    adj: int | None
    reason: str


@attrs.frozen(kw_only=True)
class Frame:
    """Everything on the screen."""

    title: str
    status: str
    gauges: tuple[Gauge, ...]
    tiers: tuple[TierRow, ...]
    kills: tuple[LastKill, ...]
    notes: tuple[str, ...] = ()
    keys: str = "q quit"


def gauges(
    look: Evaluation | None,
    stalls_ms: tuple[float | None, float | None],
    params: LmkdParams,
    behaviour: Behaviour,
) -> tuple[Gauge, ...]:
    """How far each threshold is from firing. ``stalls_ms``: memory stall some and full within the last PSI window."""
    found = [*_stall_gauges(stalls_ms, params)]
    if look is None:
        return tuple(found)
    page_kib = look.page_kib
    free_kib = look.free_pages * page_kib
    found.append(_below("free memory, low watermark", free_kib, look.low_pages * page_kib, "a low-memory kill"))
    found.append(_below("free memory, min watermark", free_kib, look.min_pages * page_kib, "another kill after one"))
    if params.swap_free_low_percentage and look.swap_total_pages:
        free_swap_kib, limit_kib = look.free_swap_pages * page_kib, look.swap_threshold_pages * page_kib
        found.append(_below("swap that counts as free", free_swap_kib, limit_kib, "swap is low: kills down to 201"))
    means = "a kill when low or in direct reclaim"
    found.append(_above("thrashing", look.thrashing_pct, look.thrashing_limit_pct, "%", means))
    if behaviour.swap_util_rule and params.swap_util_max < 100:
        found.append(
            _above("swap utilisation", swap_utilization_pct(look), params.swap_util_max, "%", "a kill when low")
        )
    if behaviour.critical_stall and params.stall_limit_critical <= 100:
        means = "any process may die"
        found.append(_above("PSI full avg10", look.full_stall_pct, params.stall_limit_critical, "%", means))
    if behaviour.filecache_rule and params.filecache_min_kb:
        means = "a kill after a thrashing one"
        found.append(_below("file cache", look.file_lru_kib, params.filecache_min_kb, means))
    return tuple(found)


def _stall_gauges(stalls_ms: tuple[float | None, float | None], params: LmkdParams) -> Iterable[Gauge]:
    wakes = (
        ("PSI some", stalls_ms[0], params.psi_partial_stall_ms, "wakes lmkd (medium)"),
        ("PSI full", stalls_ms[1], params.psi_complete_stall_ms, "wakes lmkd (critical)"),
    )
    for name, stall_ms, limit_ms, means in wakes:
        if limit_ms:
            yield _above(f"{name} in {params.psi_window_size_ms} ms", stall_ms, limit_ms, "ms", means)


def _above(name: str, value: float | None, limit: float, unit: str, means: str) -> Gauge:
    """Fires when the value grows to its limit."""
    if value is None:
        return Gauge(name=name, now="?", limit=f"{limit:g} {unit}", gap="not known", share=None, means=means)
    share = value / limit if limit > 0 else 1.0
    gap = f"{limit - value:.0f} {unit} to go" if share < 1 else f"{value - limit:.0f} {unit} over"
    return Gauge(name=name, now=f"{value:.0f} {unit}", limit=f"{limit:g} {unit}", gap=gap, share=share, means=means)


def _below(name: str, value_kib: int, limit_kib: int, means: str) -> Gauge:
    """Fires when the value falls below its limit."""
    share = 1.0 if value_kib < limit_kib else limit_kib / value_kib if value_kib else 1.0
    share = min(share, 0.999) if value_kib >= limit_kib else share
    gap = f"{_mib(value_kib - limit_kib)} to go" if value_kib >= limit_kib else f"{_mib(limit_kib - value_kib)} below"
    return Gauge(name=name, now=_mib(value_kib), limit=_mib(limit_kib), gap=gap, share=share, means=means)


def _mib(kib: int) -> str:
    mib = kib / 1024
    return f"{mib:.0f} MiB" if mib >= 100 else f"{mib:.1f} MiB"


def tier_rows(processes: Iterable[Running], params: LmkdParams, behaviour: Behaviour) -> tuple[TierRow, ...]:
    """The tiers that hold processes, the most expendable first, each with its next victim (lmkd.cpp,
    find_and_kill_process: from the highest score down; in a slot the oldest registration or the heaviest)."""
    tiers: dict[str, list[Running]] = {}
    for process in processes:
        tiers.setdefault(tier_name(process.adj), []).append(process)
    rows = [_tier_row(name, members, params, behaviour) for name, members in tiers.items()]
    return tuple(sorted(rows, key=lambda row: -row.adj))


def _tier_row(name: str, members: Sequence[Running], params: LmkdParams, behaviour: Behaviour) -> TierRow:
    highest = max(process.adj for process in members)
    slot = [process for process in members if process.adj == highest]
    sizes = [process.rss_kib for process in members]
    known = [size for size in sizes if size is not None]
    victim: Running | None = None
    why = "never a candidate"
    if highest >= 0:
        by_size = params.kill_heaviest_task or (highest <= _HEAVIEST_FROM_ADJ and behaviour.heaviest_if_perceptible)
        weighed = [process for process in slot if process.rss_kib is not None]
        if by_size and len(slot) > 1 and not weighed:
            why = f"the heaviest of {len(slot)} at {highest}; sizes are not recorded"
        elif by_size and weighed:
            victim = max(weighed, key=lambda process: (process.rss_kib or 0, process.order))
            why = f"heaviest of {len(slot)} at {highest}"
        else:
            victim = min(slot, key=lambda process: process.order)
            why = f"longest unused of {len(slot)} at {highest}"
        if len(slot) == 1:
            victim, why = slot[0], f"the only one at {highest}"
    return TierRow(
        tier=name,
        adj=highest,
        count=len(members),
        rss_kib=sum(known) if len(known) == len(sizes) else None,
        victim=victim,
        why=why,
    )
