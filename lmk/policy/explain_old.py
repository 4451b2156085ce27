"""Minfree and vmpressure levels explained: what was compared, and what came out.

``vmpressure_outcome`` is the arithmetic of lmkd's vmpressure mode (reference: section 5.3) over the numbers of
a ``Decision``, so that it can be done again under other properties.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from lmk.policy.decision import Decision
from lmk.policy.lmkd.memory import free_swap_pages, wrap
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.versions import Behaviour
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX
from lmk.units import c_div

LEVELS = ("low", "medium", "critical")
CRITICAL = 2


@attrs.frozen(kw_only=True)
class Step:
    """One comparison in words, and whether it held."""

    text: str
    holds: bool


@attrs.frozen(kw_only=True)
class OldOutcome:
    """``fires``: a victim is looked for, from ``min_adj`` upward."""

    fires: bool
    min_adj: int
    steps: tuple[Step, ...]


def _number(values: Mapping[str, object], name: str) -> int:
    value = values.get(name, 0)
    return value if isinstance(value, int) else 0


def vmpressure_outcome(values: Mapping[str, object], p: LmkdParams, b: Behaviour) -> OldOutcome:
    """What vmpressure mode makes of these numbers under these properties."""
    adjs = (p.low, p.medium, p.critical)
    level = _number(values, "event_level")
    enabled = adjs[level] <= OOM_SCORE_ADJ_MAX
    steps = [Step(text=f"ro.lmk.{LEVELS[level]} {adjs[level]} <= {OOM_SCORE_ADJ_MAX}", holds=enabled)]
    if not enabled:
        return OldOutcome(fires=False, min_adj=adjs[level], steps=tuple(steps))
    if "memory_share_pct" in values:
        level = _share_level(values, p, b, level, steps)
        if level < 0:
            return OldOutcome(fires=False, min_adj=0, steps=tuple(steps))
    if p.low_ram:
        return OldOutcome(fires=True, min_adj=adjs[level], steps=tuple(steps))
    free, most = _number(values, "free_pages"), _number(values, "low_max_pages")
    steps.append(Step(text=f"free memory {free} pages < most ever free at level low, {most} pages", holds=free < most))
    return OldOutcome(fires=free < most, min_adj=adjs[level], steps=tuple(steps))


def _share_level(values: Mapping[str, object], p: LmkdParams, b: Behaviour, level: int, steps: list[Step]) -> int:
    """The level after upgrade and downgrade; -1: the event is ignored."""
    share = _number(values, "memory_share_pct")
    what = f"memory is {share} % of memory and swap in use"
    if p.critical_upgrade and level != CRITICAL:
        raised = share < p.upgrade_pressure
        steps.append(Step(text=f"{what} < upgrade_pressure {p.upgrade_pressure} %", holds=raised))
        level += raised
    total, percentage = _number(values, "swap_total_pages"), p.swap_free_low_percentage
    free = free_swap_pages(_number(values, "swap_free_pages"), _number(values, "easy_pages"), p, b)
    threshold = c_div(wrap(total * percentage), 100)
    swap_low = free < threshold
    steps.append(Step(text=f"free swap {free} pages < {percentage} % of swap, {threshold} pages", holds=swap_low))
    if swap_low:
        return level
    ignored = share > p.downgrade_pressure
    steps.append(Step(text=f"{what} <= downgrade_pressure {p.downgrade_pressure} %", holds=not ignored))
    if ignored:
        return -1
    lowered = level == CRITICAL and share > p.upgrade_pressure
    if lowered:
        steps.append(Step(text=f"{what} > upgrade_pressure {p.upgrade_pressure} %: level medium", holds=True))
    return level - lowered


def minfree_outcome(values: Mapping[str, object]) -> OldOutcome:
    """Minfree mode: the levels ActivityManager sent, in its order; no property decides."""
    free, cache = _number(values, "free_pages"), _number(values, "file_pages")
    steps = []
    for pair in str(values.get("targets", "")).split():
        minfree, _, adj = pair.partition(":")
        below = free < int(minfree) and cache < int(minfree)
        text = f"free memory {free} and file cache {cache} < {minfree} pages (oom_score_adj {adj})"
        steps.append(Step(text=text, holds=below))
        if below:
            return OldOutcome(fires=True, min_adj=int(adj), steps=tuple(steps))
    return OldOutcome(fires=False, min_adj=0, steps=tuple(steps))


def old_outcome(decision: Decision, params: LmkdParams, behaviour: Behaviour) -> OldOutcome | None:
    """The outcome of an old-strategy decision; None for other strategies and early ends."""
    if decision.ended_early:
        return None
    if decision.strategy == "vmpressure":
        return vmpressure_outcome(decision.values, params, behaviour)
    if decision.strategy == "minfree":
        return minfree_outcome(decision.values)
    return None
