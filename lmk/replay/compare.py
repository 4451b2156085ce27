"""Our daemon beside the recorded one, record by record while the replay runs."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import attrs

from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.replay.target import Effect
from lmk.replay.vectors import repeats

REASON_NAMES = {
    -1: "NONE",
    0: "PRESSURE_AFTER_KILL",
    1: "NOT_RESPONDING",
    2: "LOW_SWAP_AND_THRASHING",
    3: "LOW_MEM_AND_SWAP",
    4: "LOW_MEM_AND_THRASHING",
    5: "DIRECT_RECL_AND_THRASHING",
    6: "LOW_MEM_AND_SWAP_UTIL",
    7: "LOW_FILECACHE_AFTER_THRASHING",
    8: "LOW_MEM",
    9: "DIRECT_RECL_STUCK",
}
_FLOAT32 = struct.Struct("f")
_PSI_FLOATS = 5
_KILLINFO_FIELDS = 38
#: Handlers whose records carry neither level nor state: they run on other threads or outside handlers.
_UNSTATED = ("loop", "watchdog")


class Table(Protocol):
    """What the comparer asks of the policy beside its requests; all read-only."""

    def processes(self) -> Sequence[api.ProcessRow]:
        """Rows: oom_score_adj descending, list head to tail."""

    def kill_count(self) -> int:
        """All kills so far."""

    def state(self) -> api.HandlerEnd:
        """Polling state and awaited pid now."""


@attrs.frozen(kw_only=True)
class Difference:
    """The first difference of a scenario."""

    what: str
    t_us: int
    recorded: object
    ours: object
    record: dict[str, Any] | None = None
    decision: Decision | None = None
    recorded_dbg: list[list[int]] | None = None
    #: Traceback, when the policy raised.
    failure: str = ""


class Differs(Exception):  # noqa: N818 - how a comparison ends, not a failure
    """Carries the first difference."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.what)
        self.difference = difference


class _Expected:
    """One recorded handler call, ready to compare; equal calls of a run share it."""

    __slots__ = ("dbg", "effects", "handler", "kills", "polling", "record", "rows", "waiting")

    def __init__(self, record: dict[str, Any], before: _Expected | None, ctrl: bool) -> None:
        self.record = record
        self.handler = (record["h"], record.get("d", 0), record.get("ev", 1))
        self.effects = [recorded_effect(effect) for effect in record.get("fx", ())]
        self.kills = [tuple(kill) for kill in record.get("kill", ())]
        self.polling: tuple[int, ...] = before.polling if before else (-1, -1, 0)
        if "poll" in record:
            self.polling = tuple(record["poll"])
        self.waiting: int = record.get("wait", before.waiting if before else -1)
        self.dbg: list[list[int]] = record.get("dbg", [])
        self.rows: list[tuple[int, ...]] | None = before.rows if before else ([] if ctrl else None)
        if "procs" in record:
            self.rows = [tuple(row) for row in record["procs"]]


def recorded_effect(effect: list[Any]) -> Effect:
    """An effect of the recording as the target writes it down."""
    if effect[0] == "evlog" and len(effect) == 1 + _KILLINFO_FIELDS:
        floats = (_FLOAT32.unpack(_FLOAT32.pack(value))[0] for value in effect[-_PSI_FLOATS:])
        return (*effect[:-_PSI_FLOATS], *floats)
    if effect[0] == "write" and effect[1].endswith("/cgroup.event_control"):
        return ("write", effect[1], _without_descriptors(effect[2]), *effect[3:])
    return tuple(effect)


def _without_descriptors(text: str) -> str:
    """Descriptor numbers belong to the recorder's kernel; what counts is that they are two of one group."""
    words = text.split(" ")
    if len(words) == 3 and words[0].isdecimal() and words[1].isdecimal() and int(words[0]) - int(words[1]) == 2:
        return f"(eventfd) (pressure_level) {words[2]}"
    return text


def table_rows(table: Table) -> list[tuple[int, ...]]:
    """The process table as recorded: pid, uid, adj, registering pid, valid."""
    return [(r.pid, r.uid, r.adj, r.owner_pid, int(r.valid)) for r in table.processes()]


def kill_summary(effects: list[Effect]) -> list[tuple[int, str, int, int]]:
    """(pid, reason, min score, adj) of every kill that was reported."""
    return [(e[1], reason_name(e[6]), e[4], e[3]) for e in effects if e[0] == "evlog"]


def reason_name(reason: int) -> str:
    """lmkd's word for a kill reason; vendor reasons are numbers."""
    return REASON_NAMES.get(reason, str(reason))


class Comparer:
    """An ``Observer`` (lmk.replay.target) that raises `Differs` at the first difference."""

    def __init__(self, expect: dict[str, Any], kind: str) -> None:
        self._expect = expect
        self._ctrl = kind == "ctrl"
        self._trace: Iterator[dict[str, Any]] = iter(expect["trace"])
        self._current: _Expected | None = None
        self._left = 0
        self._t_us = 0
        self._step_us = 0
        self.table: Table | None = None
        self.matched_kills = 0
        self.wakeups = 0

    # ---- lmk.replay.target.Observer -----------------------------------------------------------

    def start_up(self, effects: list[Effect]) -> None:
        """See ``Observer``."""
        recorded = [recorded_effect(effect) for effect in self._expect["init"]]
        ours = [_canonical(effect) for effect in effects]
        if recorded != ours:
            _first_effect("start-up", 0, recorded, ours)

    def loop(self, t_us: int, effects: list[Effect]) -> None:
        """See ``Observer``."""
        expected = self._next(t_us, "loop", effects)
        if expected.handler[0] != "loop" or self._t_us != t_us:
            self._differ("handler", t_us, expected.handler[0], ("loop", effects))
        ours = [_canonical(effect) for effect in effects]
        if expected.effects != ours:
            self._effects_differ(t_us, ours, None)

    def handler(
        self,
        t_us: int,
        begin: api.HandlerBegin,
        end: api.HandlerEnd | None,
        effects: list[Effect],
        decisions: list[Decision],
    ) -> None:
        """See ``Observer``."""
        self.wakeups += 1
        decision = decisions[-1] if decisions else None
        expected = self._next(t_us, begin.name, effects)
        if self._t_us != t_us:
            self._differ("time", t_us, self._t_us, t_us, decision)
        name, level, by_event = expected.handler
        if name != begin.name:
            self._differ("handler", t_us, expected.handler, begin, decision)
        if name not in _UNSTATED and (level != begin.data or by_event != begin.by_event):
            self._differ("handler", t_us, expected.handler, begin, decision)
        if (effects or expected.effects) and expected.effects != effects:
            self._effects_differ(t_us, effects, decision)
        if expected.kills or effects:
            kills = kill_summary(effects)
            if kills != expected.kills:
                self._differ("kills", t_us, expected.kills, kills, decision)
            self.matched_kills += len(kills)
        if name == "watchdog":
            return
        if end is not None:
            self._compare_state(t_us, expected, end, decision)
            if expected.rows is not None:
                self._compare_table(t_us, expected)
        ours = [e.recorded_values() for made in decisions for e in made.evaluations]
        if ours != expected.dbg:
            self._differ("internal values", t_us, expected.dbg, ours, decision)

    def end(self, why: str, t_us: int) -> None:
        """See ``Observer``."""
        if self._left or (rest := next(self._trace, None)) is not None:
            missing = self._current.record if self._left and self._current else rest
            self._differ("missing record", t_us, missing, None)
        recorded = self._expect["end"]
        ours: dict[str, object] = {"why": why, "t": t_us}
        if self.table is not None:
            state = self.table.state()
            ours["wait"] = state.waiting_pid
            ours["poll"] = [state.polling, state.paused, state.interval_ms]
            ours["killcnt"] = self.table.kill_count()
            rows = table_rows(self.table)
            ours["procs"] = [list(row) if self._ctrl else [row[0], row[2]] for row in rows]
        for key, value in recorded.items():
            if key in ours and ours[key] != value:
                self._differ(f"end: {key}", t_us, value, ours[key])

    # ---- inside -----------------------------------------------------------------------------

    def _next(self, t_us: int, name: str, effects: list[Effect]) -> _Expected:
        if self._left:
            self._left -= 1
            self._t_us += self._step_us
            assert self._current is not None
            return self._current
        record = next(self._trace, None)
        if record is None:
            self._differ("surplus record", t_us, None, (name, effects))
        assert record is not None
        self._current = _Expected(record, self._current, self._ctrl)
        self._t_us = record["t"]
        self._left = repeats(record) - 1
        self._step_us = record["run"][1] if "run" in record else 0
        return self._current

    def _compare_state(self, t_us: int, expected: _Expected, end: api.HandlerEnd, decision: Decision | None) -> None:
        a, b, interval_ms = expected.polling
        if a != end.polling or b != end.paused or interval_ms != end.interval_ms:
            ours = (end.polling, end.paused, end.interval_ms)
            self._differ("polling state", t_us, expected.polling, ours, decision)
        if expected.waiting != end.waiting_pid:
            self._differ("awaited pid", t_us, expected.waiting, end.waiting_pid, decision)

    def _compare_table(self, t_us: int, expected: _Expected) -> None:
        if self.table is None:
            return
        rows = table_rows(self.table)
        if rows != expected.rows:
            self._differ("process table", t_us, expected.rows, rows)

    def _effects_differ(self, t_us: int, effects: list[Effect], decision: Decision | None) -> None:
        assert self._current is not None
        ours = [_canonical(effect) for effect in effects]
        if ours == self._current.effects:
            return
        try:
            _first_effect("effects", t_us, self._current.effects, ours)
        except Differs as differs:
            found = differs.difference
            self._differ(found.what, t_us, found.recorded, found.ours, decision)

    def _differ(self, what: str, t_us: int, recorded: object, ours: object, decision: Decision | None = None) -> None:
        current = self._current
        raise Differs(
            Difference(
                what=what,
                t_us=t_us,
                recorded=recorded,
                ours=ours,
                record=current.record if current else None,
                decision=decision,
                recorded_dbg=current.dbg if current else None,
            )
        )


def _canonical(effect: Effect) -> Effect:
    if effect[0] == "write" and effect[1].endswith("/cgroup.event_control"):
        return (*effect[:2], _without_descriptors(effect[2]), *effect[3:])
    return effect


def _first_effect(what: str, t_us: int, recorded: list[Effect], ours: list[Effect]) -> None:
    for number in range(max(len(recorded), len(ours))):
        theirs = recorded[number] if number < len(recorded) else None
        mine = ours[number] if number < len(ours) else None
        if theirs != mine:
            raise Differs(Difference(what=f"{what}, number {number + 1}", t_us=t_us, recorded=theirs, ours=mine))
