"""A record as a world that answers: every exchange, what was read when, who was alive when, who was killed when.

Two ways to ask it. In step (``Recorded.steps``): the exchanges one after the other, exactly. By time: the last value
that was read of a file or process before a moment, which is what is left once a policy asks something else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from lmk.engine.observer import EVENT_TAG, LOG_TAG
from lmk.errors import UserError
from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.policy.lmkd.kernel_text import parse_statm_rss, parse_status_tag
from lmk.record.decode import value_of
from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, KillRow
from lmk.units import NS_PER_US

_PAGE_KIB = 4


@attrs.frozen
class Exchange:
    """One recorded request (plain, as encoded) and its answer (decoded when asked for)."""

    t_ns: int
    request: Mapping[str, Any]
    plain_answer: Any

    @property
    def kind(self) -> str:
        """The request's type."""
        return str(self.request["type"])


class Series:
    """Values by time; ``at`` is the last one up to a moment, else the first one after it."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._values: list[Any] = []

    def add(self, t_ns: int, value: Any) -> None:
        """In order of time."""
        self._times.append(t_ns)
        self._values.append(value)

    def at(self, t_ns: int) -> tuple[int, Any] | None:
        """(when, value), or None of an empty series."""
        if not self._times:
            return None
        index = max(0, bisect_right(self._times, t_ns) - 1)
        return self._times[index], self._values[index]

    def before(self, t_ns: int) -> int | None:
        """The time of the last entry up to a moment."""
        index = bisect_right(self._times, t_ns)
        return self._times[index - 1] if index else None

    def after(self, t_ns: int) -> int | None:
        """The time of the first entry later than a moment."""
        index = bisect_right(self._times, t_ns)
        return self._times[index] if index < len(self._times) else None


@attrs.frozen
class Stimulus:
    """What woke the policy: ``index`` counts exchanges from 0."""

    index: int
    t_ns: int
    events: tuple[api.Event, ...]


@attrs.define
class Recorded:
    """A record, indexed. UserError from ``load`` if it holds no exchanges."""

    exchanges: Sequence[Exchange]
    text: Callable[[int], bytes]
    counters: Sequence[CounterRow]
    kills: Sequence[KillRow]
    properties: Mapping[str, str]
    android: str
    zero_ns: int
    #: Events of every wake-up that had any, with the exchange's index.
    stimuli: list[Stimulus] = attrs.field(factory=list)
    files: dict[str, Series] = attrs.field(factory=lambda: defaultdict(Series))
    process_files: dict[tuple[int, str], Series] = attrs.field(factory=lambda: defaultdict(Series))
    rss_kib: dict[int, Series] = attrs.field(factory=lambda: defaultdict(Series))
    swap_kib: dict[int, Series] = attrs.field(factory=lambda: defaultdict(Series))
    #: Sizes from samples of the whole process table: coarser, but of everybody.
    table_kib: dict[int, Series] = attrs.field(factory=lambda: defaultdict(Series))
    names: dict[int, str] = attrs.field(factory=dict)
    births: dict[int, Series] = attrs.field(factory=lambda: defaultdict(Series))
    deaths: dict[int, Series] = attrs.field(factory=lambda: defaultdict(Series))
    memory_events: list[tuple[int, tuple[api.MemoryEvent, ...]]] = attrs.field(factory=list)
    triggers: dict[int, str] = attrs.field(factory=dict)
    #: When lines were logged, events logged, decisions noted: requests that are no exchange.
    times: dict[type[Any], list[int]] = attrs.field(factory=dict)

    @property
    def end_ns(self) -> int:
        """The last exchange."""
        return self.exchanges[-1].t_ns

    def answer(self, exchange: Exchange) -> Any:
        """The recorded answer as a value."""
        return self.value(exchange.plain_answer)

    def value(self, plain: Any) -> Any:
        """A recorded answer as the value it was."""
        return value_of(plain, self.text)

    def alive(self, pid: int, t_ns: int) -> bool:
        """Whether the process lived then: no death since it was last heard of."""
        died = self.deaths[pid].before(t_ns) if pid in self.deaths else None
        born = self.births[pid].before(t_ns) if pid in self.births else None
        return died is None or (born is not None and born > died)

    def size_kib(self, pid: int, t_ns: int) -> tuple[int, int] | None:
        """Resident and swapped KiB as last seen; None if nobody ever looked."""
        known = [series[pid].at(t_ns) for series in (self.rss_kib, self.table_kib) if pid in series]
        seen = [found for found in known if found is not None]
        swap = self.swap_kib[pid].at(t_ns) if pid in self.swap_kib else None
        if not seen:
            return None
        nearest = min(seen, key=lambda found: abs(found[0] - t_ns))
        return nearest[1], swap[1] if swap else 0


def load(record: RecordReader) -> Recorded:
    """Read and index a record. UserError if a policy could not be run over it."""
    exchanges = [Exchange(step.t_ns, step.request, step.answer) for step in record.steps()]
    if not exchanges or "properties" not in record.meta or not record.meta.get("android"):
        raise UserError(
            f"{record.path} holds no exchanges that a policy could be run over",
            "give a record of lmk run, lmk sim (up to 30 minutes long) or lmk record",
        )
    world = Recorded(
        exchanges=exchanges,
        text=record.text,
        counters=record.counters(),
        kills=record.kills(),
        properties=record.meta["properties"],
        android=record.meta["android"],
        zero_ns=record.zero_ns,
    )
    # In a dry run the exits that the policy was told of did not happen.
    indexer = _Indexer(world, believe_exits=not record.meta.get("dry_run"))
    indexer.index()
    _note_others(world, record, indexer.ends)
    logs = record.logs()
    world.times = {
        api.Log: [row.t_ns for row in logs if row.tag == LOG_TAG],
        api.EventLog: [row.t_ns for row in logs if row.tag == EVENT_TAG],
        Decision: [row.t_ns for row in record.decisions()],
    }
    return world


class _Indexer:
    """Walks the exchanges once."""

    def __init__(self, world: Recorded, *, believe_exits: bool) -> None:
        self._world = world
        self._believe_exits = believe_exits
        self._handles: dict[int, int] = {}
        self._index = 0
        self.ends: dict[int, set[int]] = defaultdict(set)

    def index(self) -> None:
        for index, exchange in enumerate(self._world.exchanges):
            self._index = index
            note = getattr(self, f"_{exchange.kind}", None)
            if note is not None:
                note(exchange, exchange.request, exchange.plain_answer)

    def _Wait(self, exchange: Exchange, _request: Mapping[str, Any], plain: Any) -> None:  # noqa: N802 - request types
        if plain is None or plain.get("type") != "Wakeup" or not plain["events"]:
            return
        wakeup: api.Wakeup = self._world.answer(exchange)
        events: list[api.Event] = []
        for event in wakeup.events:
            if isinstance(event, api.ExitEvent):
                if self._believe_exits and (pid := self._handles.get(event.handle)) is not None:
                    self.ends[pid].add(exchange.t_ns)
            elif isinstance(event, api.MemoryEvents):
                self._world.memory_events.append((exchange.t_ns, event.entries or ()))
                events.append(event)
            elif not isinstance(event, api.ReapedEvent | api.ReaperFailureEvent | api.WatchdogEvent):
                events.append(event)
        if events:
            self._world.stimuli.append(Stimulus(self._index, exchange.t_ns, tuple(events)))

    def _OpenPidfd(self, exchange: Exchange, request: Mapping[str, Any], plain: Any) -> None:  # noqa: N802
        if plain["handle"] > 0:
            self._handles[plain["handle"]] = request["pid"]
            self._world.births[request["pid"]].add(exchange.t_ns, None)

    def _SetOomScoreAdj(self, exchange: Exchange, request: Mapping[str, Any], plain: Any) -> None:  # noqa: N802
        if plain.get("error") is None:
            self._world.births[request["pid"]].add(exchange.t_ns, None)

    def _ReadFile(self, exchange: Exchange, request: Mapping[str, Any], plain: Any) -> None:  # noqa: N802
        self._world.files[request["path"]].add(exchange.t_ns, plain)

    def _ReadProcess(self, exchange: Exchange, request: Mapping[str, Any], plain: Any) -> None:  # noqa: N802
        pid, name = request["pid"], request["file"]
        answer = self._world.answer(exchange)
        if not isinstance(answer, str):
            return
        self._world.process_files[(pid, name)].add(exchange.t_ns, plain)
        if name == "status":
            for tag, series in (("VmRSS:", self._world.rss_kib), ("VmSwap:", self._world.swap_kib)):
                if (number := parse_status_tag(answer, tag)) is not None:
                    series[pid].add(exchange.t_ns, number)
        elif name == "cmdline" and answer:
            self._world.names[pid] = answer.split("\0", 1)[0]

    def _ReadSizes(self, exchange: Exchange, request: Mapping[str, Any], _plain: Any) -> None:  # noqa: N802
        for pid, size in zip(request["pids"], self._world.answer(exchange), strict=True):
            pages = parse_statm_rss(size) if isinstance(size, str) else size
            if isinstance(pages, int):
                self._world.rss_kib[pid].add(exchange.t_ns, pages * _PAGE_KIB)

    def _TakeMemoryEvents(self, exchange: Exchange, _request: Mapping[str, Any], _plain: Any) -> None:  # noqa: N802
        events: api.MemoryEvents = self._world.answer(exchange)
        if events.entries:
            self._world.memory_events.append((exchange.t_ns, events.entries))

    def _ArmPsi(self, _exchange: Exchange, request: Mapping[str, Any], _plain: Any) -> None:  # noqa: N802
        self._world.triggers[request["level"]] = request["text"]


def _note_others(world: Recorded, record: RecordReader, ends: dict[int, set[int]]) -> None:
    """Deaths, names and sizes that others than the policy saw: the app runner, the helper, the table's samples."""
    for event in (*record.app_events("died"), *record.device_events("exit")):
        if isinstance(event.body.get("pid"), int):
            ends[event.body["pid"]].add(event.t_ns)
    for kill in world.kills:
        if not kill.dry:
            ends[kill.pid].add(kill.t_ns + (kill.signal_to_exit_us or 0) * NS_PER_US)
    for pid, times in ends.items():
        for t_ns in sorted(times):
            world.deaths[pid].add(t_ns, None)
    for event in record.app_events("spawned"):
        world.names.setdefault(event.body["pid"], str(event.body.get("process") or event.body.get("app")))
    for event in record.device_events("processes"):
        for row in event.body["rows"]:
            world.names.setdefault(row["pid"], row["name"])
            world.table_kib[row["pid"]].add(event.t_ns, row["rss_kib"])
