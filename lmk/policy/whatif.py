"""What would another value of one property have changed? Pure arithmetic over a recorded decision.

The numbers of the decision stay as they are; what a property turns into (the swap threshold, the running
thrashing limit, the stall test) is computed anew, then the rules are walked again. A default that is derived
from another property (``thrashing_limit_critical``) moves with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from lmk.policy.decision import Decision, Evaluation
from lmk.policy.lmkd.kernel_text import float32
from lmk.policy.lmkd.kill_reason import KillReason, reason_name
from lmk.policy.lmkd.memory import free_swap_pages, wrap
from lmk.policy.lmkd.params import PROPERTY_BY_NAME, LmkdParams
from lmk.policy.lmkd.psi_rules import evaluate, swap_utilization_pct
from lmk.policy.lmkd.versions import Behaviour
from lmk.units import c_div, c_int32

#: Cuts of the running limit that are tried to explain it; 50 cuts of 1 % leave 60 %.
CUTS_MAX = 200


@attrs.frozen(kw_only=True)
class Change:
    """One property, its value and the nearest one that flips the outcome."""

    name: str
    full_name: str
    old: int
    new: int
    text: str
    #: relative size: the step over the larger of the two values
    size: float


@attrs.frozen(kw_only=True)
class Outcome:
    """What the rules say: a reason (-1 none) and the lowest killable score."""

    reason: int
    min_adj: int

    def kills(self, victim_adj: int | None) -> bool:
        """Would this victim be killed? Without one: would anybody be looked for?"""
        if self.reason == KillReason.NONE:
            return False
        return victim_adj is None or self.min_adj <= victim_adj


def outcome_with(
    evaluations: tuple[Evaluation, ...], old: LmkdParams, new: LmkdParams, behaviour: Behaviour
) -> Outcome:
    """The outcome of the same wake-up under other properties; ``old`` are those of the decision."""
    result: Evaluation | None = None
    for original in evaluations:
        e = _reconsidered(original, old, new, behaviour)
        if result is not None:
            # The second look of a first kill starts with what the first one decided.
            e.reason, e.reason_text, e.min_adj = result.reason, result.reason_text, result.min_adj
            e.check_filecache = result.check_filecache
        evaluate(e, new, behaviour)
        result = e
        if e.reason == KillReason.NONE:
            break
    assert result is not None
    return Outcome(reason=result.reason, min_adj=0 if result.critical_stall else result.min_adj)


def _reconsidered(e: Evaluation, old: LmkdParams, new: LmkdParams, b: Behaviour) -> Evaluation:
    """The numbers before the rules are walked, with what depends on properties computed anew."""
    percentage = new.swap_free_low_percentage
    free = free_swap_pages(e.swap_free_pages, e.easy_pages, new, b)
    threshold = c_div(wrap(e.swap_total_pages * percentage), 100) if percentage else 0
    if old.swap_free_low_percentage == percentage:
        threshold = e.swap_threshold_pages  # before Android 13 an older one may be in force
    return attrs.evolve(
        e,
        free_swap_pages=free,
        swap_threshold_pages=threshold,
        swap_low=percentage != 0 and free < threshold,
        thrashing_limit_pct=_running_limit(e.thrashing_limit_pct, old, new),
        critical_stall=b.critical_stall and e.full_stall_pct > float32(new.stall_limit_critical),
        check_filecache=e.checked_filecache,
        reason=int(KillReason.NONE),
        reason_text="",
        min_adj=0,
        cut_limit=False,
    )


def _running_limit(running: int, old: LmkdParams, new: LmkdParams) -> int:
    """The running limit, had the property been another: cut as often as it was."""
    if old.thrashing_limit == new.thrashing_limit:
        return running
    cuts = _cuts(running, old)
    if cuts is None:
        return running
    limit = new.thrashing_limit
    for _ in range(cuts):
        limit = c_div(c_int32(limit * (100 - old.thrashing_limit_decay)), 100)
    return limit


def _cuts(running: int, params: LmkdParams) -> int | None:
    """How many kills cut the property down to the running limit; None: it is an older property's."""
    limit = params.thrashing_limit
    for cuts in range(CUTS_MAX):
        if limit == running:
            return cuts
        if limit < running:
            return None
        shorter = c_div(c_int32(limit * (100 - params.thrashing_limit_decay)), 100)
        if shorter == limit:
            return None
        limit = shorter
    return None


def with_property(params: LmkdParams, name: str, value: int, behaviour: Behaviour) -> LmkdParams:
    """The properties with another value of one; a critical thrashing limit at its default moves along."""
    changed: LmkdParams = attrs.evolve(params, **{name: value})  # type: ignore[arg-type]
    factor = behaviour.critical_thrashing_factor
    if name == "thrashing_limit" and factor > 0 and params.thrashing_limit_critical == params.thrashing_limit * factor:
        changed = attrs.evolve(changed, thrashing_limit_critical=c_int32(value * factor))
    return changed


#: Properties whose value decides; the others choose triggers or victims.
TUNABLE = (
    *("swap_free_low_percentage", "thrashing_limit", "thrashing_limit_critical", "swap_util_max"),
    *("filecache_min_kb", "stall_limit_critical", "direct_reclaim_threshold_ms", "swap_compression_ratio"),
    *("lowmem_min_oom_score", "pressure_after_kill_min_score"),
)


def smallest_changes(decision: Decision, params: LmkdParams, behaviour: Behaviour) -> tuple[Change, ...]:
    """For each property that can, the nearest value that flips the outcome; the smallest change first.

    One unit less does not flip it. Flipping means: the (first) victim is spared, or, when nobody was to
    be killed, that somebody is.
    """
    evaluations = decision.evaluations
    if not evaluations or evaluations[0].vendor_reason is not None:
        return ()
    victim_adj = decision.killed_adjs[0] if decision.killed_adjs else None
    killed = outcome_with(evaluations, params, params, behaviour).kills(victim_adj)
    changes = []
    for name in TUNABLE:
        if not PROPERTY_BY_NAME[name].exists_in(behaviour):
            continue
        change = _smallest_change(name, evaluations, victim_adj, killed, params, behaviour)
        if change is not None:
            changes.append(change)
    return tuple(sorted(changes, key=lambda change: (change.size, TUNABLE.index(change.name))))


def _smallest_change(
    name: str,
    evaluations: tuple[Evaluation, ...],
    victim_adj: int | None,
    killed: bool,
    params: LmkdParams,
    behaviour: Behaviour,
) -> Change | None:
    row = PROPERTY_BY_NAME[name]
    old = getattr(params, name)

    def outcome(value: int) -> Outcome:
        return outcome_with(evaluations, params, with_property(params, name, value, behaviour), behaviour)

    lowest = row.minimum if row.minimum is not None else 0
    highest = row.maximum if row.maximum is not None else (1 << 31) - 1
    values = {value for value in _candidates(name, evaluations, victim_adj, params) if lowest <= value <= highest}
    for value in sorted(values - {old}, key=lambda value: (abs(value - old), value)):
        found = outcome(value)
        if found.kills(victim_adj) == killed:
            continue
        step = 1 if value > old else -1
        if value - step != old and outcome(value - step).kills(victim_adj) != killed:
            continue
        return Change(
            name=name,
            full_name=row.full_name,
            old=old,
            new=value,
            text=_words(name, old, value, found, killed, victim_adj),
            size=abs(value - old) / max(abs(old), abs(value), 1),
        )
    return None


def _words(name: str, old: int, new: int, found: Outcome, killed: bool, victim_adj: int | None) -> str:
    head = f"With {PROPERTY_BY_NAME[name].full_name} {new} instead of {old} "
    if not killed:
        return head + f"{reason_name(found.reason)} would have killed, down to oom_score_adj {found.min_adj}"
    if found.reason == KillReason.NONE:
        return head + "no rule would have fired"
    return head + (
        f"{reason_name(found.reason)} would have spared oom_score_adj {victim_adj}"
        f" (killing only down to {found.min_adj})"
    )


def _around(*numbers: int) -> Iterable[int]:
    for number in numbers:
        yield from (number - 1, number, number + 1)


def _candidates(name: str, evaluations: tuple[Evaluation, ...], victim_adj: int | None, params: LmkdParams) -> set[int]:
    """Every value at which a comparison of some rule changes, with its neighbours."""
    found: set[int] = {0, 1}
    for e in evaluations:
        thrashing = e.thrashing_pct
        if name == "swap_free_low_percentage":
            found |= set(range(101))
        elif name == "thrashing_limit":
            found |= set(_around(thrashing, *(c_div(thrashing, factor) for factor in (2, 3))))
            found |= set(_around(_uncut(thrashing, e, params)))
        elif name == "thrashing_limit_critical":
            found |= set(_around(thrashing))
        elif name == "swap_util_max":
            found |= set(_around(swap_utilization_pct(e), 100))
        elif name == "filecache_min_kb":
            found |= set(_around(e.file_lru_kib))
        elif name == "stall_limit_critical":
            found |= set(_around(int(min(e.full_stall_pct, 1e9))))
        elif name == "direct_reclaim_threshold_ms":
            found |= set(_around(e.direct_reclaim_ms))
        elif name == "swap_compression_ratio":
            found |= set(range(65))
        elif victim_adj is not None:
            found |= {victim_adj, victim_adj + 1}
    return found


def _uncut(thrashing: int, e: Evaluation, params: LmkdParams) -> int:
    """The smallest property whose running limit, cut as often as it was, is not below the thrashing."""
    cuts = _cuts(e.thrashing_limit_pct, params) or 0
    low, high = 0, (1 << 31) - 1
    while low < high:
        middle = (low + high) // 2
        limit = middle
        for _ in range(cuts):
            limit = c_div(limit * (100 - params.thrashing_limit_decay), 100)
        if limit < thrashing:
            low = middle + 1
        else:
            high = middle
    return low
