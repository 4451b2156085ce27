"""What the HTML report draws, as plain JSON: panels of lines, kills with their explanations, lanes of processes.

Nothing is decided in the browser: which lines there are, what they are compared with and which rows of a long run are
drawn is settled here. Times are seconds since the scenario began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from lmk.errors import UserError
from lmk.policy.explain import NO_CHANGE
from lmk.policy.lmkd.params import LmkdParams, load_params
from lmk.policy.lmkd.versions import behaviour
from lmk.record.reader import RecordReader
from lmk.record.schema import KILLER_KERNEL_LMK, KILLER_KERNEL_OOM, KILLER_WORDS, CounterRow, KillRow, KillSourceRow
from lmk.report.explain import Explained, explain_kills, explained_lines
from lmk.report.summary import run_json
from lmk.report.tiers import tier_group, tier_name
from lmk.report.timeline import ProcessLife, Timeline, keep_extremes, read_timeline, stall_in_window_ms

#: Rows drawn of each table: about as many as a wide screen has pixels, extremes kept.
BUCKETS = 300
#: Kills shown of a run, and spans of processes drawn: the page stays below 3 MB, and a person reads no more.
KILLS_MAX = 800
SPANS_MAX = 20_000
#: Free memory is drawn on a logarithmic scale that begins at this share of the lowest watermark.
_BELOW_WATERMARK = 0.4
_WINDOW_MS = 1000

Column = list[float | None]


@attrs.frozen(kw_only=True)
class RunModel:
    """One run, read: ``summary`` is the object of ``lmk run --json``."""

    label: str
    summary: Mapping[str, Any]
    timeline: Timeline
    params: LmkdParams | None
    #: which kills are shown, by their place in the kill table from 0; all, unless there are too many
    shown: Sequence[int]
    #: of those shown, in the same order
    explained: Sequence[Explained | UserError]
    #: of an imported log: the lines each kill was told by, by the kill's number
    sources: Mapping[int, Sequence[KillSourceRow]] = attrs.field(factory=dict)


def read_run(record: RecordReader, label: str) -> RunModel:
    """Everything about one run. UserError if it is another lmk's record."""
    timeline = read_timeline(record)
    shown = kills_to_show(timeline.kills, KILLS_MAX)
    return RunModel(
        label=label,
        summary=run_json(record),
        timeline=timeline,
        params=_params(record.meta),
        shown=shown,
        explained=explain_kills(record, shown),
        sources=record.kill_sources(),
    )


def kills_to_show(kills: Sequence[KillRow], most: int) -> list[int]:
    """Places of the kills to show, at most ``most``: if there are more, those of the most protected processes (at most
    half of what is shown, and never some of a score without the others), and the rest evenly over the run."""
    if len(kills) <= most:
        return list(range(len(kills)))
    scores = [-1001 if kill.oom_score_adj is None else kill.oom_score_adj for kill in kills]
    limit = sorted(scores)[most // 2]
    protected = [index for index, score in enumerate(scores) if score < limit]
    others = [index for index, score in enumerate(scores) if score >= limit]
    count = most - len(protected)
    return sorted([*protected, *(others[i * len(others) // count] for i in range(count))])


def _params(meta: Mapping[str, Any]) -> LmkdParams | None:
    """lmkd's thresholds of the run; None where lmkd did not decide or the record does not say."""
    if meta.get("policy") != "lmkd" or "android" not in meta or "properties" not in meta:
        return None
    return load_params(meta["properties"], behaviour(meta["android"]))


def page_model(runs: Sequence[RunModel]) -> dict[str, Any]:
    """The whole object that the page's script gets."""
    begin_s = min(_s(run, run.timeline.begin_ns) for run in runs)
    end_s = max(_s(run, run.timeline.end_ns) for run in runs)
    words = _Words()
    return {
        "extent": [begin_s, max(end_s, begin_s + 1)],
        "runs": [_run(run, words) for run in runs],
        "panels": _panels_of_one(runs[0]) if len(runs) == 1 else _panels_of_many(runs),
        "words": words.all,
    }


class _Words:
    """Strings by number: the lines of explanations repeat."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._known: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self.all)
            self.all.append(text)
        return self._known[text]


def _run(run: RunModel, words: _Words) -> dict[str, Any]:
    return {
        "label": run.label,
        "kills": [_kill(run, place, run.timeline.kills[index], words) for place, index in enumerate(run.shown)],
        "lanes": _lanes(run),
    }


def _s(run: RunModel, t_ns: int) -> float:
    return round(run.timeline.ms(t_ns) / 1000, 3)


# ---- kills


def _kill(run: RunModel, place: int, kill: KillRow, words: _Words) -> dict[str, Any]:
    number = run.shown[place] + 1
    return {
        "n": number,
        "t": _s(run, kill.t_ns),
        "name": kill.name or f"pid {kill.pid}",
        "adj": kill.oom_score_adj,
        "tier": tier_name(kill.oom_score_adj),
        "group": tier_group(kill.oom_score_adj),
        "reason": kill.reason or "",
        "kernel": kill.killer in (KILLER_KERNEL_OOM, KILLER_KERNEL_LMK),
        "by": KILLER_WORDS.get(kill.killer, ""),
        "dry": kill.dry,
        "facts": _facts(kill),
        "why": _why(run.explained[place], run.sources.get(number, ()), words),
    }


def _facts(kill: KillRow) -> list[tuple[str, str]]:
    """The figures of a kill, those that are known."""
    sizes = (("resident", kill.rss_kib), ("in swap", kill.swap_kib), ("freed", kill.freed_kib))
    times = (
        ("event to signal", kill.event_to_signal_us),
        ("signal to reaped", kill.signal_to_reaped_us),
        ("signal to exit", kill.signal_to_exit_us),
    )
    facts = [("pid", str(kill.pid))]
    if kill.uid is not None:
        facts.append(("uid", str(kill.uid)))
    if kill.min_oom_score_adj is not None:
        facts.append(("could kill down to", f"adj {kill.min_oom_score_adj}"))
    facts += [(name, f"{kib / 1024:.1f} MiB") for name, kib in sizes if kib is not None]
    facts += [(name, f"{us / 1000:.1f} ms") for name, us in times if us is not None]
    if kill.reap_method:
        facts.append(("reaped by", kill.reap_method))
    return facts


def _why(found: Explained | UserError, sources: Sequence[KillSourceRow], words: _Words) -> dict[str, Any]:
    """The explanation of ``lmk explain``: the whole text, and the same taken apart for the page. Where nothing was
    decided by lmk, the log lines that tell of the kill."""
    if isinstance(found, UserError):
        lines = [f"{source.place}: {source.text}" for source in sources]
        text = [words.number(line) for line in (lines or [str(found)])]
        return {"head": words.number(found.cause), "rules": [], "changes": [], "text": text, "log": text * bool(lines)}
    explanation = found.explanation
    changes = [change.text for change in explanation.changes[:3]] or [NO_CHANGE] * bool(explanation.rules)
    return {
        "head": words.number(explanation.summary),
        "rules": [
            {
                "name": words.number(rule.reason),
                "outcome": words.number(rule.outcome),
                "conditions": [[words.number(c.text), int(c.holds), words.number(c.gap)] for c in rule.conditions],
            }
            for rule in explanation.rules
        ],
        "changes": [words.number(text) for text in changes],
        "text": [words.number(line) for line in explained_lines(found)],
        "log": [],
    }


# ---- processes


def _lanes(run: RunModel) -> list[dict[str, Any]]:
    """One lane per program, each process a bar: those that came and went first, what was always there last."""
    shortest_ns = _shortest_drawn_ns(run.timeline.lives)
    by_name: dict[str, list[ProcessLife]] = {}
    for life in run.timeline.lives:
        by_name.setdefault(life.name or f"pid {life.pid}", []).append(life)
    lanes = [
        {
            "name": name,
            "system": all(_is_system(life) for life in lives),
            "kills": sum(life.ended == "killed" for life in lives),
            "starts": len(lives),
            "bars": [bar for life in lives if (bar := _bar(run, life, shortest_ns))["spans"]],
        }
        for name, lives in by_name.items()
    ]
    return sorted(lanes, key=lambda lane: (lane["system"], -lane["kills"], lane["name"]))


def _is_system(life: ProcessLife) -> bool:
    """Never anybody's candidate."""
    return not life.ended and all(span.adj is None or span.adj < 0 for span in life.spans)


def _shortest_drawn_ns(lives: Sequence[ProcessLife]) -> int:
    """Spans shorter than this are left out: far below a pixel, where there are very many."""
    lengths = sorted((span.end_ns - span.begin_ns for life in lives for span in life.spans), reverse=True)
    return lengths[SPANS_MAX] if len(lengths) > SPANS_MAX else 0


def _bar(run: RunModel, life: ProcessLife, shortest_ns: int) -> dict[str, Any]:
    return {
        "pid": life.pid,
        "ended": life.ended,
        "spans": [
            [_s(run, span.begin_ns), _s(run, span.end_ns), span.adj, tier_group(span.adj)]
            for span in life.spans
            if span.end_ns - span.begin_ns >= shortest_ns
        ],
    }


# ---- panels


def _table(run: RunModel, t_ns: Sequence[int], columns: Sequence[Column], buckets: int) -> list[Any]:
    """Times and columns of the rows to draw: ``[[seconds…], [values…], …]``; no column is [] when nothing is known."""
    rows = keep_extremes(columns, buckets)
    times = [_s(run, t_ns[row]) for row in rows]
    return [times, *([None if (v := column[row]) is None else round(v, 2) for row in rows] for column in columns)]


def _mib(counters: Sequence[CounterRow], name: str) -> Column:
    return [None if (kib := getattr(row, name)) is None else kib / 1024 for row in counters]


def _zram_mib(counters: Sequence[CounterRow]) -> Column:
    return [
        None
        if row.swap_total_kib is None or row.swap_free_kib is None
        else (row.swap_total_kib - row.swap_free_kib) / 1024
        for row in counters
    ]


def _line(label: str, color: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "color": color, **more}


def _panel(ident: str, title: str, unit: str, hint: str, **more: Any) -> dict[str, Any]:
    return {"id": ident, "title": title, "unit": unit, "hint": hint, "limits": [], **more}


def _known(table: Sequence[Any]) -> bool:
    return any(value is not None for column in table[1:] for value in column)


def _panels_of_one(run: RunModel) -> list[dict[str, Any]]:
    panels = [_memory_panel(run), _watermark_panel(run), _swap_panel(run), _psi_panel(run), _thrashing_panel(run)]
    panels.append(_launch_panel([run]))
    return [panel for panel in panels if any(_known(table) for table in panel["tables"])]


def _memory_panel(run: RunModel) -> dict[str, Any]:
    rows = run.timeline.counters
    names = ("mem_available_kib", "cached_kib", "anon_kib", "mem_free_kib")
    columns = [*(_mib(rows, name) for name in names), _zram_mib(rows)]
    lines = [
        _line("available", "available", width=2),
        _line("file", "file"),
        _line("anon", "anon"),
        _line("free", "free"),
        _line("zram used", "zram"),
    ]
    table = _table(run, [row.t_ns for row in rows], columns, BUCKETS)
    hint = "available, page cache, anonymous, free, swap in use"
    return _panel("memory", "Memory", "MiB", hint, tables=[table], lines=lines, height=220)


def _watermark_panel(run: RunModel) -> dict[str, Any]:
    """MemFree as sampled beside what lmkd read at each decision, and the watermarks it compared that with."""
    marks, rows = run.timeline.marks, run.timeline.counters
    seen = [*((row.t_ns, row.mem_free_kib) for row in rows), *((mark.t_ns, mark.free_kib) for mark in marks)]
    free = [(t_ns, kib / 1024) for t_ns, kib in sorted(seen, key=lambda item: item[0]) if kib is not None]
    sampled = _table(run, [t for t, _ in free], [[mib for _, mib in free]], BUCKETS)
    levels = _levels(run, ("min_kib", "low_kib", "high_kib"))
    lowest = min((mark.min_kib for mark in marks), default=0) / 1024
    lines = [
        _line("free", "free", width=2, fill=True),
        _line("min watermark", "limit-hard", step=True, width=1.5),
        _line("low watermark", "limit", step=True, width=1.5),
        _line("high watermark", "limit-soft", step=True, width=1.5),
    ]
    hint = "logarithmic; below low (after a kill: min) a rule may fire"
    tables = [sampled, levels] if marks else [[[], []], [[], [], [], []]]
    return _panel(
        "watermarks",
        "Free memory and watermarks",
        "MiB",
        hint,
        tables=tables,
        lines=lines,
        height=170,
        logFrom=_log_from(lowest),
    )


def _levels(run: RunModel, names: Sequence[str]) -> list[Any]:
    """Thresholds as steps: rows where one changed, drawn on to the end of the run."""
    marks = run.timeline.marks
    times: list[int] = []
    columns: list[Column] = [[] for _ in names]
    for mark in marks:
        values = [getattr(mark, name) / 1024 for name in names]
        if not times or [column[-1] for column in columns] != values:
            times.append(mark.t_ns if times else run.timeline.begin_ns)
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    if times:
        times.append(run.timeline.end_ns)
        for column in columns:
            column.append(column[-1])
    return _table(run, times, columns, BUCKETS)


def _swap_panel(run: RunModel) -> dict[str, Any]:
    marks, rows = run.timeline.marks, run.timeline.counters
    free = _table(run, [row.t_ns for row in rows], [_mib(rows, "swap_free_kib")], BUCKETS)
    counted = _table(run, [m.t_ns for m in marks], [[m.free_swap_kib / 1024 for m in marks]], BUCKETS)
    lines = [_line("SwapFree", "zram", width=2), _line("counted as free", "anon", points=True)]
    tables, has_swap = [free, counted], any(row.swap_total_kib for row in rows)
    if any(mark.swap_threshold_kib for mark in marks):
        lines.append(_line("swap is low below", "limit", step=True, width=1.5))
        tables.append(_levels(run, ("swap_threshold_kib",)))
    hint = "counted: what there is memory enough to use"
    if not has_swap:
        tables = [[[], *([] for _ in table[1:])] for table in tables]
    return _panel("swap", "Free swap and its threshold", "MiB", hint, tables=tables, lines=lines, height=150)


def _psi_panel(run: RunModel) -> dict[str, Any]:
    rows, params = run.timeline.counters, run.params
    window_ms = params.psi_window_size_ms if params is not None else _WINDOW_MS
    columns = [stall_in_window_ms(rows, name, window_ms) for name in ("psi_some_us", "psi_full_us")]
    table = _table(run, [row.t_ns for row in rows], columns, BUCKETS)
    lines = [_line("some", "anon", fill=True), _line("full", "limit-hard", fill=True)]
    limits = []
    if params is not None:
        wakes = (("psi_partial_stall_ms", "some"), ("psi_complete_stall_ms", "full"))
        for name, kind in wakes:
            if getattr(params, name):
                limits.append({"label": f"{name} ({kind})", "value": getattr(params, name), "color": "limit"})
    hint = "stalled within the window; lmkd wakes at a line"
    title, unit = f"Memory pressure (PSI), per {window_ms} ms", "ms"
    return _panel("psi", title, unit, hint, tables=[table], lines=lines, limits=limits, height=150)


def _thrashing_panel(run: RunModel) -> dict[str, Any]:
    marks = run.timeline.marks
    columns: list[Column] = [[m.thrashing_pct for m in marks], [m.thrashing_limit_pct for m in marks]]
    table = _table(run, [mark.t_ns for mark in marks], columns, BUCKETS)
    lines = [_line("thrashing", "file", width=2, fill=True), _line("running limit", "limit", step=True, width=1.5)]
    hint = "refaults in % of the file cache; kills lower the limit"
    return _panel("thrashing", "Thrashing and its limit", "%", hint, tables=[table], lines=lines, height=130)


def _launch_panel(runs: Sequence[RunModel]) -> dict[str, Any]:
    tables, lines = [], []
    for index, run in enumerate(runs):
        known = [event for event in run.timeline.launches if event.body.get("launch_ms") is not None]
        known.sort(key=lambda event: event.t_ns)
        for cold in (True, False):
            some = [event for event in known if bool(event.body.get("cold")) == cold]
            values: Column = [float(event.body["launch_ms"]) for event in some]
            tables.append(_table(run, [event.t_ns for event in some], [values], 10 * BUCKETS))
            color = ("cold" if cold else "warm") if len(runs) == 1 else f"run{index}"
            name = "cold" if cold else "warm"
            label = name if len(runs) == 1 else f"{run.label} {name}"
            lines.append(_line(label, color, points=True, hollow=not cold))
    hint = "until the app has touched its hot set"
    return _panel("launches", "Launch times", "ms", hint, tables=tables, lines=lines, height=150)


def _panels_of_many(runs: Sequence[RunModel]) -> list[dict[str, Any]]:
    """One panel per figure, a line per run."""
    figures = (
        ("available", "Memory available", "MiB", "mem_available_kib"),
        ("free", "Free memory", "MiB", "mem_free_kib"),
        ("file", "File cache", "MiB", "cached_kib"),
        ("anon", "Anonymous memory", "MiB", "anon_kib"),
        ("zram", "Swap in use", "MiB", ""),
        ("psi-some", "Memory pressure (PSI some), per second", "ms", "psi_some_us"),
        ("psi-full", "Memory pressure (PSI full), per second", "ms", "psi_full_us"),
    )
    panels = [_overlay_panel(runs, *figure) for figure in figures]
    panels.append(_launch_panel(runs))
    return [panel for panel in panels if any(_known(table) for table in panel["tables"])]


def _overlay_panel(runs: Sequence[RunModel], ident: str, title: str, unit: str, name: str) -> dict[str, Any]:
    tables = []
    for run in runs:
        rows = run.timeline.counters
        if ident.startswith("psi"):
            column = stall_in_window_ms(rows, name, _WINDOW_MS)
        else:
            column = _mib(rows, name) if name else _zram_mib(rows)
        tables.append(_table(run, [row.t_ns for row in rows], [column], BUCKETS))
    lines = [_line(run.label, f"run{index}", width=1.5) for index, run in enumerate(runs)]
    limits = _common_watermark(runs) if ident == "free" else []
    log_from = _log_from(limits[-1]["value"] / 2) if limits else 0
    hint = "logarithmic" if limits else ""
    return _panel(ident, title, unit, hint, tables=tables, lines=lines, limits=limits, height=150, logFrom=log_from)


def _log_from(watermark_mib: float) -> float:
    return round(max(watermark_mib * _BELOW_WATERMARK, 0.1), 2)


def _common_watermark(runs: Sequence[RunModel]) -> list[dict[str, Any]]:
    """The low watermark, where every run last had the same."""
    lows = {run.timeline.marks[-1].low_kib for run in runs if run.timeline.marks}
    return [{"label": "low watermark", "value": lows.pop() / 1024, "color": "limit"}] if len(lows) == 1 else []
