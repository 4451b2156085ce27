"""A run as things that happen over time: processes with their tiers, watermarks, stalls. Record in, values out.

What a record does not say is left out, never made up: a record of an observed device has no decisions, one read from
a log has no samples. All times are nanoseconds as in the record (docs/record.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow, KillRow
from lmk.units import NS_PER_MS, NS_PER_US


@attrs.frozen
class AdjSpan:
    """``adj`` was a process's oom_score_adj in [begin_ns, end_ns); None: the record does not say."""

    begin_ns: int
    end_ns: int
    adj: int | None


@attrs.frozen(kw_only=True)
class ProcessLife:
    """One process from its start (or where the record begins to know it) to its end (or the record's)."""

    pid: int
    name: str | None
    uid: int | None
    begin_ns: int
    end_ns: int
    #: "killed", "exited", or "" while it was there at the record's end
    ended: str
    spans: tuple[AdjSpan, ...]


@attrs.frozen(kw_only=True)
class Marks:
    """What one decision compared memory with, in KiB; thrashing in percent."""

    t_ns: int
    free_kib: int
    min_kib: int
    low_kib: int
    high_kib: int
    free_swap_kib: int
    swap_threshold_kib: int
    thrashing_pct: int
    thrashing_limit_pct: int
    max_thrashing_pct: int


@attrs.frozen(kw_only=True)
class Timeline:
    """One run. ``kills`` are in the order of the kill table (``lmk explain`` counts them from 1)."""

    meta: Mapping[str, Any]
    zero_ns: int
    begin_ns: int
    end_ns: int
    counters: tuple[CounterRow, ...]
    kills: tuple[KillRow, ...]
    lives: tuple[ProcessLife, ...]
    launches: tuple[EventRow, ...]
    marks: tuple[Marks, ...]

    def ms(self, t_ns: int) -> float:
        """Milliseconds since the scenario began."""
        return (t_ns - self.zero_ns) / NS_PER_MS


def read_timeline(record: RecordReader) -> Timeline:
    """Everything that a picture of the run needs."""
    counters, kills, events = record.counters(), record.kills(), record.app_events()
    begin_ns, end_ns = _extent(record, counters, kills, events)
    return Timeline(
        meta=record.meta,
        zero_ns=record.zero_ns,
        begin_ns=begin_ns,
        end_ns=end_ns,
        counters=tuple(counters),
        kills=tuple(kills),
        lives=_lives(events, kills, _adj_writes(record), (begin_ns, end_ns)),
        launches=tuple(event for event in events if event.kind in ("launch", "home_shown")),
        marks=tuple(_marks(record)),
    )


def exit_ns(kill: KillRow) -> int:
    """When a victim was gone; the moment of the signal where that is not known."""
    return kill.t_ns + (kill.signal_to_exit_us or 0) * NS_PER_US


def stall_in_window_ms(counters: Sequence[CounterRow], column: str, window_ms: int) -> list[float | None]:
    """Per sample: milliseconds of stall within the window that ends there, as lmkd's PSI triggers count them.

    ``column`` names one of the PSI totals. Where samples are further apart than the window, the mean over the
    interval, scaled to the window. None for the first sample and where the total is unknown.
    """
    window_ns = window_ms * NS_PER_MS
    known = [(row.t_ns, total) for row in counters if (total := getattr(row, column)) is not None]
    found: dict[int, float] = {}
    start = 0
    for index in range(1, len(known)):
        t_ns, total_us = known[index]
        while start + 1 < index and known[start + 1][0] <= t_ns - window_ns:
            start += 1
        since_ns, since_us = known[start]
        after_ns, after_us = known[start + 1]
        cut_ns = max(since_ns, t_ns - window_ns)
        if start + 1 < index:
            # The window begins between two samples.
            since_us += (after_us - since_us) * (cut_ns - since_ns) // max(1, after_ns - since_ns)
            since_ns = cut_ns
        span_ns = t_ns - since_ns
        stalled_ms = (total_us - since_us) / 1000
        found[t_ns] = stalled_ms if span_ns <= window_ns else stalled_ms * window_ns / span_ns
    return [found.get(row.t_ns) for row in counters]


def keep_extremes(columns: Sequence[Sequence[float | None]], buckets: int) -> list[int]:
    """Which of many rows to draw: of each of ``buckets`` equal runs of rows, the first, the last, and the rows
    that hold the least and the greatest value of any column. Every extreme survives; what is dropped lies between."""
    rows = len(columns[0]) if columns else 0
    if rows <= buckets * 2:
        return list(range(rows))
    kept: set[int] = {0, rows - 1}
    for bucket in range(buckets):
        first, last = bucket * rows // buckets, (bucket + 1) * rows // buckets - 1
        kept |= {first, last}
        for column in columns:
            known = [(value, index) for index in range(first, last + 1) if (value := column[index]) is not None]
            if known:
                kept |= {min(known)[1], max(known)[1]}
    return sorted(kept)


def _extent(
    record: RecordReader, counters: Sequence[CounterRow], kills: Sequence[KillRow], events: Sequence[EventRow]
) -> tuple[int, int]:
    times = [row.t_ns for rows in (counters[:1], counters[-1:], kills, events[:1], events[-1:]) for row in rows]
    times += [exit_ns(kill) for kill in kills]
    duration_ms = record.meta.get("duration_ms")
    if duration_ms:
        times.append(record.zero_ns + int(duration_ms) * NS_PER_MS)
    return (min(times), max(times)) if times else (record.zero_ns, record.zero_ns)


def _adj_writes(record: RecordReader) -> Iterable[tuple[int, int, int]]:
    """(t_ns, pid, adj) of every oom_score_adj that ActivityManager set through the policy and that was written."""
    for step in record.steps("SetOomScoreAdj"):
        if not (step.answer or {}).get("error"):
            yield step.t_ns, int(step.request["pid"]), int(step.request["adj"])


def _marks(record: RecordReader) -> Iterable[Marks]:
    """The last look of each decision that looked; other policies than lmkd's PSI strategy compare other things."""
    for row in record.decisions():
        looks = row.body.get("evaluations") or ()
        if not looks or not looks[-1].get("high_pages"):
            continue
        look = looks[-1]
        kib = look.get("page_kib", 4)
        yield Marks(
            t_ns=row.t_ns,
            free_kib=look["free_pages"] * kib,
            min_kib=look["min_pages"] * kib,
            low_kib=look["low_pages"] * kib,
            high_kib=look["high_pages"] * kib,
            free_swap_kib=look["free_swap_pages"] * kib,
            swap_threshold_kib=look["swap_threshold_pages"] * kib,
            thrashing_pct=look["thrashing_pct"],
            thrashing_limit_pct=look["thrashing_limit_pct"],
            max_thrashing_pct=look["max_thrashing_pct"],
        )


@attrs.define
class _Life:
    pid: int
    begin_ns: int
    name: str | None = None
    uid: int | None = None
    ended: str = ""
    end_ns: int | None = None
    adjs: list[tuple[int, int]] = attrs.field(factory=list)

    def finished(self, end_ns: int) -> ProcessLife:
        end_ns = max(self.begin_ns, end_ns if self.end_ns is None else self.end_ns)
        spans: list[AdjSpan] = []
        starts: list[tuple[int, int | None]] = [(self.begin_ns, None), *self.adjs]
        for (begin_ns, adj), (until_ns, _) in zip(starts, [*starts[1:], (end_ns, None)], strict=True):
            until_ns = min(until_ns, end_ns)
            if until_ns <= begin_ns:
                continue
            if spans and spans[-1].adj == adj:
                spans[-1] = AdjSpan(spans[-1].begin_ns, until_ns, adj)
            else:
                spans.append(AdjSpan(begin_ns, until_ns, adj))
        return ProcessLife(
            pid=self.pid,
            name=self.name,
            uid=self.uid,
            begin_ns=self.begin_ns,
            end_ns=end_ns,
            ended=self.ended,
            spans=tuple(spans),
        )


class _Lives:
    """Puts lives together from what happened, in order of time. A pid may be used again."""

    def __init__(self, begin_ns: int) -> None:
        self._begin_ns = begin_ns
        self._open: dict[int, _Life] = {}
        self.all: list[_Life] = []

    def _at(self, pid: int, t_ns: int) -> _Life:
        """The life this pid leads; one the record has not seen begin is taken to be as old as the record."""
        life = self._open.get(pid)
        if life is None or (life.end_ns is not None and t_ns > life.end_ns):
            begin_ns = t_ns if life is not None else min(self._begin_ns, t_ns)
            life = self._open[pid] = _Life(pid, begin_ns)
            self.all.append(life)
        return life

    def begins(self, t_ns: int, body: Mapping[str, Any]) -> None:
        pid = int(body["pid"])
        if pid in self._open:
            self._ends(self._open[pid], t_ns, "exited")
        life = self._open[pid] = _Life(pid, t_ns, body.get("app"), body.get("uid"))
        self.all.append(life)

    def adj(self, t_ns: int, pid: int, adj: int) -> None:
        self._at(pid, t_ns).adjs.append((t_ns, adj))

    def killed(self, kill: KillRow) -> None:
        life = self._at(kill.pid, kill.t_ns)
        life.name = life.name or kill.name
        life.uid = kill.uid if life.uid is None else life.uid
        if kill.oom_score_adj is not None and not life.adjs:
            life.adjs.append((life.begin_ns, kill.oom_score_adj))
        if not kill.dry:
            life.ended, life.end_ns = "killed", exit_ns(kill)

    def died(self, t_ns: int, body: Mapping[str, Any]) -> None:
        life = self._open.get(int(body["pid"]))
        if life is not None:
            if body.get("adj") is not None and not life.adjs:
                life.adjs.append((life.begin_ns, int(body["adj"])))
            self._ends(life, t_ns, life.ended or "exited")

    def _ends(self, life: _Life, t_ns: int, how: str) -> None:
        life.ended = how
        life.end_ns = t_ns if life.end_ns is None else min(life.end_ns, t_ns)
        del self._open[life.pid]


#: At one moment: a birth, then its tier, then a kill (2), then a death. "killed" is ActivityManager's doing.
_ORDER = {"spawned": 0, "adj": 1, "killed": 3, "died": 3}


def _lives(
    events: Sequence[EventRow],
    kills: Sequence[KillRow],
    adjs: Iterable[tuple[int, int, int]],
    extent_ns: tuple[int, int],
) -> tuple[ProcessLife, ...]:
    lives = _Lives(extent_ns[0])
    happened: list[tuple[int, int, Any]] = [
        *((e.t_ns, _ORDER[e.kind], e) for e in events if _concerns_process(e)),
        *((t_ns, 1, (pid, adj)) for t_ns, pid, adj in adjs),
        *((kill.t_ns, 2, kill) for kill in kills),
    ]
    for t_ns, _, what in sorted(happened, key=lambda item: item[:2]):
        if isinstance(what, KillRow):
            lives.killed(what)
        elif isinstance(what, tuple):
            lives.adj(t_ns, *what)
        elif what.kind == "spawned":
            lives.begins(t_ns, what.body)
        elif what.kind == "adj":
            lives.adj(t_ns, int(what.body["pid"]), int(what.body["adj"]))
        else:
            lives.died(t_ns, what.body)
    found = [life.finished(extent_ns[1]) for life in lives.all]
    return tuple(sorted(found, key=lambda life: (life.begin_ns, life.pid)))


def _concerns_process(event: EventRow) -> bool:
    return event.kind in _ORDER and event.body.get("pid") is not None
