"""``/proc/pressure/*``: text -> frozen value (kernel/sched/psi.c)."""

from __future__ import annotations

import re

import attrs


@attrs.frozen(kw_only=True)
class Stall:
    """One row: share of time stalled in percent over 10, 60 and 300 s, and the total in microseconds."""

    avg10_pct: float
    avg60_pct: float
    avg300_pct: float
    total_us: int


@attrs.frozen(kw_only=True)
class Pressure:
    """One resource. ``full`` is None where the kernel has no such row (cpu before Linux 5.13)."""

    some: Stall
    full: Stall | None = None


_ROW = re.compile(r"(some|full) avg10=(\d+\.\d+) avg60=(\d+\.\d+) avg300=(\d+\.\d+) total=(\d+)[ \t]*", re.ASCII)


def parse_pressure(text: str) -> Pressure | None:
    """None when there is no well-formed ``some`` row. Never raises."""
    rows: dict[str, Stall] = {}
    for line in text.splitlines():
        if match := _ROW.fullmatch(line):
            kind, avg10, avg60, avg300, total = match.groups()
            rows[kind] = Stall(
                avg10_pct=float(avg10), avg60_pct=float(avg60), avg300_pct=float(avg300), total_us=int(total)
            )
    return Pressure(some=rows["some"], full=rows.get("full")) if "some" in rows else None
