"""The record: what is written is what is read, and a run cut short keeps what it had."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lmk.errors import InfraError, UserError
from lmk.policy.api import PacketEvent, ReadFile, Wait, Wakeup
from lmk.record.counters import VMSTAT_NAMES, counter_row
from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow, KillRow, LogRow
from lmk.record.writer import RecordWriter

MEMINFO = "MemFree:  1 kB\n" * 40


def test_everything_written_is_read_back(tmp_path: Path) -> None:
    kill = KillRow(t_ns=5, pid=42, name="com.example", oom_score_adj=900, reason="low watermark is breached")
    with RecordWriter(tmp_path / "run") as writer:
        writer.meta({"config": "phone-2gb", "zero_ns": 1_000})
        kill_id = writer.kill(kill)
        writer.update_kill(kill_id, signal_to_exit_us=1234, reap_method="process_reap")
        writer.counter(CounterRow(t_ns=1, mem_free_kib=10, psi_some_us=7))
        writer.app_event(EventRow(t_ns=2, kind="launch", body={"app": "camera", "cold": True}))
        writer.device_event(EventRow(t_ns=3, kind="oom", body={"pid": 9}))
        writer.log(LogRow(t_ns=4, level="I", tag="lowmemorykiller", text="Kill 'x'"))
        writer.step(6, ReadFile("/proc/meminfo"), MEMINFO)
        writer.step(6, ReadFile("/proc/meminfo"), MEMINFO)
        writer.step(7, Wait(10), Wakeup((PacketEvent(3, b"\x00\x01", (1, 2)),)))
        writer.decision(7, 6, 8, 42, {"rules": []})
    with RecordReader(tmp_path / "run") as reader:
        assert reader.meta["config"] == "phone-2gb"
        assert reader.zero_ns == 1_000
        assert [(k.pid, k.signal_to_exit_us, k.reap_method, k.dry) for k in reader.kills()] == [
            (42, 1234, "process_reap", False)
        ]
        assert reader.counters()[0].mem_free_kib == 10
        assert reader.app_events("launch")[0].body["app"] == "camera"
        assert reader.app_events("died") == []
        assert reader.device_events()[0].kind == "oom"
        assert reader.logs()[0].text == "Kill 'x'"
        read, again, wait = reader.steps()
        assert read.answer == again.answer
        assert read.answer is not None
        assert reader.text(read.answer["text"]) == MEMINFO.encode()
        assert wait.request == {"type": "Wait", "timeout_ms": 10}
        assert wait.answer is not None
        assert wait.answer["events"][0]["data"] == {"hex": "0001"}
        assert [(d.woke_ns, d.body) for d in reader.decisions()] == [(6, {"rules": []})]


def test_a_signal_that_was_not_sent_is_no_kill(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.update_kill(writer.kill(KillRow(t_ns=0, pid=1)), signal_errno=125)
        writer.kill(KillRow(t_ns=1, pid=2))
    with RecordReader(tmp_path) as reader:
        assert [kill.pid for kill in reader.kills()] == [2]
        assert [(kill.pid, kill.signal_errno) for kill in reader.failed_kills()] == [(1, 125)]


def test_unknown_kill_column_is_refused(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        kill_id = writer.kill(KillRow(t_ns=0, pid=1))
        with pytest.raises(ValueError, match="freed_mib"):
            writer.update_kill(kill_id, freed_mib=3)


def test_a_run_directory_is_never_overwritten(tmp_path: Path) -> None:
    RecordWriter(tmp_path).close()
    with pytest.raises(InfraError, match="exists already"):
        RecordWriter(tmp_path)


def test_a_record_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Whoever watches a run begin (``lmk top``, another tool) never meets a file without its tables."""
    for number in range(10):
        directory = tmp_path / str(number)
        directory.mkdir()
        with RecordWriter(directory) as writer:
            while not (directory / "run.sqlite").exists():
                pass
            with RecordReader(directory) as reader:
                assert reader.kills() == []
            writer.kill(KillRow(t_ns=1, pid=1))
        assert [path.name for path in directory.iterdir()] == ["run.sqlite"]


def test_a_run_ends_while_somebody_reads_its_record(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    writer.kill(KillRow(t_ns=1, pid=1))
    with RecordReader(wait_for(tmp_path)) as reader:
        reader.kills()
        writer.close()
    with RecordReader(tmp_path) as reader:
        assert len(reader.kills()) == 1


def wait_for(directory: Path) -> Path:
    while not (directory / "run.sqlite").exists():
        pass
    return directory


def test_a_killed_writer_leaves_a_readable_record(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from lmk.record.writer import RecordWriter\n"
        "from lmk.record.schema import LogRow\n"
        "w = RecordWriter(Path(sys.argv[1]))\n"
        "for n in range(100):\n"
        "    w.log(LogRow(t_ns=n, level='I', tag='t', text=str(n)))\n"
        "time.sleep(1.5)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with RecordReader(tmp_path) as reader:
        assert len(reader.logs()) == 100


def test_reading_what_is_no_record_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run record"):
        RecordReader(tmp_path)
    (tmp_path / "run.sqlite").write_bytes(b"not a database at all, but long enough to look" * 10)
    with pytest.raises(UserError, match="not a run record"):
        RecordReader(tmp_path)


def test_a_future_schema_is_refused(tmp_path: Path) -> None:
    RecordWriter(tmp_path).close()
    database = sqlite3.connect(tmp_path / "run.sqlite")
    database.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    database.commit()
    database.close()
    with pytest.raises(UserError, match="record schema 99"):
        RecordReader(tmp_path)


def test_the_named_counters_of_vmstat_are_all_that_a_sample_needs() -> None:
    lines = [f"{name} {number}" for number, name in enumerate((*VMSTAT_NAMES, "nr_dirty", "pgscan_khugepaged"))]
    named = [line for line in lines if line.split()[0] in VMSTAT_NAMES]
    assert counter_row(1, None, "\n".join(named), None) == counter_row(1, None, "\n".join(lines), None)
    row = counter_row(1, None, "\n".join(named), None)
    assert None not in (
        row.refault_file_pages,
        row.pgscan_direct,
        row.pgscan_kswapd,
        row.pswpin_pages,
        row.pswpout_pages,
    )
