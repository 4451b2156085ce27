"""What would another value of one property have changed? Pure arithmetic over a recorded decision.

The numbers of the decision stay as they are; what a property turns into (the swap threshold, the running
thrashing limit, the stall test) is computed anew, then the rules are walked again. A default that is derived
from another property (``thrashing_limit_critical``) moves with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from lmk.policy.decision import Decision, Evaluation
from lmk.policy.explain_old import vmpressure_outcome
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
    """What the rules say: whether one fires, its reason (old strategies have none) and the lowest score."""

    fires: bool
    reason: int
    min_adj: int

    def kills(self, victim_adj: int | None) -> bool:
        """Would this victim be killed? Without one: would anybody be looked for?"""
        if not self.fires:
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
    fires = result.reason != KillReason.NONE
    return Outcome(fires=fires, reason=result.reason, min_adj=0 if result.critical_stall else result.min_adj)


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


#: Properties whose value decides, by strategy; the others choose triggers or victims.
TUNABLE = {
    "psi": (
        *("swap_free_low_percentage", "thrashing_limit", "thrashing_limit_critical", "swap_util_max"),
        *("filecache_min_kb", "stall_limit_critical", "direct_reclaim_threshold_ms", "swap_compression_ratio"),
        *("lowmem_min_oom_score", "pressure_after_kill_min_score"),
        *("psi_partial_stall_ms", "psi_complete_stall_ms"),
    ),
    "vmpressure": (
        *("low", "medium", "critical", "upgrade_pressure", "downgrade_pressure"),
        *("swap_free_low_percentage", "swap_compression_ratio"),
    ),
}


def decision_outcome(decision: Decision, old: LmkdParams, new: LmkdParams, behaviour: Behaviour) -> Outcome | None:
    """The outcome of a decision under other properties; None where nothing was decided by properties."""
    if decision.ended_early or decision.strategy == "vendor":
        return None
    if decision.evaluations:
        if decision.by_event and _trigger_ms(decision.level, new) == 0 != _trigger_ms(decision.level, old):
            # Without the trigger there would have been no such event.
            return Outcome(fires=False, reason=int(KillReason.NONE), min_adj=0)
        return outcome_with(decision.evaluations, old, new, behaviour)
    if decision.strategy == "vmpressure":
        found = vmpressure_outcome(decision.values, new, behaviour)
        return Outcome(fires=found.fires, reason=int(KillReason.NONE), min_adj=found.min_adj)
    return None


def _trigger_ms(level: int, params: LmkdParams) -> int:
    """The stall that wakes lmkd at a level; 0: no trigger."""
    return (0, params.psi_partial_stall_ms, params.psi_complete_stall_ms)[level]


def smallest_changes(decision: Decision, params: LmkdParams, behaviour: Behaviour) -> tuple[Change, ...]:
    """For each property that can, the nearest value that flips the outcome; the smallest change first.

    One unit less does not flip it. Flipping means: the (first) victim is spared, or, when nobody was to
    be killed, that somebody is.
    """
    names = TUNABLE.get(decision.strategy, ())
    changes = []
    for name in names:
        if PROPERTY_BY_NAME[name].exists_in(behaviour):
            change = _smallest_change(name, decision, params, behaviour)
            if change is not None:
                changes.append(change)
    return tuple(sorted(changes, key=lambda change: (change.size, names.index(change.name))))


def _smallest_change(name: str, decision: Decision, params: LmkdParams, behaviour: Behaviour) -> Change | None:
    row = PROPERTY_BY_NAME[name]
    old = getattr(params, name)
    victim_adj = decision.killed_adjs[0] if decision.killed_adjs else None

    def outcome(value: int) -> Outcome | None:
        return decision_outcome(decision, params, with_property(params, name, value, behaviour), behaviour)

    def kills(value: int) -> bool:
        found = outcome(value)
        return found is not None and found.kills(victim_adj)

    killed = kills(old)
    lowest = row.minimum if row.minimum is not None else 0
    highest = row.maximum if row.maximum is not None else (1 << 31) - 1
    values = {value for value in _candidates(name, decision, victim_adj, params) if lowest <= value <= highest}
    for value in sorted(values - {old}, key=lambda value: (abs(value - old), value)):
        found = outcome(value)
        if found is None or found.kills(victim_adj) == killed:
            continue
        step = 1 if value > old else -1
        if value - step != old and kills(value - step) != killed:
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
    rule = "lmkd" if found.reason == KillReason.NONE else reason_name(found.reason)
    if not killed:
        return head + f"{rule} would have fired, killing down to oom_score_adj {found.min_adj}"
    if name in ("psi_partial_stall_ms", "psi_complete_stall_ms"):
        return head + "there would have been no such pressure event"
    if not found.fires:
        return head + "no rule would have fired"
    return head + f"{rule} would have spared oom_score_adj {victim_adj} (killing only down to {found.min_adj})"


def _around(*numbers: int) -> Iterable[int]:
    for number in numbers:
        yield from (number - 1, number, number + 1)


def _candidates(name: str, decision: Decision, victim_adj: int | None, params: LmkdParams) -> set[int]:
    """Every value at which a comparison changes, with its neighbours."""
    found: set[int] = {0, 1}
    if name == "swap_free_low_percentage":
        found |= set(range(101))
    elif name == "swap_compression_ratio":
        found |= set(range(65))
    elif name in ("upgrade_pressure", "downgrade_pressure"):
        share = decision.values.get("memory_share_pct")
        found |= set(_around(share)) if isinstance(share, int) else set()
    elif PROPERTY_BY_NAME[name].unit == "adj":
        found |= set(_around(1000)) | (set() if victim_adj is None else {victim_adj, victim_adj + 1})
    for e in decision.evaluations:
        found |= set(_psi_candidates(name, e, params))
    return found


def _psi_candidates(name: str, e: Evaluation, params: LmkdParams) -> Iterable[int]:
    thrashing = e.thrashing_pct
    if name == "thrashing_limit":
        thirds = (c_div(thrashing, factor) for factor in (2, 3))
        return _around(thrashing, *thirds, _uncut(thrashing, e, params))
    numbers = {
        "thrashing_limit_critical": (thrashing,),
        "swap_util_max": (swap_utilization_pct(e), 100),
        "filecache_min_kb": (e.file_lru_kib,),
        "stall_limit_critical": (int(min(e.full_stall_pct, 1e9)),),
        "direct_reclaim_threshold_ms": (e.direct_reclaim_ms,),
    }
    return _around(*numbers.get(name, ()))


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
