"""Memory events and kernel OOM kills: tracefs and kmsg as kernels write them, in a fake root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.device.helper import HelperStream
from lmk.device.helper_messages import MemEvents, Oom, Sample, SettingsDone
from lmk.device.helper_requests import GetSample, Settings
from lmk.device.helper_types import Capability, MemEvent, OomSource, SettingItem, SettingsFlag
from tests.fakes.helper_peer import LocalHelper, expect, local_helper, wait_until
from tests.fakes.proc_root import ProcRoot

EVENTS = (
    "vmscan/mm_vmscan_direct_reclaim_begin",
    "vmscan/mm_vmscan_direct_reclaim_end",
    "vmscan/mm_vmscan_kswapd_wake",
    "vmscan/mm_vmscan_kswapd_sleep",
    "oom/mark_victim",
)
WATCHING = Settings(
    flags=SettingsFlag.MEMEVENTS | SettingsFlag.OOM, failsafe_ms=60_000, main_priority=0, reaper_priority=0
)


class FakeTracefs:
    """sys/kernel/tracing with an instance whose trace_pipe is a FIFO, and dev/kmsg as another."""

    def __init__(self, root: Path) -> None:
        self._tracing = root / "sys/kernel/tracing"
        for event in EVENTS:
            (self._tracing / "events" / event).mkdir(parents=True)
            (self._tracing / "instances/lmk/events" / event).mkdir(parents=True)
            (self._tracing / "instances/lmk/events" / event / "enable").write_text("0")
        for name in ("trace_clock", "buffer_size_kb", "buffer_percent"):
            (self._tracing / "instances/lmk" / name).write_text("")
        os.mkfifo(self._tracing / "instances/lmk/trace_pipe")
        (root / "dev").mkdir()
        os.mkfifo(root / "dev/kmsg")
        self._root = root
        self._writers: list[int] = []

    def open(self) -> None:
        """The kernel's ends of both pipes; the helper must have opened its own."""
        for path in (self._tracing / "instances/lmk/trace_pipe", self._root / "dev/kmsg"):
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(fd, True)
            self._writers.append(fd)

    def trace(self, *lines: str) -> None:
        os.write(self._writers[0], "".join(line + "\n" for line in lines).encode())

    def kmsg(self, record: str) -> None:
        os.write(self._writers[1], record.encode())

    def instance_file(self, name: str) -> str:
        return (self._tracing / "instances/lmk" / name).read_text()

    def close(self) -> None:
        for fd in self._writers:
            os.close(fd)


def line(comm: str, pid: int, rest: str) -> str:
    """A line of trace_pipe: the kernel prints "%16s-%-7d " and what follows."""
    return f"{comm:>16}-{pid:<7} {rest}"


@pytest.fixture
def tracefs(tmp_path: Path) -> FakeTracefs:
    return FakeTracefs(tmp_path)


@pytest.fixture
def helper(tmp_path: Path, tracefs: FakeTracefs) -> Iterator[LocalHelper]:
    with local_helper(tmp_path, proc_root=ProcRoot(tmp_path / "proc").path) as running:
        yield running


@pytest.fixture
def stream(helper: LocalHelper, tracefs: FakeTracefs) -> Iterator[HelperStream]:
    with helper.connect() as connected:
        done = connected.request(WATCHING, SettingsDone)
        errors = {SettingItem(result.item): result.error for result in done.results}
        assert errors[SettingItem.MEMEVENTS] == errors[SettingItem.OOM] == 0
        tracefs.open()
        yield connected
        tracefs.close()


def test_the_instance_is_our_own_and_on_our_clock(stream: HelperStream, tracefs: FakeTracefs) -> None:
    assert tracefs.instance_file("trace_clock") == "mono"
    assert tracefs.instance_file("buffer_percent") == "0"
    assert all(tracefs.instance_file(f"events/{event}/enable")[0] == "1" for event in EVENTS)
    wanted = Capability.TRACE_MEMEVENTS | Capability.TRACE_OOM | Capability.KMSG
    assert stream.hello.capabilities & wanted == wanted


def test_reclaim_events_of_every_kernels_format(stream: HelperStream, tracefs: FakeTracefs) -> None:
    tracefs.trace(
        # 6.12, 6.1, 5.10, and without the irq-info column; names that try to look like something else.
        line("kswapd0", 36, "[001] .....    12.345678: mm_vmscan_kswapd_wake: nid=0 order=0"),
        line(".example.maps]", 4711, "[000] d..3.    13.000001: mm_vmscan_direct_reclaim_begin: order=0 gfp_flags=0"),
        line("[7] 1.000000: x", 4711, "[000] ....    13.000002: mm_vmscan_direct_reclaim_end: nr_reclaimed=5"),
        line("kswapd0", 36, "[001] 14.500000: mm_vmscan_kswapd_sleep: nid=0"),
        "nonsense",
        line("kswapd0", 36, "[001] ..... nonsense"),
        "CPU:1 [LOST 5 EVENTS]",
    )
    items = expect(stream, MemEvents)[1].items
    assert [(MemEvent(item.event), item.t_ns, item.pid) for item in items] == [
        (MemEvent.KSWAPD_WAKE, 12_345_678_000, 36),
        (MemEvent.DIRECT_BEGIN, 13_000_001_000, 4711),
        (MemEvent.DIRECT_END, 13_000_002_000, 4711),
        (MemEvent.KSWAPD_SLEEP, 14_500_000_000, 36),
    ]


def test_a_sample_comes_after_the_events_before_it_and_knows_the_state(
    stream: HelperStream, tracefs: FakeTracefs
) -> None:
    tracefs.trace(
        line("kswapd0", 36, "[001] .....    12.000000: mm_vmscan_kswapd_wake: nid=0 order=0"),
        line("app", 77, "[001] .....    12.500000: mm_vmscan_direct_reclaim_begin: order=0"),
    )
    sample = stream.request(GetSample(files=0), Sample)
    assert (sample.kswapd_start_ns, sample.direct_start_ns) == (12_000_000_000, 12_500_000_000)
    assert stream.has_events  # the batch was sent before the answer
    assert len(expect(stream, MemEvents)[1].items) == 2
    tracefs.trace(line("app", 77, "[001] .....    12.600000: mm_vmscan_direct_reclaim_end: nr_reclaimed=1"))
    assert stream.request(GetSample(files=0), Sample).direct_start_ns == 0


def test_a_storm_of_events_is_bounded(stream: HelperStream, tracefs: FakeTracefs) -> None:
    event = line("app", 77, "[001] .....    12.{:06d}: mm_vmscan_direct_reclaim_begin: order=0")
    for start in range(0, 2000, 500):
        tracefs.trace(*(event.format(number) for number in range(start, start + 500)))
    carried = dropped = 0
    while carried + dropped < 2000:
        events = expect(stream, MemEvents)[1]
        assert len(events.items) <= 256
        carried, dropped = carried + len(events.items), dropped + events.dropped
    assert carried + dropped == 2000
    assert events.items[-1].t_ns == 12_001_999_000  # the newest are kept


def test_a_line_that_comes_in_two_pieces(stream: HelperStream, tracefs: FakeTracefs) -> None:
    whole = line("kswapd0", 36, "[001] .....    12.345678: mm_vmscan_kswapd_wake: nid=0 order=0") + "\n"
    os.write(tracefs._writers[0], whole[:50].encode())
    stream.ping()
    os.write(tracefs._writers[0], whole[50:].encode())
    assert len(expect(stream, MemEvents)[1].items) == 1


def test_oom_kills_from_tracefs(stream: HelperStream, tracefs: FakeTracefs) -> None:
    tracefs.trace(line("app", 77, "[001] d..1.    12.500000: mark_victim: pid=4711"))
    oom = expect(stream, Oom)[1]
    assert (oom.source, oom.pid, oom.t_ns, oom.text) == (OomSource.TRACE, 4711, 12_500_000_000, "pid=4711")
    text = "pid=4712 comm=com.example total-vm=5kB anon-rss=4kB file-rss:3kB shmem-rss:2kB uid=10001 oom_score_adj=900"
    tracefs.trace(line("app", 77, f"[001] d..1.    12.600000: mark_victim: {text}"))
    oom = expect(stream, Oom)[1]
    assert (oom.pid, oom.text) == (4712, text)


def test_oom_kills_from_kmsg(stream: HelperStream, tracefs: FakeTracefs) -> None:
    tracefs.kmsg("6,100,5000000,-;something else about memory\n")
    stream.ping()
    text = "Out of memory: Killed process 4711 (com.example) total-vm:5kB, anon-rss:4kB, UID:10001 oom_score_adj:900"
    tracefs.kmsg(f"3,101,5000001,-;{text}\n SUBSYSTEM=memory\n")
    oom = expect(stream, Oom)[1]
    assert (oom.source, oom.pid, oom.text) == (OomSource.KMSG, 4711, text)
    tracefs.kmsg("3,102,5000002,-;Memory cgroup out of memory: Killed process 4712 (x) total-vm:5kB\n")
    assert expect(stream, Oom)[1].pid == 4712


def test_switched_off_again(helper: LocalHelper, stream: HelperStream, tracefs: FakeTracefs) -> None:
    quiet = Settings(flags=0, failsafe_ms=60_000, main_priority=0, reaper_priority=0)
    stream.request(quiet, SettingsDone)
    wait_until(lambda: _readers(helper) == 0, "the pipes to be closed")


def _readers(helper: LocalHelper) -> int:
    """How many of the helper's descriptors are the trace pipe or kmsg."""
    count = 0
    for fd in Path(f"/proc/{helper.process.pid}/fd").iterdir():
        count += str(fd.readlink()).endswith(("trace_pipe", "dev/kmsg"))
    return count
