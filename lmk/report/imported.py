"""An imported log as ``lmk import`` shows it: the files, the kills with their sources, the other deaths, what nobody
understood. Record in, JSON object or tables out."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lmk.record.reader import RecordReader
from lmk.record.schema import EventRow
from lmk.report.summary import kill_json
from lmk.units import NS_PER_MS, NS_PER_S

JSON_SCHEMA = 1
#: Lines, reasons and kills beyond this are counted; all are in the record and in the JSON object.
_SHOWN_MAX = 20
_KILLS_SHOWN_MAX = 200
_SIGKILL = 9


def import_json(record: RecordReader) -> dict[str, Any]:
    """The whole object (docs/json.md)."""
    meta = record.meta
    sources = record.kill_sources()
    kills = []
    for kill_id, kill in enumerate(record.kills(), 1):
        body = kill_json(kill, record.zero_ns)
        body["when"] = when(kill.t_ns, meta.get("clock"))
        body["sources"] = [
            {"kind": s.kind, "shape": s.shape, "place": s.place, "text": s.text} for s in sources.get(kill_id, [])
        ]
        kills.append(body)
    unknown = [event.body for event in record.device_events("unknown_line")]
    return {
        "schema": JSON_SCHEMA,
        "record": str(record.path.parent),
        "clock": meta.get("clock"),
        "first": when(record.zero_ns, meta.get("clock")),
        "duration_ms": meta.get("duration_ms"),
        "android": meta.get("android"),
        "device": meta.get("device"),
        "properties": len(meta.get("properties") or {}),
        "files": meta["import"]["files"],
        "kills": kills,
        "kills_by_killer": dict(Counter(kill["killer"] for kill in kills)),
        "deaths": _deaths(record),
        "samples": len(record.counters()),
        "unknown": unknown,
        "notes": meta["import"]["notes"],
    }


def _deaths(record: RecordReader) -> dict[str, Any]:
    """Ends of processes that no memory killer is known to have caused."""
    killed, died = record.app_events("killed"), record.app_events("died")
    return {
        "killed_by_activity_manager": len(killed),
        "reasons": dict(Counter(_reason(event) for event in killed).most_common()),
        "not_explained": len(died),
        "not_explained_sigkill": sum(event.body.get("signal") == _SIGKILL for event in died),
        "oom_reaper_alone": len(record.app_events("oom_reaper")),
    }


def _reason(event: EventRow) -> str:
    """``empty #17`` and ``empty #25`` are one reason."""
    words = str(event.body.get("reason") or "none given").split()
    return " ".join("N" if word.lstrip("#").rstrip("s,").isdecimal() else word for word in words[:6])


def when(t_ns: int, clock: str | None) -> str:
    """Local time of the device, or seconds since boot."""
    if clock == "wall":
        return datetime.fromtimestamp(t_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{_ms(t_ns):03d}"
    return f"{t_ns // NS_PER_S}.{_ms(t_ns):03d}"


def _ms(t_ns: int) -> int:
    return t_ns // NS_PER_MS % 1000


def import_tables(result: dict[str, Any]) -> RenderableType:
    """Everything ``lmk import`` shows."""
    parts: list[RenderableType] = [_file_table(result)]
    parts.append(_kill_table(result) if result["kills"] else Text("No kill for want of memory is told of."))
    parts.extend(Text(line) for line in _death_lines(result["deaths"]))
    if result["unknown"]:
        parts.append(_unknown_table(result["unknown"]))
    parts.extend(Text(f"note: {note}") for note in result["notes"])
    parts.append(Text(f"record: {result['record']}"))
    return Group(*parts)


def _file_table(result: dict[str, Any]) -> Table:
    table = _table("Files", "file", "lines", "reports", "not understood")
    for file in result["files"]:
        reports = ", ".join(f"{count} {kind}" for kind, count in sorted(file["reports"].items()))
        captures = ", ".join(f"{count} {kind}" for kind, count in sorted(file["captures"].items()))
        found = "; ".join(part for part in (reports, captures) if part)
        table.add_row(file["name"], str(file["lines"]), found or "-", str(file["unknown"]))
    return table


def _kill_table(result: dict[str, Any]) -> Table:
    kills = result["kills"]
    by = ", ".join(f"{count} by {killer}" for killer, count in result["kills_by_killer"].items())
    table = _table(
        f"{len(kills)} kill{'s' * (len(kills) != 1)}: {by}", "when", "process and why", "adj", "rss+swap MiB", "told by"
    )
    for kill in kills[:_KILLS_SHOWN_MAX]:
        swap = _mib(kill["swap_kib"])
        size = _mib(kill["rss_kib"]) + ("" if swap == "-" else f"+{swap}")
        told = Counter(source["kind"] for source in kill["sources"])
        table.add_row(
            kill["when"],
            Text(f"{kill['name'] or 'pid {}'.format(kill['pid'])}\n  {kill['reason'] or 'no reason given'}"),
            Text(f"{'?' if kill['oom_score_adj'] is None else kill['oom_score_adj']}\n{kill['tier'] or ''}"),
            size,
            ", ".join(told),
        )
    if len(kills) > _KILLS_SHOWN_MAX:
        table.caption = f"{len(kills) - _KILLS_SHOWN_MAX} more in the record"
    return table


def _death_lines(deaths: dict[str, Any]) -> list[str]:
    lines = []
    if deaths["killed_by_activity_manager"]:
        reasons = list(deaths["reasons"].items())
        words = ", ".join(f"{count} {reason}" for reason, count in reasons[:8])
        more = f", {len(reasons) - 8} more reasons" if len(reasons) > 8 else ""
        lines.append(f"{deaths['killed_by_activity_manager']} killed by ActivityManager: {words}{more}")
    if deaths["not_explained"]:
        lines.append(
            f"{deaths['not_explained']} ended and no log says why, {deaths['not_explained_sigkill']} of them by SIGKILL"
        )
    if deaths["oom_reaper_alone"]:
        lines.append(
            f"{deaths['oom_reaper_alone']} reaped by oom_reaper with no killer named (on Linux 5.4 and later "
            "lmkd's victims, too)"
        )
    return lines


def _unknown_table(unknown: list[dict[str, Any]]) -> Table:
    table = _table(f"{len(unknown)} lines speak of killing in words lmk does not know", "where", "why", "line")
    for line in unknown[:_SHOWN_MAX]:
        table.add_row(line["place"], line["why"], Text(line["text"]))
    if len(unknown) > _SHOWN_MAX:
        table.caption = f"{len(unknown) - _SHOWN_MAX} more in the record"
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        words = heading in ("file", "reports", "process and why", "line", "told by", "why")
        table.add_column(heading, overflow="fold", no_wrap=not words)
    return table


def _mib(kib: int | None) -> str:
    return "-" if kib is None else f"{kib / 1024:.0f}"
