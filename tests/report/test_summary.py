"""The JSON object and the tables of a run, made from a record that the test writes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow, KillRow
from lmk.record.writer import RecordWriter
from lmk.report.summary import nearest_rank, percentiles, run_json
from lmk.report.table import run_tables

TOP_KEYS = {
    "schema",
    "config",
    "scenario",
    "policy",
    "seed",
    "target",
    "duration_ms",
    "record",
    "device",
    "kills",
    "summary",
}
KILL_KEYS = {
    *("t_ms", "pid", "name", "uid", "oom_score_adj", "tier", "reason", "reason_code", "min_oom_score_adj"),
    *("rss_kib", "swap_kib", "event_to_signal_us", "signal_to_reaped_us", "signal_to_exit_us", "freed_kib"),
    *("reap_method", "reap_errno", "killer"),
}
SUMMARY_KEYS = {
    *("kills_by_tier", "launches", "cold_starts", "foreground_kills", "perceptible_kills", "launch_ms"),
    *("psi_some_ms", "psi_full_ms", "min_mem_available_kib", "expectations"),
}
MS = 1_000_000


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    with RecordWriter(tmp_path) as writer:
        writer.meta({"config": "phone-2gb", "scenario": "app-switching", "zero_ns": 1000 * MS, "duration_ms": 9000})
        writer.meta(
            {
                "expectations": [
                    {"name": "foreground_kills", "met": False, "observed": 1, "limit": {"min": None, "max": 0}}
                ]
            }
        )
        cached = KillRow(t_ns=3000 * MS, pid=7, name="com.a", oom_score_adj=915, reason_code=8, freed_kib=2048)
        writer.kill(cached)
        writer.kill(KillRow(t_ns=2000 * MS, pid=8, name="com.b", oom_score_adj=0, reason_code=1))
        writer.kill(KillRow(t_ns=4000 * MS, pid=9, oom_score_adj=250, killer="kernel_oom"))
        for cold, launch_ms in ((True, 900), (False, 80), (False, 120), (True, None)):
            writer.app_event(EventRow(t_ns=0, kind="launch", body={"cold": cold, "launch_ms": launch_ms}))
        for t, some, available in ((0, 1_000_000, 500), (5000, 1_750_999, 90), (9000, 1_900_000, 300)):
            writer.counter(
                CounterRow(t_ns=t * MS, psi_some_us=some, psi_full_us=some // 2, mem_available_kib=available)
            )
    with RecordReader(tmp_path) as reader:
        return run_json(reader)


def test_every_documented_key_is_there(run: dict[str, Any]) -> None:
    assert set(run) >= TOP_KEYS
    assert set(run["summary"]) >= SUMMARY_KEYS
    for kill in run["kills"]:
        assert set(kill) >= KILL_KEYS
    json.dumps(run)


def test_figures(run: dict[str, Any]) -> None:
    summary = run["summary"]
    assert [k["t_ms"] for k in run["kills"]] == [1000, 2000, 3000]
    assert [k["tier"] for k in run["kills"]] == ["foreground", "cached", "perceptible"]
    assert summary["kills_by_tier"] == {"foreground": 1, "cached": 1, "perceptible": 1}
    assert (summary["foreground_kills"], summary["perceptible_kills"]) == (1, 1)
    assert (summary["launches"], summary["cold_starts"]) == (4, 2)
    assert summary["launch_ms"]["cold"] == {"n": 1, "p50": 900, "p95": 900, "max": 900}
    assert summary["launch_ms"]["warm"] == {"n": 2, "p50": 80, "p95": 120, "max": 120}
    assert summary["psi_some_ms"] == 900
    assert summary["min_mem_available_kib"] == 90
    assert summary["kernel_oom_kills"] == 1


@pytest.mark.parametrize("width", [80, 118, 200])
def test_the_reason_is_readable_at_any_width(run: dict[str, Any], width: int) -> None:
    run["kills"][0]["reason"] = "low watermark is breached and swap is low"
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(run_tables(run))
    text = console.export_text()
    for word in ("watermark", "cached 915", "time", "com.b", "1.00", "freed"):
        assert word in text
    assert all(len(line) <= width for line in text.splitlines())
    heading, units = (next(line for line in text.splitlines() if word in line) for word in ("time ", "and why"))
    assert units.rindex("MiB") + 3 == heading.rindex("freed") + 5  # a unit ends where its name ends


def test_tables_show_kills_and_a_missed_expectation(run: dict[str, Any]) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(run_tables(run))
    text = console.export_text()
    assert "com.a" in text
    assert "the kernel's OOM killer" in text
    assert "NOT MET" in text
    assert "foreground_kills" in text
    assert "at most 0" in text


def test_a_run_without_kills_says_so(tmp_path: Path) -> None:
    RecordWriter(tmp_path).close()
    with RecordReader(tmp_path) as reader:
        empty = run_json(reader)
    assert empty["kills"] == []
    assert empty["summary"]["psi_some_ms"] is None
    assert empty["summary"]["launch_ms"]["cold"]["p50"] is None


@given(st.lists(st.integers(0, 10**6), min_size=1), st.integers(1, 100))
def test_nearest_rank_is_an_observed_value_that_enough_do_not_exceed(values: list[int], percent: int) -> None:
    ordered = sorted(values)
    found = nearest_rank(ordered, percent)
    assert found in ordered
    assert sum(v <= found for v in ordered) * 100 >= percent * len(ordered)
    below = [v for v in ordered if v < found]
    assert len(below) * 100 < percent * len(ordered)
    assert percentiles(values)["max"] == max(values)


def test_a_dry_run_lists_whom_it_and_the_devices_lmkd_chose(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        device = [
            {"t_ns": 1500 * MS, "pid": 8, "name": "com.b", "uid": 10001, "oom_score_adj": 900},
            {"t_ns": 2500 * MS, "pid": 9, "name": "com.c", "uid": 10002, "oom_score_adj": 800},
        ]
        writer.meta({"config": "c", "scenario": "s", "zero_ns": 1000 * MS, "dry_run": True, "device_kills": device})
        for pid, name in ((7, "com.a"), (8, "com.b"), (8, "com.b")):
            writer.kill(KillRow(t_ns=2000 * MS, pid=pid, name=name, oom_score_adj=900, dry=True))
    with RecordReader(tmp_path) as record:
        run = run_json(record)
    dry = run["dry_run"]
    assert (dry["decided"], dry["agreed"], dry["device_kills"]) == (2, 1, device)
    assert [(p["pid"], p["decided_t_ms"], p["killed_t_ms"]) for p in dry["processes"]] == [
        (8, 1000, 500),
        (7, 1000, None),
        (9, None, 1500),
    ]
    shown = io.StringIO()
    Console(file=shown, width=80).print(run_tables(run))
    assert "Agreement" in shown.getvalue()
    assert "com.c" in shown.getvalue()
