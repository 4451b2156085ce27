"""Why lmkd decided as it did, in words a person tuning ``ro.lmk.*`` understands.

Everything is computed from a ``Decision`` and the properties in force; nothing is looked up. ``explain``
walks the rules of the PSI strategy in their order and tells of each what it compared and how far it was
from firing. ``suggest`` finds, property by property, the smallest change that would have flipped the
outcome: the victim spared, or (where nobody was to be killed) somebody killed.
"""

from __future__ import annotations

import attrs

from lmk.policy.decision import Decision, Evaluation
from lmk.policy.explain_old import old_outcome
from lmk.policy.lmkd.kill_reason import KillReason, reason_name
from lmk.policy.lmkd.params import PROPERTY_BY_NAME, LmkdParams
from lmk.policy.lmkd.psi_rules import DIRECT_RECLAIM, RULES, swap_utilization_pct
from lmk.policy.lmkd.versions import Behaviour
from lmk.policy.lmkd.watermark import HIGH, LOW, MIN, WATERMARK_NAMES
from lmk.policy.whatif import Change, smallest_changes

NO_CHANGE = "No change of a single property would have changed this."
FIRED, NOT_REACHED, NOT_MET, NOT_KNOWN = "fired", "not reached", "not met", "not in this release"


@attrs.frozen(kw_only=True)
class Condition:
    """One comparison of a rule, as words with both numbers, and whether it held."""

    text: str
    holds: bool
    gap: str = ""  #: how far it was from holding, or by how much it held


@attrs.frozen(kw_only=True)
class RuleReport:
    """One rule: ``outcome`` is one of the module's four words."""

    rule: str
    reason: str
    outcome: str
    conditions: tuple[Condition, ...]


@attrs.frozen(kw_only=True)
class Explanation:
    """A decision explained. ``changes`` come smallest first; empty when no single property would do."""

    summary: str
    rules: tuple[RuleReport, ...] = ()
    changes: tuple[Change, ...] = ()

    def lines(self) -> list[str]:
        """The whole explanation as text."""
        text = [self.summary]
        for rule in self.rules:
            text.append(f"  {rule.reason}: {rule.outcome}")
            for condition in rule.conditions:
                mark = "yes" if condition.holds else "no "
                gap = f" ({condition.gap})" if condition.gap else ""
                text.append(f"    {mark} {condition.text}{gap}")
        if self.changes:
            text.append(self.changes[0].text)
            text.extend(f"  or: {change.text}" for change in self.changes[1:3])
        elif self.rules:
            text.append(NO_CHANGE)
        return text


_EARLY = {
    "pending kill": "nothing was decided: the last victim was still dying and the kill time-out not over",
    "lower event": "nothing was decided: a pressure event of a lower level right after a higher one waits for a poll",
    "no reclaim": "nothing was decided: neither direct reclaim nor kswapd was active and nothing had refaulted",
    "unreadable": "nothing was decided: a file of the kernel could not be read or parsed",
}


def explain(decision: Decision, params: LmkdParams, behaviour: Behaviour) -> Explanation:
    """The decision in words. Never raises."""
    if decision.ended_early:
        return Explanation(summary=_EARLY.get(decision.ended_early, decision.ended_early))
    if not decision.evaluations:
        return _explain_old(decision, params, behaviour)
    last = decision.evaluations[-1]
    return Explanation(
        summary=_summary(decision),
        rules=tuple(_report_rules(last, decision.reason, params, behaviour)),
        changes=smallest_changes(decision, params, behaviour),
    )


def _summary(decision: Decision) -> str:
    if decision.reason == KillReason.NONE:
        return "no kill: no rule fired"
    what = f"{reason_name(decision.reason)} ({decision.reason_text})"
    if decision.killed_pids:
        who = " and ".join(
            f"pid {pid} (oom_score_adj {adj})"
            for pid, adj in zip(decision.killed_pids, decision.killed_adjs, strict=False)
        )
        text = f"{who} was killed: {what}, down to oom_score_adj {decision.min_adj}"
    else:
        text = f"nobody was killed: {what}, but no process at or above oom_score_adj {decision.min_adj} could be"
    if len(decision.evaluations) > 1 and decision.evaluations[0].reason == decision.reason:
        text += "; the reason stands from before the watermarks were read again for the first kill"
    if decision.evaluations[-1].critical_stall:
        text += "; a critical memory stall lets any process die"
    return text


def _report_rules(last: Evaluation, reason: int, p: LmkdParams, b: Behaviour) -> list[RuleReport]:
    reports = []
    done = False
    for rule, number in zip(RULES, RULE_REASONS, strict=True):
        conditions = CONDITIONS[rule.__name__](last, p, b)
        holds = all(condition.holds for condition in conditions)
        if rule.__name__ == "vendor_kill" and last.vendor_reason is None:
            continue
        if not exists_in(rule.__name__, b):
            outcome = NOT_KNOWN
        elif done:
            outcome = NOT_REACHED
        else:
            outcome = FIRED if holds else NOT_MET
            done = holds
        word = reason_name(reason) if number is None else KillReason(number).name
        reports.append(RuleReport(rule=rule.__name__, reason=word, outcome=outcome, conditions=conditions))
    return reports


#: Reason of each rule of ``RULES``; None: the vendor's.
RULE_REASONS: tuple[int | None, ...] = (None, 0, 1, 2, 3, 6, 4, 5, 9, 7, 8)


def exists_in(rule: str, b: Behaviour) -> bool:
    """Does this release have the rule?"""
    switch = {
        "vendor_kill": b.vendor_kills,
        "low_mem_and_swap_util": b.swap_util_rule,
        "direct_recl_stuck": b.direct_reclaim_stuck_rule,
        "low_filecache_after_thrashing": b.filecache_rule,
        "low_mem": b.low_mem_rule,
    }
    return bool(switch.get(rule, True))


# ---- conditions of each rule, in the words of its docstring


def _more(name: str, value: float, limit_name: str, limit: float, unit: str) -> Condition:
    """``value > limit``."""
    holds = value > limit
    gap = f"{_number(value - limit)} {unit} above" if holds else f"{_number(limit - value)} {unit} too low"
    return _condition(
        f"{name} {_number(value)} {unit} > {limit_name} {_number(limit)} {unit}", holds, gap, value == limit
    )


def _less(name: str, value: float, limit_name: str, limit: float, unit: str) -> Condition:
    """``value < limit``."""
    holds = value < limit
    gap = f"{_number(limit - value)} {unit} below" if holds else f"{_number(value - limit)} {unit} too high"
    return _condition(
        f"{name} {_number(value)} {unit} < {limit_name} {_number(limit)} {unit}", holds, gap, value == limit
    )


def _condition(text: str, holds: bool, gap: str, equal: bool) -> Condition:
    return Condition(text=text, holds=holds, gap="exactly at the limit" if equal else gap)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.2f}"


def _breached(e: Evaluation, mark: int) -> Condition:
    pages = (e.min_pages, e.low_pages)[mark]
    name = WATERMARK_NAMES[mark]
    return _less("free memory", e.free_pages * e.page_kib, f"{name} watermark", pages * e.page_kib, "kB")


def _swap_low(e: Evaluation, p: LmkdParams) -> Condition:
    if not p.swap_free_low_percentage:
        return Condition(text="swap is low: switched off by swap_free_low_percentage 0", holds=e.swap_low)
    limit = f"{p.swap_free_low_percentage} % of swap:"
    return _less("free swap", e.free_swap_pages * e.page_kib, limit, e.swap_threshold_pages * e.page_kib, "kB")


def _direct(e: Evaluation) -> Condition:
    return Condition(
        text=f"in direct reclaim (was: {('no reclaim', 'kswapd', 'direct')[e.reclaim]})",
        holds=e.reclaim == DIRECT_RECLAIM,
    )


def _thrashing_above_running(e: Evaluation) -> Condition:
    return _more("thrashing", e.thrashing_pct, "running limit", e.thrashing_limit_pct, "%")


def _vendor_kill(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    return (Condition(text="a vendor kill event", holds=e.vendor_reason is not None),)


def _pressure_after_kill(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    first = Condition(text="first wake-up after a kill", holds=e.after_kill)
    return first, _breached(e, MIN)


def _not_responding(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    level = Condition(text=f"level critical (was {('low', 'medium', 'critical')[e.level]})", holds=e.level == 2)
    return level, Condition(text="an event, not a poll", holds=e.by_event)


def _low_swap_and_thrashing(e: Evaluation, p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    return _swap_low(e, p), _more("thrashing", e.thrashing_pct, "thrashing_limit", p.thrashing_limit, "%")


def _low_mem_and_swap(e: Evaluation, p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    return _swap_low(e, p), _breached(e, LOW)


def _low_mem_and_swap_util(e: Evaluation, p: LmkdParams, b: Behaviour) -> tuple[Condition, ...]:
    if not b.swap_util_rule or p.swap_util_max >= 100:
        return (Condition(text="swap_util_max below 100", holds=False, gap="switched off"),)
    used = swap_utilization_pct(e)
    return _breached(e, LOW), _more("swap utilisation", used, "swap_util_max", p.swap_util_max, "%")


def _low_mem_and_thrashing(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    return _breached(e, LOW), _thrashing_above_running(e)


def _direct_recl_and_thrashing(e: Evaluation, _p: LmkdParams, _b: Behaviour) -> tuple[Condition, ...]:
    return _direct(e), _thrashing_above_running(e)


def _direct_recl_stuck(e: Evaluation, p: LmkdParams, b: Behaviour) -> tuple[Condition, ...]:
    limit_ms = p.direct_reclaim_threshold_ms
    if not b.direct_reclaim_stuck_rule or limit_ms <= 0:
        return (Condition(text="direct_reclaim_threshold_ms above 0", holds=False, gap="switched off"),)
    return _direct(e), _more("in it for", e.direct_reclaim_ms, "direct_reclaim_threshold_ms", limit_ms, "ms")


def _low_filecache(e: Evaluation, p: LmkdParams, b: Behaviour) -> tuple[Condition, ...]:
    watched = Condition(text="the file cache is watched since a thrashing kill", holds=e.checked_filecache)
    small = _less("file cache", e.file_lru_kib, "filecache_min_kb", p.filecache_min_kb, "kB")
    if not b.filecache_rule:
        return (Condition(text="not in this release", holds=False),)
    if b.filecache_needs_watermark:
        high = Condition(text="the high watermark is breached", holds=e.watermark <= HIGH)
        return watched, high, small
    return watched, small


def _low_mem(e: Evaluation, p: LmkdParams, b: Behaviour) -> tuple[Condition, ...]:
    if not b.low_mem_rule:
        return (Condition(text="not in this release", holds=False),)
    if b.low_mem_skipped and p.lowmem_min_oom_score > 1000:
        return (Condition(text="lowmem_min_oom_score at most 1000", holds=False, gap="switched off"),)
    return (_breached(e, LOW),)


#: By the name of the rule. A rule fires exactly when all of its conditions hold.
CONDITIONS = {
    "vendor_kill": _vendor_kill,
    "pressure_after_kill": _pressure_after_kill,
    "not_responding": _not_responding,
    "low_swap_and_thrashing": _low_swap_and_thrashing,
    "low_mem_and_swap": _low_mem_and_swap,
    "low_mem_and_swap_util": _low_mem_and_swap_util,
    "low_mem_and_thrashing": _low_mem_and_thrashing,
    "direct_recl_and_thrashing": _direct_recl_and_thrashing,
    "direct_recl_stuck": _direct_recl_stuck,
    "low_filecache_after_thrashing": _low_filecache,
    "low_mem": _low_mem,
}


def _explain_old(decision: Decision, params: LmkdParams, behaviour: Behaviour) -> Explanation:
    """Minfree and vmpressure modes: their comparisons as one rule."""
    found = old_outcome(decision, params, behaviour)
    numbers = ", ".join(f"{name} {value}" for name, value in decision.values.items())
    if decision.killed_pids:
        pids = " and ".join(map(str, decision.killed_pids))
        levels = f"{decision.strategy} levels down to oom_score_adj {decision.min_adj}"
        summary = f"pid {pids} was killed by {levels}: {numbers}"
    elif found is not None and found.fires:
        summary = f"nobody was killed: no process at or above oom_score_adj {found.min_adj} could be: {numbers}"
    else:
        summary = f"no kill by {decision.strategy} levels: {numbers}"
    if found is None:
        return Explanation(summary=summary)
    conditions = tuple(Condition(text=step.text, holds=step.holds) for step in found.steps)
    outcome = FIRED if found.fires else NOT_MET
    rule = RuleReport(rule=decision.strategy, reason=decision.strategy, outcome=outcome, conditions=conditions)
    return Explanation(summary=summary, rules=(rule,), changes=smallest_changes(decision, params, behaviour))


def property_meaning(name: str) -> str:
    """What a property does, for a reader who does not know it."""
    return PROPERTY_BY_NAME[name].meaning
