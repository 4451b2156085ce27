"""A difference in words: what was recorded, what we did, the internal values side by side, the rule."""

from __future__ import annotations

import json
from collections.abc import Iterator

import attrs

from lmk.replay.compare import Difference, reason_name
from lmk.replay.run import Outcome

#: Names of the values of ``dbg``, in its order (those of ``Evaluation.recorded_values``).
DBG_NAMES = (
    *("watermark", "reclaim", "swap_low", "thrashing_pct", "thrashing_limit_pct", "max_thrashing_pct"),
    *("carried_thrashing_pct", "base_file_pages", "base_refaults", "critical_stall", "check_filecache"),
    *("reason", "min_adj", "windows"),
)
_TEXT_MAX = 600


def one_line(outcome: Outcome) -> str:
    """Scenario, place, what differs."""
    difference = outcome.difference
    if difference is None:
        return f"{outcome.name}: matched"
    if difference.failure:
        return f"{outcome.name} ({outcome.where}): {difference.what}: {difference.failure.splitlines()[-1]}"
    recorded, ours = _short(difference.recorded, 160), _short(difference.ours, 160)
    return (
        f"{outcome.name} ({outcome.where}): {difference.what} at {difference.t_us} us: recorded {recorded}, ours {ours}"
    )


def details(outcome: Outcome, explain: bool) -> Iterator[str]:
    """The first differing wake-up; with ``explain`` the internal values and the rule that fired."""
    difference = outcome.difference
    if difference is None:
        return
    yield f"{outcome.name}  {outcome.where}  lmkd {outcome.variant}"
    yield f"  first difference: {difference.what} at {difference.t_us} us ({outcome.wakeups} wake-ups compared)"
    if difference.failure:
        yield from difference.failure.splitlines()
        return
    yield f"  recorded: {_short(difference.recorded)}"
    yield f"  ours:     {_short(difference.ours)}"
    if difference.record is not None:
        yield f"  record:   {_short(difference.record)}"
    if explain:
        yield from _internals(difference)


def _internals(difference: Difference) -> Iterator[str]:
    decision = difference.decision
    ours = [e.recorded_values() for e in decision.evaluations] if decision else []
    recorded = difference.recorded_dbg or []
    if not ours and not recorded:
        yield "  no decision in this call: it ended early, in the recording and here"
    for number in range(max(len(ours), len(recorded))):
        theirs = recorded[number] if number < len(recorded) else []
        mine = ours[number] if number < len(ours) else []
        yield f"  internal values, look {number + 1}: {'name':<24}{'recorded':>22}{'ours':>22}"
        for index, name in enumerate(DBG_NAMES):
            left = str(theirs[index]) if index < len(theirs) else "-"
            right = str(mine[index]) if index < len(mine) else "-"
            mark = "" if left == right else "   <--"
            yield f"  {'':<25}{name:<24}{left:>22}{right:>22}{mark}"
    if decision is not None:
        rule = reason_name(decision.reason) if decision.reason >= 0 else "no rule fired"
        text = f": {decision.reason_text}" if decision.reason_text else ""
        yield f"  rule: {rule}{text}; lowest killable oom_score_adj {decision.min_adj}"
        seen = attrs.asdict(decision.evaluations[-1]) if decision.evaluations else dict(decision.values)
        yield f"  compared: {_short(seen, 2000)}"


def _short(value: object, limit: int = _TEXT_MAX) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, dict | list | tuple):
        text = json.dumps(value, default=str, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
