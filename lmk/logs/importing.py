"""Logs -> a record: kills by memory killers, other deaths as events, counters, properties, what was not understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmk import __version__
from lmk.logs import contents
from lmk.logs.captures import Capture
from lmk.logs.clock import Timeline, make_timeline
from lmk.logs.files import LogFile
from lmk.logs.merge import Death, Told, merge
from lmk.logs.report import KILLERS, Report
from lmk.logs.scan import FileScan, LogScanner
from lmk.logs.stamp import Stamp
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN
from lmk.progress import Progress, silent
from lmk.record.schema import EventRow, KillRow, KillSourceRow, LogRow
from lmk.record.writer import RecordWriter
from lmk.units import NS_PER_MS

MEMORY_KILLERS = frozenset(KILLERS.values())
#: oom_adj, the scale until Android 6, ends at 15; the kernel stretches it (include/uapi/linux/oom.h).
_OLD_ADJ_MAX, _OLD_ADJ_DIVISOR = 15, 17


@attrs.define
class _Place:
    """Where an untimed line lies: after the line before it."""

    ns: int = 0


def scan_files(files: Sequence[LogFile], progress: Progress = silent) -> list[FileScan]:
    """Read every file once. UserError if one is damaged."""
    total = sum(log.size for log in files) or 1
    done = 0
    scans = []
    for index, log in enumerate(files):
        scanner = LogScanner(log.name, index)

        def read(count: int) -> None:
            nonlocal done
            done += count
            progress("reading the logs", min(1.0, done / total))

        for line in log.lines(read):
            scanner.feed(line)
        scans.append(scanner.finish())
    return scans


def import_logs(files: Sequence[LogFile], directory: Path, progress: Progress = silent) -> None:
    """Write ``directory/run.sqlite`` from the files, taken to be one device's. Errors as ``scan_files``, InfraError."""
    scans = scan_files(files, progress)
    timeline = make_timeline(scans, [log.modified_ns for log in files])
    deaths = merge(_told(scans, timeline))
    with RecordWriter(directory) as writer:
        for death in deaths:
            write_death(writer, death, [scan.name for scan in scans])
        span = _write_rest(writer, scans, timeline, [death.t_ns for death in deaths])
        writer.meta(_meta(scans, timeline, span))


def _told(scans: Sequence[FileScan], timeline: Timeline) -> Iterator[Told]:
    for index, scan in enumerate(scans):
        place = _Place()
        for report in scan.reports:
            ns = _ns(timeline, index, report.boot, report.stamp, place)
            yield Told(ns=ns, report=report, timed=report.stamp is not None)


def _ns(timeline: Timeline, file: int, boot: int, stamp: Stamp | None, place: _Place) -> int:
    if stamp is not None:
        place.ns = timeline.ns(file, boot, stamp)
    return place.ns


def kill_row(death: Death) -> KillRow:
    """A death by a memory killer as the record's row."""
    adj, reason = death.first("adj"), death.first("reason")
    best = death.reports[0]
    old = best.extra.get("old_adj")
    if adj is None and isinstance(old, int):
        adj = 1000 if old >= _OLD_ADJ_MAX else old * 1000 // _OLD_ADJ_DIVISOR
    if not isinstance(adj, int) or not OOM_SCORE_ADJ_MIN <= adj <= OOM_SCORE_ADJ_MAX:
        adj = None
    killers = [report for report in death.reports if report.kind in KILLERS]
    words = next((report.reason for report in killers if report.reason), None)
    return KillRow(
        t_ns=death.t_ns,
        pid=_int(death.first("pid")) or 0,
        name=death.name,
        uid=_int(death.first("uid")),
        oom_score_adj=adj,
        reason=words if words is not None else _words(best, reason),
        reason_code=_int(death.first("reason_code")),
        min_oom_score_adj=_int(death.first("min_adj")),
        rss_kib=_int(_first(killers, "rss_kib")) or _oom_rss(killers),
        swap_kib=_int(_first(killers, "swap_kib")),
        killer=death.killer or "",
    )


def _words(report: Report, _reason: object) -> str | None:
    """What killers without a reason say of their cause."""
    extra = report.extra
    if report.kind == "klmk" and "limit_kib" in extra:
        return (
            f"cache {extra.get('cache_kib')}kB is below limit {extra['limit_kib']}kB for oom_score_adj {report.min_adj}"
        )
    if report.kind == "lmkd" and "level" in extra:
        return f"system is under {extra['level']} memory pressure"
    return "out of memory" if report.kind == "oom" else None


def _first(reports: Sequence[Report], field: str) -> object:
    return next((value for report in reports if (value := getattr(report, field)) is not None), None)


def _oom_rss(reports: Sequence[Report]) -> int | None:
    for report in reports:
        parts = [report.extra.get(f"{what}_kib") for what in ("anon", "file", "shmem")]
        if report.kind == "oom" and isinstance(parts[0], int):
            return sum(part for part in parts if isinstance(part, int))
    return None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def write_death(writer: RecordWriter, death: Death, names: Sequence[str], kill_id: int | None = None) -> None:
    """One death as a kill with its sources, or as an event. ``names``: of the files; ``kill_id``: a row to complete."""
    if death.killer in MEMORY_KILLERS:
        row = kill_row(death)
        if kill_id is None:
            kill_id = writer.kill(row)
        else:
            writer.update_kill(kill_id, **{k: v for k, v in attrs.asdict(row).items() if v is not None and k != "dry"})
        for told in death.told:
            writer.kill_source(
                KillSourceRow(
                    kill_id=kill_id, t_ns=told.ns, kind=told.report.kind, shape=told.report.shape,
                    place=f"{names[told.report.file]}:{told.report.line}", text=told.report.text,
                )
            )  # fmt: skip
        return
    kinds = {told.report.kind for told in death.told}
    body: dict[str, Any] = {
        "pid": death.first("pid"), "name": death.name, "uid": death.first("uid"), "adj": death.first("adj"),
        "reason": death.first("reason"), "killer": death.killer,
        "signal": next((r.extra["signal"] for r in death.reports if "signal" in r.extra), None),
        "sources": [
            {"kind": t.report.kind, "shape": t.report.shape, "place": f"{names[t.report.file]}:{t.report.line}"}
            for t in death.told
        ],
    }  # fmt: skip
    kind = "oom_reaper" if kinds == {"reap"} else ("killed" if death.killer else "died")
    writer.app_event(EventRow(t_ns=death.t_ns, kind=kind, body=body))


def _where(scans: Sequence[FileScan], file: int, line: int) -> str:
    return f"{scans[file].name}:{line}"


def _write_rest(
    writer: RecordWriter, scans: Sequence[FileScan], timeline: Timeline, times_ns: list[int]
) -> tuple[int, int]:
    """Logs, notes, captures and unknown lines; the span of all times."""
    for index, scan in enumerate(scans):
        place = _Place()
        for kept in scan.kept:
            t_ns = _ns(timeline, index, kept.boot, kept.stamp, place)
            times_ns.append(t_ns)
            writer.log(LogRow(t_ns=t_ns, level=kept.level, tag=kept.tag, text=kept.text))
        place = _Place()
        for note in scan.notes:
            t_ns = _ns(timeline, index, note.boot, note.stamp, place)
            writer.app_event(EventRow(t_ns=t_ns, kind=note.shape, body=dict(note.fields)))
        for unknown in scan.unknown:
            said = {"place": _where(scans, index, unknown.line), "why": unknown.why, "text": unknown.text}
            t_ns = 0 if unknown.stamp is None else timeline.ns(index, 0, unknown.stamp)
            writer.device_event(EventRow(t_ns=t_ns, kind="unknown_line", body=said))
    memory = contents.Memory()
    for report, t_ns in ((t.report, t.ns) for t in _told(scans, timeline)):
        if report.kind == "killinfo":
            memory.killinfo(t_ns, report)
            writer.device_event(EventRow(t_ns=t_ns, kind="killinfo", body=contents.killinfo_body(report)))
    for index, scan in enumerate(scans):
        for capture in scan.captures:
            t_ns = _capture_ns(scan, timeline, index, capture, times_ns)
            memory.capture(t_ns, capture)
            if (body := contents.capture_body(capture)) is not None:
                writer.device_event(EventRow(t_ns=t_ns, kind=capture.kind.replace("-", "_"), body=body))
    for row in memory.rows():
        writer.counter(row)
        times_ns.append(row.t_ns)
    return (min(times_ns), max(times_ns)) if times_ns else (0, 0)


def _capture_ns(scan: FileScan, timeline: Timeline, index: int, capture: Capture, times_ns: Sequence[int]) -> int:
    """A capture without a stamp is of when the bug report was taken; else of the end of the log."""
    if capture.stamp is not None:
        return timeline.ns(index, capture.boot, capture.stamp)
    if scan.taken is not None and timeline.clock == "wall":
        return scan.taken.ns
    return max(times_ns, default=timeline.anchors_ns[index] if timeline.clock == "wall" else 0)


def _meta(scans: Sequence[FileScan], timeline: Timeline, span: tuple[int, int]) -> dict[str, Any]:
    captures = [capture for scan in scans for capture in scan.captures]
    properties = contents.properties(captures)
    first_ns, last_ns = span
    return {
        "config": None,
        "scenario": None,
        "policy": "the device's own",
        "target": "import",
        "android": properties.get("ro.build.version.release"),
        "zero_ns": first_ns,
        "duration_ms": (last_ns - first_ns) // NS_PER_MS,
        "complete": True,
        "clock": timeline.clock,
        "properties": properties,
        "device": contents.device(captures, properties),
        "import": {
            "files": [_file_json(scan) for scan in scans],
            "notes": list(timeline.notes),
        },
        "lmk_version": __version__,
    }


def _file_json(scan: FileScan) -> dict[str, Any]:
    return {
        "name": scan.name,
        "lines": scan.lines,
        "boots": scan.boots,
        "reports": dict(scan.counts()),
        "shapes": dict(Counter(f"{report.kind} {report.shape}" for report in scan.reports)),
        "unknown": len(scan.unknown),
        "other_lines": dict(scan.others),
        "events": dict(Counter(note.shape for note in scan.notes)),
        "captures": dict(Counter(capture.kind for capture in scan.captures)),
    }
