"""The Perfetto trace: the event forms that Perfetto's own queries parse, read back from the bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("perfetto", reason="perfetto is not installed (the perfetto extra has it)")

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from lmk.cli.main import main
from lmk.record.reader import RecordReader
from lmk.record.writer import RecordWriter
from tests.report.records import MS, simulated_record, small_record

SHELL = shutil.which("trace_processor_shell")


def trace_of(run: Path, out: Path) -> Any:
    assert main(["report", str(run), "--perfetto", str(out)]) == 0
    trace = pb.Trace()
    trace.ParseFromString(out.read_bytes())
    return trace


def ftrace(trace: Any, kind: str) -> list[tuple[int, int, Any]]:
    """(t_ns, pid of the writer, the event) of every ftrace event of a kind."""
    return [
        (event.timestamp, event.pid, getattr(event, kind))
        for packet in trace.packet
        for event in packet.ftrace_events.event
        if event.HasField(kind)
    ]


@pytest.fixture
def small(tmp_path: Path) -> Any:
    return trace_of(small_record(tmp_path / "run"), tmp_path / "trace")


def test_kills_in_lmkds_forms(small: Any) -> None:
    (instant, begin, end) = ftrace(small, "print")
    pid = instant[1]
    text = "lmk,42,8,900,701,0"
    assert (instant[0], instant[2].buf) == (2001 * MS, f"N|{pid}|lowmemorykiller|{text}\n")
    assert (begin[0], begin[2].buf) == (2001 * MS, f"B|{pid}|{text}\n")
    assert (end[0], end[2].buf) == (2021 * MS, f"E|{pid}\n")
    assert [(t_ns, event.pid) for t_ns, _, event in ftrace(small, "mark_victim")] == [(3000 * MS, 43)]


def test_scores_and_lives(small: Any) -> None:
    scores = [(t_ns, event.pid, event.oom_score_adj) for t_ns, _, event in ftrace(small, "oom_score_adj_update")]
    assert scores == [(10 * MS, 42, 0), (150 * MS, 43, 0), (1000 * MS, 42, 900)]
    assert [(t_ns, event.pid) for t_ns, _, event in ftrace(small, "task_newtask")] == [(100 * MS, 43)]
    gone = [(t_ns, event.pid) for t_ns, _, event in ftrace(small, "sched_process_free")]
    assert gone == [(2031 * MS, 42), (3000 * MS, 43)]
    named = {p.pid: p.cmdline[0] for packet in small.packet for p in packet.process_tree.processes}
    assert named[42] == "com.a"
    assert named[43] == "com.b"


def test_counters(small: Any) -> None:
    stats = [packet.sys_stats for packet in small.packet if packet.HasField("sys_stats")]
    assert len(stats) == 21
    last = {entry.key: entry.value for entry in stats[-1].meminfo}
    assert last == {
        pb.MEMINFO_MEM_FREE: 85_000,
        pb.MEMINFO_MEM_AVAILABLE: 250_000,
        pb.MEMINFO_CACHED: 200_000,
        pb.MEMINFO_SWAP_TOTAL: 1_000_000,
        pb.MEMINFO_SWAP_FREE: 895_000,
    }
    stalls = {sample.resource: sample.total_ns for sample in stats[-1].psi}
    assert stalls[pb.SysStats.PsiSample.PSI_RESOURCE_MEMORY_SOME] == 500 * MS
    assert not stats[-1].vmstat  # not recorded: absent, not 0


def tracks_of(trace: Any) -> dict[str, int]:
    return {p.track_descriptor.name: p.track_descriptor.uuid for p in trace.packet if p.HasField("track_descriptor")}


def test_our_own_tracks(small: Any) -> None:
    tracks = tracks_of(small)
    assert {"anon", "zram used", "low watermark", "thrashing", "reaping", "reaper 0", "launches", "com.a"} <= set(
        tracks
    )
    events: dict[int, list[tuple[int, int, str]]] = {}
    for packet in small.packet:
        if packet.HasField("track_event"):
            event = packet.track_event
            events.setdefault(event.track_uuid, []).append((packet.timestamp, event.type, event.name))
    begin, end = pb.TrackEvent.TYPE_SLICE_BEGIN, pb.TrackEvent.TYPE_SLICE_END
    assert events[tracks["reaper 0"]] == [
        (2001 * MS, begin, "reap com.a"),
        (2021 * MS, end, ""),
        (2021 * MS, begin, "exit com.a"),
        (2031 * MS, end, ""),
    ]
    assert [t_ns for t_ns, *_ in events[tracks["low watermark"]]] == [1000 * MS, 2000 * MS]
    why = [p.track_event for p in small.packet if p.track_event.track_uuid == tracks["why (lmk explain)"]]
    notes = {note.name: note.string_value for note in why[0].debug_annotations}
    assert "LOW_MEM: fired" in notes["explanation"]


def test_slices_nest_and_time_never_goes_back(tmp_path: Path) -> None:
    trace = trace_of(simulated_record(tmp_path / "run"), tmp_path / "trace")
    times = [packet.timestamp for packet in trace.packet if packet.timestamp]
    assert times == sorted(times)
    open_slices: dict[int, int] = {}
    for packet in trace.packet:
        event = packet.track_event
        depth = open_slices.get(event.track_uuid, 0)
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            assert depth == 0
            open_slices[event.track_uuid] = 1
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            assert depth == 1
            open_slices[event.track_uuid] = 0
    assert not any(open_slices.values())
    depth = 0
    for _, _, event in ftrace(trace, "print"):
        depth += {"B": 1, "E": -1}.get(event.buf[0], 0)
        assert depth >= 0
    assert depth == 0


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trace_of(small_record(tmp_path / name), tmp_path / f"{name}.pftrace")
    assert (tmp_path / "a.pftrace").read_bytes() == (tmp_path / "b.pftrace").read_bytes()


def test_an_empty_record(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "run"):
        pass
    trace = trace_of(tmp_path / "run", tmp_path / "trace")
    assert not ftrace(trace, "print")


def test_user_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(small_record(tmp_path / "run"))
    assert main(["report", run, run, "--perfetto", str(tmp_path / "trace")]) == 2
    assert "give one RUN" in capsys.readouterr().err


def query(trace: Path, sql: str) -> list[list[str]]:
    assert SHELL is not None
    file = trace.with_suffix(".sql")
    file.write_text(sql)
    done = subprocess.run([SHELL, "-q", str(file), str(trace)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line]
    return [json.loads(f"[{row}]") for row in rows[1:]]


@pytest.mark.skipif(SHELL is None, reason="no trace_processor_shell on PATH (perfetto.dev)")
def test_perfettos_own_queries(tmp_path: Path) -> None:
    run = simulated_record(tmp_path / "run")
    trace_of(run, tmp_path / "trace.pftrace")
    with RecordReader(run) as record:
        kills = record.kills()
    rows = query(
        tmp_path / "trace.pftrace",
        "INCLUDE PERFETTO MODULE android.memory.lmk;\n"
        "SELECT ts, pid, process_name, oom_score_adj, kill_reason_raw FROM android_lmk_events ORDER BY ts, pid;\n",
    )
    expected = sorted([k.t_ns, k.pid, k.name, k.oom_score_adj, k.reason_code] for k in kills)
    assert rows == expected
    scores = query(
        tmp_path / "trace.pftrace",
        "INCLUDE PERFETTO MODULE android.oom_adjuster;\n"
        "SELECT count(DISTINCT upid) FROM android_oom_adj_intervals WHERE bucket = 'foreground_app';\n",
    )
    assert int(scores[0][0]) > 0
