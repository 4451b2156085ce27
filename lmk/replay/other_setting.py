"""What another setting would have done, by a record: a replay of the policy, and each recorded decision by itself.

Both answers say how far they reach. The replay is exact while the dialogue is the recorded one, sees the world
through samples until the first differing kill, and is an estimate afterwards (``lmk.replay.again``). A decision by
itself is exact arithmetic for every recorded moment, given the world as it was then: it says what that look at memory
would have led to, not what would have followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmk.engine.kills import KillJournal
from lmk.engine.loop import run_policy
from lmk.engine.observer import Observers, RecordingObserver
from lmk.policy.lmkd.kill_reason import reason_name
from lmk.policy.lmkd.params import load_params
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import behaviour
from lmk.policy.whatif import Outcome, decision_outcome
from lmk.record.decode import decision_of
from lmk.record.reader import RecordReader
from lmk.record.schema import KILLER_KERNEL_OOM, KillRow
from lmk.record.writer import RecordWriter
from lmk.replay.again import Again
from lmk.replay.recorded import Recorded, load
from lmk.units import NS_PER_MS

#: Two kills of one process at most so far apart are the same one.
SAME_MS = 100
#: A replayed kill of another process at most so far from a recorded one took its place.
INSTEAD_MS = 2000


@attrs.frozen(kw_only=True)
class Compared:
    """One kill of either side. ``verdict``: same, earlier, later, other victim, not killed, additional.

    ``basis``: ``exact``, the dialogue was still the recorded one; ``sampled``, the world as it was, but only as often
    as somebody looked; ``estimate``, behind the first differing kill. Times in ms since the scenario began.
    """

    verdict: str
    basis: str
    recorded_ms: int | None = None
    replayed_ms: int | None = None
    recorded: KillRow | None = None
    replayed: KillRow | None = None


@attrs.frozen(kw_only=True)
class Moment:
    """A recorded decision that would have come out otherwise, given the world as it was."""

    t_ms: int
    recorded: str
    other: str


@attrs.frozen(kw_only=True)
class Moments:
    """All recorded decisions under the other setting; ``differing`` in order of time."""

    decisions: int
    undecidable: int
    would_kill: int
    would_not_kill: int
    otherwise: int
    differing: tuple[Moment, ...]


@attrs.frozen(kw_only=True)
class Replayed:
    """Everything ``lmk replay`` says. ``diverged_ms``, the first differing kill: what follows is an estimate."""

    directory: Path
    #: Until then every exchange was the recorded one.
    left_ms: int | None
    diverged_ms: int | None
    derived_levels: Mapping[int, str]
    stale_reads: int
    unknown_sizes: int
    kills: tuple[Compared, ...]
    moments: Moments | None
    recorded_kernel_oom: int


def replay_setting(record: RecordReader, properties: Mapping[str, str], android: str, directory: Path) -> Replayed:
    """Replay a record under other properties and leave the replay's own record in ``directory``.

    UserError if the record cannot be replayed; InfraError if ``directory`` cannot be written.
    """
    world = load(record)
    target = Again(world, properties)
    with RecordWriter(directory) as writer:
        found: list[KillRow] = []
        journal = KillJournal(writer, on_kill=found.append)
        run_policy(LmkdPolicy(android), target, Observers(RecordingObserver(writer), journal))
        for counter in world.counters:
            writer.counter(counter)
        for event in record.app_events():
            writer.app_event(event)
        writer.meta(_meta(record, properties, android))
    kernel = [kill for kill in world.kills if kill.killer == KILLER_KERNEL_OOM]
    recorded = [kill for kill in world.kills if not kill.dry and kill.killer != KILLER_KERNEL_OOM]
    pairs = pair_kills(recorded, found)
    diverged_ns = first_difference_ns(pairs)
    return Replayed(
        directory=directory,
        left_ms=_ms(target.left_ns, world),
        diverged_ms=_ms(diverged_ns, world),
        derived_levels=dict(target.derived_levels),
        stale_reads=target.stale_reads,
        unknown_sizes=target.unknown_sizes,
        kills=tuple(_compared(pair, world.zero_ns, target.left_ns, diverged_ns) for pair in pairs),
        moments=_moments(record, world, properties, android),
        recorded_kernel_oom=len(kernel),
    )


def _meta(record: RecordReader, properties: Mapping[str, str], android: str) -> dict[str, Any]:
    kept = {name: record.meta.get(name) for name in ("config", "scenario", "seed", "device", "duration_ms", "zero_ns")}
    return {
        **kept,
        "zero_ns": record.zero_ns,
        "policy": "lmkd",
        "android": android,
        "properties": dict(properties),
        "target": "replay",
        "replay_of": str(record.path),
        "complete": True,
    }


Pair = tuple[KillRow | None, KillRow | None]


def pair_kills(recorded: Sequence[KillRow], replayed: Sequence[KillRow]) -> list[Pair]:
    """Each kill of either side once, by time: of the same process, in its place, or by itself."""
    free = list(replayed)
    pairs: list[Pair] = []
    alone: list[KillRow] = []
    for kill in recorded:
        same = [other for other in free if other.pid == kill.pid]
        match = min(same, key=lambda other: abs(other.t_ns - kill.t_ns), default=None)
        if match is None:
            alone.append(kill)
        else:
            free.remove(match)
            pairs.append((kill, match))
    for kill in alone:
        near = [other for other in free if abs(other.t_ns - kill.t_ns) <= INSTEAD_MS * NS_PER_MS]
        instead = min(near, key=lambda other: abs(other.t_ns - kill.t_ns), default=None)
        if instead is not None:
            free.remove(instead)
        pairs.append((kill, instead))
    pairs.extend((None, other) for other in free)
    return sorted(pairs, key=_first_ns)


def _first_ns(pair: Pair) -> int:
    return min(row.t_ns for row in pair if row is not None)


def first_difference_ns(pairs: Sequence[Pair]) -> int | None:
    """When the first kill came out otherwise. None if none did."""
    return min((_first_ns(pair) for pair in pairs if _verdict(*pair) != "same"), default=None)


def _verdict(kill: KillRow | None, other: KillRow | None) -> str:
    if kill is None:
        return "additional"
    if other is None:
        return "not killed"
    if kill.pid != other.pid:
        return "other victim"
    if abs(kill.t_ns - other.t_ns) <= SAME_MS * NS_PER_MS:
        return "same"
    return "earlier" if other.t_ns < kill.t_ns else "later"


def _compared(pair: Pair, zero_ns: int, left_ns: int | None, diverged_ns: int | None) -> Compared:
    kill, other = pair
    first_ns = _first_ns(pair)
    if left_ns is None or first_ns <= left_ns:
        basis = "exact"
    else:
        basis = "sampled" if diverged_ns is None or first_ns <= diverged_ns else "estimate"
    return Compared(
        verdict=_verdict(kill, other),
        basis=basis,
        recorded_ms=None if kill is None else (kill.t_ns - zero_ns) // NS_PER_MS,
        replayed_ms=None if other is None else (other.t_ns - zero_ns) // NS_PER_MS,
        recorded=kill,
        replayed=other,
    )


def _moments(record: RecordReader, world: Recorded, properties: Mapping[str, str], android: str) -> Moments | None:
    """None under another release: its rules are not those that were recorded."""
    if android != world.android:
        return None
    release = behaviour(android)
    old, new = load_params(world.properties, release), load_params(properties, release)
    counts = dict.fromkeys(("decisions", "undecidable", "would_kill", "would_not_kill", "otherwise"), 0)
    differing = []
    for row in record.decisions():
        counts["decisions"] += 1
        decision = decision_of(row.body)
        before = decision_outcome(decision, old, old, release)
        after = decision_outcome(decision, old, new, release)
        if before is None or after is None:
            counts["undecidable"] += 1
            continue
        change = _change(before, after)
        if change:
            counts[change] += 1
            differing.append(
                Moment(t_ms=(row.t_ns - world.zero_ns) // NS_PER_MS, recorded=_words(before), other=_words(after))
            )
    return Moments(**counts, differing=tuple(differing))


def _change(before: Outcome, after: Outcome) -> str:
    if before.fires != after.fires:
        return "would_kill" if after.fires else "would_not_kill"
    if before.fires and (before.reason, before.min_adj) != (after.reason, after.min_adj):
        return "otherwise"
    return ""


def _words(outcome: Outcome) -> str:
    if not outcome.fires:
        return "no kill"
    reason = "a kill" if outcome.reason < 0 else reason_name(outcome.reason)
    return f"{reason}, down to adj {outcome.min_adj}"


def _ms(t_ns: int | None, world: Recorded) -> int | None:
    return None if t_ns is None else (t_ns - world.zero_ns) // NS_PER_MS
