"""What captures and killinfo events say about memory and the device: rows of counters, bodies of events, properties."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs

from lmk.logs import dumpsys
from lmk.logs.captures import Capture
from lmk.logs.oom_table import parse_oom_table
from lmk.logs.report import Report
from lmk.procfs.meminfo import parse_meminfo
from lmk.procfs.properties import parse_getprop
from lmk.procfs.psi import parse_pressure
from lmk.record.counters import counter_row
from lmk.record.schema import CounterRow

_RESOURCE = re.compile(r"(memory|cpu|io)\b|_(memory|cpu|io)$")


class Memory:
    """Collects the numbers of each moment; several texts of one moment are one row."""

    def __init__(self) -> None:
        self._rows: dict[int, CounterRow] = {}

    def killinfo(self, t_ns: int, report: Report) -> None:
        """lmkd notes what meminfo said when it killed."""
        e = report.extra
        if "free_kib" not in e:
            return
        active, inactive = e.get("active_anon_kib"), e.get("inactive_anon_kib")
        self._add(
            CounterRow(
                t_ns=t_ns,
                mem_free_kib=_int(e.get("free_kib")),
                cached_kib=_int(e.get("cached_kib")),
                anon_kib=active + inactive if isinstance(active, int) and isinstance(inactive, int) else None,
                swap_total_kib=_int(e.get("swap_total_kib")),
                swap_free_kib=_int(e.get("swap_free_kib")),
            )
        )

    def capture(self, t_ns: int, capture: Capture) -> None:
        """/proc/meminfo, /proc/vmstat and /proc/pressure/memory become numbers."""
        if capture.kind == "meminfo":
            self._add(counter_row(t_ns, capture.text, None, None))
        elif capture.kind == "vmstat":
            self._add(counter_row(t_ns, None, capture.text, None))
        elif capture.kind == "psi" and resource(capture) == "memory":
            self._add(counter_row(t_ns, None, None, capture.text))

    def rows(self) -> list[CounterRow]:
        """By time."""
        return [self._rows[t_ns] for t_ns in sorted(self._rows)]

    def _add(self, row: CounterRow) -> None:
        known = self._rows.get(row.t_ns)
        if known is not None:
            values = {k: v for k, v in attrs.asdict(row).items() if v is not None}
            row = attrs.evolve(known, **values)
        self._rows[row.t_ns] = row


def resource(capture: Capture) -> str:
    """Which of memory, cpu and io a PSI text is about; "" if the log does not say."""
    found = _RESOURCE.findall(capture.source)
    return next((word for word in found[-1] if word), "") if found else ""


def killinfo_body(report: Report) -> dict[str, Any]:
    """Every field of a killinfo event by name."""
    own = {
        name: getattr(report, name) for name in ("pid", "uid", "adj", "min_adj", "rss_kib", "swap_kib", "reason_code")
    }
    return {**own, **report.extra}


def capture_body(capture: Capture) -> dict[str, Any] | None:
    """A capture as an event's body; None for those that are kept elsewhere (properties, counters alone)."""
    head = {"source": capture.source, "line": capture.line}
    parsed = _parsed(capture)
    return None if parsed is None else {**head, **parsed}


def _parsed(capture: Capture) -> dict[str, Any] | None:
    text = capture.text
    match capture.kind:
        case "psi":
            pressure = parse_pressure(text)
            return None if pressure is None else {"resource": resource(capture), **attrs.asdict(pressure)}
        case "dumpsys-meminfo":
            return attrs.asdict(dumpsys.parse_dumpsys_meminfo(text))
        case "app-meminfo":
            size = dumpsys.parse_app_meminfo(text)
            return None if size is None else attrs.asdict(size)
        case "lru" | "lru-list":
            return {"processes": [attrs.asdict(process) for process in dumpsys.parse_lru(text)]}
        case "process-record":
            return dumpsys.parse_process_record(text)
        case "exit-info":
            return dumpsys.parse_exit_info(text)
        case "oom-levels":
            return {"levels_kib": {str(adj): kib for adj, kib in dumpsys.parse_oom_levels(text).items()}}
        case "oom-table":
            return {"tasks": [attrs.asdict(task) for task in parse_oom_table(text)]}
        case "checkin":
            sizes = [attrs.asdict(size) for size in dumpsys.parse_checkin_meminfo(text)]
            return {"pss": sizes, "rows": dumpsys.checkin_rows(text)}
        case "meminfo" | "vmstat" | "zoneinfo" | "buddyinfo" | "pagetypeinfo":
            return {"text": text}
    return None


def properties(captures: Sequence[Capture]) -> dict[str, str]:
    """All properties that the log shows."""
    found: dict[str, str] = {}
    for capture in captures:
        if capture.kind == "getprop":
            found.update(parse_getprop(capture.text))
    return found


def device(captures: Sequence[Capture], known: dict[str, str]) -> dict[str, Any]:
    """The ``device`` of a record, as far as the log says."""
    totals = [parse_meminfo(capture.text) for capture in captures if capture.kind == "meminfo"]
    last = totals[-1] if totals else parse_meminfo("")
    return {
        "mem_total_kib": last.get("MemTotal"),
        "swap_total_kib": last.get("SwapTotal"),
        "kernel": None,
        "cpus": None,
        "page_size": None,
        "reap": None,
        "model": known.get("ro.product.model"),
        "fingerprint": known.get("ro.build.fingerprint"),
    }


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
