"""A run as validation looks at it: kills, cold starts and curves from a moment on. Pure: a record in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import attrs

from lmk.policy.oom_adj import tier
from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow
from lmk.units import NS_PER_MS, NS_PER_S


@attrs.frozen(kw_only=True)
class KillView:
    """One kill, milliseconds after the scenario's beginning."""

    t_ms: float
    name: str
    tier: str


@attrs.frozen(kw_only=True)
class Curves:
    """One value per second: what MemAvailable and swap in use are at its end, what the rest comes to during it."""

    mem_available_kib: tuple[float, ...]
    swap_used_kib: tuple[float, ...]
    refault_pages: tuple[float, ...]
    psi_some_ms: tuple[float, ...]
    psi_full_ms: tuple[float, ...]


FIGURES: Final = tuple(field.name for field in attrs.fields(Curves))


@attrs.frozen(kw_only=True)
class RunView:
    """``from_ms``: what came before is the way to the starting state, and is not looked at."""

    from_ms: float
    end_ms: float
    kills: tuple[KillView, ...]
    cold_starts: int
    psi_some_ms: float
    psi_full_ms: float
    curves: Curves
    #: "launching", "spawned", "died" and "step", for who was cached when.
    events: tuple[EventRow, ...]
    zero_ns: int

    @property
    def kills_by_tier(self) -> Counter[str]:
        """How many of each tier."""
        return Counter(kill.tier for kill in self.kills)


def view_run(record: RecordReader, from_ms: float) -> RunView:
    """The run after ``from_ms``."""
    zero_ns = record.zero_ns
    end_ms = float(record.meta.get("duration_ms") or 0)
    kills = [
        KillView(
            t_ms=(kill.t_ns - zero_ns) / NS_PER_MS,
            name=kill.name or str(kill.pid),
            tier=tier(kill.oom_score_adj) if kill.oom_score_adj is not None else "unknown",
        )
        for kill in record.kills()
    ]
    launches = [event for event in record.app_events("launching") if (event.t_ns - zero_ns) / NS_PER_MS >= from_ms]
    counters = record.counters()
    start_ns, end_ns = zero_ns + int(from_ms * NS_PER_MS), zero_ns + int(end_ms * NS_PER_MS)

    def growth_ms(get: Callable[[CounterRow], int | None]) -> float:
        return (_at(counters, get, end_ns) - _at(counters, get, start_ns)) / 1000

    wanted = ("launching", "spawned", "died", "step", "service_started")
    return RunView(
        from_ms=from_ms,
        end_ms=end_ms,
        kills=tuple(kill for kill in kills if from_ms <= kill.t_ms <= end_ms),
        cold_starts=sum(bool(event.body.get("cold")) for event in launches),
        psi_some_ms=growth_ms(lambda row: row.psi_some_us),
        psi_full_ms=growth_ms(lambda row: row.psi_full_us),
        curves=curves(counters, start_ns, end_ns),
        events=tuple(event for event in record.app_events() if event.kind in wanted),
        zero_ns=zero_ns,
    )


def curves(counters: Sequence[CounterRow], start_ns: int, end_ns: int) -> Curves:
    """Per second from ``start_ns``; a value holds until the next sample."""
    seconds = max(0, (end_ns - start_ns) // NS_PER_S)
    ends = [start_ns + second * NS_PER_S for second in range(seconds + 1)]

    def level(get: Callable[[CounterRow], int | None]) -> list[float]:
        return [_at(counters, get, t_ns) for t_ns in ends]

    def swap_used(row: CounterRow) -> int | None:
        if row.swap_total_kib is None or row.swap_free_kib is None:
            return None
        return row.swap_total_kib - row.swap_free_kib

    def rate(get: Callable[[CounterRow], int | None], divisor: int) -> tuple[float, ...]:
        levels = level(get)
        return tuple((after - before) / divisor for before, after in pairwise(levels))

    return Curves(
        mem_available_kib=tuple(level(lambda row: row.mem_available_kib)[1:]),
        swap_used_kib=tuple(level(swap_used)[1:]),
        refault_pages=rate(lambda row: row.refault_file_pages, 1),
        psi_some_ms=rate(lambda row: row.psi_some_us, 1000),
        psi_full_ms=rate(lambda row: row.psi_full_us, 1000),
    )


def _at(counters: Sequence[CounterRow], get: Callable[[CounterRow], int | None], t_ns: int) -> float:
    """The last value seen at a time, the first one before there was any; 0 of none."""
    first = last = None
    for row in counters:
        value = get(row)
        if value is None:
            continue
        first = value if first is None else first
        if row.t_ns > t_ns:
            break
        last = value
    found = last if last is not None else first
    return float(found) if found is not None else 0.0
