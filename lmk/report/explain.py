"""Why a process died, or why none did at some moment: a run's recorded decisions put into words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from lmk.errors import UserError
from lmk.policy.explain import Explanation, explain
from lmk.policy.lmkd.params import load_params
from lmk.policy.lmkd.versions import behaviour
from lmk.record.decode import decision_of
from lmk.record.reader import DecisionRow, RecordReader
from lmk.record.schema import KILLER_LMK, KILLER_WORDS, KillRow
from lmk.units import NS_PER_MS

#: A decision and the signals it led to are never further apart.
_NEAR_NS = 1000 * NS_PER_MS


@attrs.frozen(kw_only=True)
class Explained:
    """One decision of a run. ``t_ms`` since the scenario began; ``kills`` are the processes it killed."""

    t_ms: float
    strategy: str
    level: int
    by_event: bool
    kills: tuple[KillRow, ...]
    explanation: Explanation


def explain_kill(record: RecordReader, number: int) -> Explained:
    """The decision behind the run's nth kill, counted from 1 as the kill table lists them."""
    kills = record.kills()
    if not 1 <= number <= len(kills):
        raise UserError(f"kill {number}: this run has {len(kills)} kills", "count from 1 in the run's kill table")
    return _only_kill(record, kills[number - 1])


def explain_pid(record: RecordReader, pid: int) -> Explained:
    """The decision that killed this process."""
    found = next((kill for kill in record.kills() if kill.pid == pid), None)
    if found is None:
        raise UserError(f"process {pid} was not killed in this run", "see the run's kill table")
    return _only_kill(record, found)


def explain_at(record: RecordReader, at_ms: float) -> Explained:
    """The last decision up to this moment of the scenario, with or without a kill."""
    limit_ns = record.zero_ns + int(at_ms * NS_PER_MS)
    last: DecisionRow | None = None
    for row in record.decisions():
        if row.t_ns > limit_ns and last is not None:
            break
        last = row
        if row.t_ns > limit_ns:
            break
    if last is None:
        raise UserError("this run recorded no decision", "was it run with --policy lmkd?")
    return _explained(record, last, record.kills())


def explain_kills(record: RecordReader, which: Sequence[int] | None = None) -> list[Explained | UserError]:
    """The decision behind each kill of the run, in the order of the kill table; or why there is none to explain.

    ``which``: only these, by their place in the table from 0. One pass over the decisions: a day's record has tens of
    thousands.
    """
    kills = record.kills()
    wanted = kills if which is None else [kills[index] for index in which]
    behind = _decisions_of({kill.pid for kill in wanted}, record.decisions())
    found: list[Explained | UserError] = []
    for kill in wanted:
        try:
            found.append(_of_kill(record, kill, behind.get(kill.pid, ()), kills))
        except UserError as error:
            found.append(error)
    return found


def _decisions_of(pids: set[int], decisions: Iterable[DecisionRow]) -> dict[int, list[DecisionRow]]:
    found: dict[int, list[DecisionRow]] = {}
    for row in decisions:
        for pid in row.body.get("killed_pids") or ():
            if pid in pids:
                found.setdefault(pid, []).append(row)
    return found


def _only_kill(record: RecordReader, kill: KillRow) -> Explained:
    rows = _decisions_of({kill.pid}, record.decisions()).get(kill.pid, ())
    return _of_kill(record, kill, rows, record.kills())


def _of_kill(record: RecordReader, kill: KillRow, rows: Sequence[DecisionRow], kills: Sequence[KillRow]) -> Explained:
    if kill.killer != KILLER_LMK:
        raise UserError(
            f"process {kill.pid} was killed by {KILLER_WORDS.get(kill.killer, kill.killer)}, not by lmk's policy",
            "see --at for what lmk saw",
        )
    # A pid may be reused within a run: the decision nearest in time is the one.
    if not rows:
        raise UserError(f"the decision behind the kill of {kill.pid} was not recorded", "see --at")
    return _explained(record, min(rows, key=lambda row: abs(row.t_ns - kill.t_ns)), kills)


def _explained(record: RecordReader, row: DecisionRow, all_kills: Sequence[KillRow]) -> Explained:
    decision = decision_of(row.body)
    if "android" not in record.meta or "properties" not in record.meta:
        raise UserError("this record does not say which lmkd decided", "lmk explain needs a record of lmk's own policy")
    release = behaviour(record.meta["android"])
    params = load_params(record.meta["properties"], release)
    near = slice(
        bisect_left(all_kills, row.t_ns - _NEAR_NS, key=lambda kill: kill.t_ns),
        bisect_right(all_kills, row.t_ns + _NEAR_NS, key=lambda kill: kill.t_ns),
    )
    kills = tuple(kill for kill in all_kills[near] if kill.pid in decision.killed_pids)
    return Explained(
        t_ms=(row.t_ns - record.zero_ns) / NS_PER_MS,
        strategy=decision.strategy,
        level=decision.level,
        by_event=decision.by_event,
        kills=kills,
        explanation=explain(decision, params, release),
    )


def explained_lines(found: Explained) -> list[str]:
    """For a person."""
    cause = "a pressure event" if found.by_event else "a poll"
    head = [f"At {found.t_ms / 1000:.2f} s, after {cause} ({found.strategy} strategy):"]
    head += [
        f"  killed {kill.name or '?'} (pid {kill.pid}), oom_score_adj {kill.oom_score_adj}, {kill.rss_kib} KiB rss"
        for kill in found.kills
    ]
    return [*head, *found.explanation.lines()]


def explained_json(found: Explained) -> dict[str, Any]:
    """For a machine (docs/json.md)."""
    body = attrs.asdict(found.explanation)
    return {
        "schema": 1,
        "t_ms": round(found.t_ms, 3),
        "strategy": found.strategy,
        "by_event": found.by_event,
        "killed": [{"pid": kill.pid, "name": kill.name, "oom_score_adj": kill.oom_score_adj} for kill in found.kills],
        **body,
    }
