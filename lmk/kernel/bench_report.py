"""What the rows of a measurement say: medians over repetitions, slopes, ratios. Pure: rows in, tables out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import attrs

from lmk.kernel.bench import BenchRows
from lmk.kernel.bench_steps import FAILURES

_GROUP_FIGURES = (
    "returned_us",
    "back_us",
    "others_back_us",
    "calls",
    "victims",
    "reaped",
    "reaped_mib",
    "lost",
    "late",
)
_GROUP_KEY = ("scene", "processes", "mib_each", "way")


@attrs.frozen(kw_only=True)
class BenchTable:
    """``rows`` have one cell per column; None where nothing was measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@attrs.frozen(kw_only=True)
class SharingCost:
    """What the sharing check costs, for victims of one number of threads. Slopes in ns per other process."""

    threads: int
    walk_slope_ns: float
    count_slope_ns: float

    @property
    def gain(self) -> float | None:
        """How many times steeper the walk is; None where counting has no slope above noise."""
        return self.walk_slope_ns / self.count_slope_ns if self.count_slope_ns > 0 else None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope; 0 where all x are the same."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def sharing_costs(rows: BenchRows, kind: str = "sharing") -> list[SharingCost]:
    """One per number of threads that was measured with at least two numbers of processes."""
    found = []
    for threads in sorted({row["threads"] for row in rows.of(kind)}):
        mine = [row for row in rows.of(kind) if row["threads"] == threads]
        if len({row["processes"] for row in mine}) < 2:
            continue
        walk, count = (slope([(row["processes"], row[key]) for row in mine]) for key in ("walk_ns", "count_ns"))
        found.append(SharingCost(threads=threads, walk_slope_ns=walk, count_slope_ns=count))
    return found


def cost_per_thread_ns(rows: BenchRows, kind: str = "sharing") -> float | None:
    """ns that counting takes per thread of the victim, mean of the slopes over threads; None if not measured."""
    slopes = []
    for processes in {row["processes"] for row in rows.of(kind)}:
        # With one thread mm_users is 1 and nothing is counted.
        mine = [r for r in rows.of(kind) if r["processes"] == processes and r["threads"] > 1]
        if len(mine) > 1:
            slopes.append(slope([(row["threads"], row["count_ns"]) for row in mine]))
    return sum(slopes) / len(slopes) if slopes else None


def group_medians(rows: BenchRows) -> list[dict[str, Any]]:
    """Scene and way to the medians of the rounds; ``escaped`` is the sum, ``back_us`` 0 counts as never."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows.of("group"):
        groups.setdefault(tuple(row[key] for key in _GROUP_KEY), []).append(row)
    found = []
    for key, rounds in groups.items():
        medians: dict[str, Any] = {name: median(row[name] for row in rounds) for name in _GROUP_FIGURES}
        for name in ("back_us", "others_back_us"):
            seen = [row[name] for row in rounds if row[name]]
            medians[name] = median(seen) if len(seen) * 2 > len(rounds) else None
        found.append(
            dict(zip(_GROUP_KEY, key, strict=True))
            | {"rounds": len(rounds), **medians, "escaped": sum(row["escaped"] for row in rounds)}
        )
    return found


def tables(rows: BenchRows) -> list[BenchTable]:
    """Everything that was measured, for people."""
    made = (
        *(_sharing(rows), _slopes(rows, "sharing", "ns"), _slopes(rows, "sharing_instructions", "instructions")),
        *(_hits(rows), _verdicts(rows), _groups(rows), _speed(rows), _missing(rows)),
    )
    return [table for table in made if table.rows]


def _table(title: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> BenchTable:
    cells = tuple(tuple(row.get(key) for key in columns) for row in rows)
    return BenchTable(title=title, columns=tuple(columns.values()), rows=cells)


def _sharing(rows: BenchRows) -> BenchTable:
    columns = {
        "processes": "other processes",
        "threads": "threads of the victim",
        "walk_visited": "visited, unpatched",
        "count_visited": "visited, patched",
        "count_threads": "threads counted",
        "walk_ns": "ns, unpatched",
        "count_ns": "ns, patched",
    }
    return _table("one process_reap() of a victim held at its exit, medians of 200 calls", columns, rows.of("sharing"))


def _slopes(rows: BenchRows, kind: str, unit: str) -> BenchTable:
    per_thread = cost_per_thread_ns(rows, kind)
    found = tuple(
        (cost.threads, round(cost.walk_slope_ns, 1), round(cost.count_slope_ns, 3), _round(cost.gain, 0))
        for cost in sharing_costs(rows, kind)
    )
    title = f"{unit} per other process"
    if per_thread is not None:
        title += f"; counting takes {per_thread:.1f} {unit} per thread of the victim"
    return BenchTable(title=title, columns=("threads", "unpatched", "patched", "ratio"), rows=found)


def _hits(rows: BenchRows) -> BenchTable:
    found = tuple(
        (
            "reading smaps_rollup" if row["reader"] else "none",
            *(row[key] for key in ("victims", "reaped", "checks", "counted")),
            f"{100 * row['counted'] / row['checks']:.1f} %" if row["checks"] else None,
        )
        for row in rows.of("hits")
    )
    columns = ("reader", "victims", "reaped", "checks", "decided by counting", "hit rate")
    return BenchTable(
        title="how often counting is enough: victims of 16 threads, killed and reaped", columns=columns, rows=found
    )


def _verdicts(rows: BenchRows) -> BenchTable:
    columns = {
        "rounds": "victims",
        "compared": "compared",
        "reaped": "reaped",
        "gone": "ESRCH",
        "shared": "EINVAL",
        "wrong": "wrong answers",
        "contradictions": "kernel warnings",
    }
    return _table("random victims, count and walk both done and compared (mode 2)", columns, rows.of("verdicts"))


def _groups(rows: BenchRows) -> BenchTable:
    columns = {
        "scene": "cgroup",
        "way": "way",
        "calls": "system calls",
        "victims": "victims",
        "reaped": "reaped",
        "reaped_mib": "MiB by the reaper",
        "lost": "lost (ESRCH)",
        "late": "late",
        "escaped": "escaped",
        "returned": "returned ms",
        "others": "others back ms",
        "back": "memory back ms",
    }
    shown = [
        row
        | {"returned": _ms(row["returned_us"]), "back": _ms(row["back_us"])}
        | {"others": _ms(row["others_back_us"]) if "D state" in row["scene"] else None}
        for row in group_medians(rows)
    ]
    return _table("a whole cgroup: medians of the rounds", columns, shown)


def _speed(rows: BenchRows) -> BenchTable:
    columns = {
        "victim": "64 MiB in",
        "manner": "by",
        "reaper_pages": "pages gone while it reaped",
        "tlb_flushes": "TLB flushes",
        "counted": "1000 instructions of the reap",
        "reap": "reap ms",
        "over": "until exited ms",
    }
    # On one CPU reaper and exit never work at the same time: only what one of them does alone can be counted.
    counted = {
        row["victim"]: row["reap_us"] for row in rows.of("speed_instructions") if row["manner"] == "reaper alone"
    }
    shown = [
        row
        | {"reap": _ms(row["reap_us"]) or None, "over": _ms(row["over_us"]) or None}
        | {"counted": counted.get(row["victim"]) if row["manner"] == "reaper alone" else None}
        for row in rows.of("speed")
    ]
    return _table("where a reap's time goes: medians", columns, shown)


def _missing(rows: BenchRows) -> BenchTable:
    found = [
        (kind.replace("_", " "), row["what"] + (f": {row['why']}" if "why" in row else ""))
        for kind in ("absent", *FAILURES)
        for row in rows.of(kind)
    ]
    return BenchTable(title="not measured", columns=("why", "what"), rows=tuple(found))


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else round(value_us / 1000, 1)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
