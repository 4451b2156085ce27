"""The simulated device as a target: every request gets the answer that the protocol promises."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lmk.policy.api import (
    ArmPsi,
    ArmVmpressure,
    CgroupAttributePath,
    CheckWritable,
    DescribeMachine,
    DescribeMemcg,
    Disarm,
    FileError,
    GetProperties,
    ListGroups,
    ListProcesses,
    Machine,
    Memcg,
    MemoryEvents,
    MemoryEventsReady,
    OpenKernelKills,
    OpenMemoryEvents,
    OpenPidfd,
    PressureEvent,
    ProbePidfd,
    ProcessExists,
    ReadFile,
    ReadGpuTotal,
    ReadProcess,
    ReadSizes,
    SetOomScoreAdj,
    SetProperty,
    TakeMemoryEvents,
    TakeVmpressure,
    Wait,
    WatchExit,
    WriteFile,
)
from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure
from lmk.procfs.vmstat import Vmstat
from lmk.procfs.zoneinfo import Zoneinfo
from lmk.sim.zone import PAGE_KIB
from tests.sim.device import Device, published

STEPS = "steps:\n  - launch: big\n  - wait: 20s\n"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path, STEPS)
    device.until_ms(5_000)
    return device


def test_memory_files_are_values_and_others_are_missing(device: Device) -> None:
    answer = device.target.answer
    assert isinstance(answer(ReadFile("/proc/meminfo")), Meminfo)
    assert isinstance(answer(ReadFile("/proc/vmstat")), Vmstat)
    assert isinstance(answer(ReadFile("/proc/zoneinfo")), Zoneinfo)
    for resource in ("memory", "io", "cpu"):
        assert isinstance(answer(ReadFile(f"/proc/pressure/{resource}")), Pressure)
    for path in ("/proc/pressure/irq", "/proc/lowmemorykiller", "/etc/passwd"):
        assert answer(ReadFile(path)) == FileError("open", errno.ENOENT)


def test_a_file_is_read_anew_after_memory_changed(device: Device) -> None:
    before = device.target.answer(ReadFile("/proc/meminfo"))
    assert device.target.answer(ReadFile("/proc/meminfo")) is before
    device.memory.lock_new(1000)
    after = device.target.answer(ReadFile("/proc/meminfo"))
    assert isinstance(before, Meminfo)
    assert isinstance(after, Meminfo)
    assert (before.get("MemFree") or 0) - (after.get("MemFree") or 0) == 1000 * PAGE_KIB


def test_a_process_is_what_proc_says(device: Device) -> None:
    process, answer = device.living("big"), device.target.answer
    status = answer(ReadProcess(process.pid, "status"))
    assert isinstance(status, str)
    assert f"Tgid:\t{process.pid}\n" in status
    assert f"VmRSS:\t{process.rss_pages * PAGE_KIB:>8} kB" in status
    assert answer(ReadProcess(process.pid, "cmdline")) == "com.example.big\0"
    assert answer(ReadProcess(process.pid, "oom_score_adj")) == "0\n"
    assert answer(ReadSizes([process.pid, 99999])) == [process.rss_pages, FileError("open", errno.ENOENT)]
    assert answer(ProcessExists(process.pid))
    assert not answer(ProcessExists(99999))
    assert answer(ReadProcess(process.pid, "maps")) == FileError("open", errno.ENOENT)
    stat = answer(ReadProcess(process.pid, "stat"))
    assert isinstance(stat, str)
    assert stat.startswith(f"{process.pid} (com.example.big) S 1 ")
    assert len(stat.rsplit(")", 1)[1].split()) == 50


def test_listing_and_groups(device: Device) -> None:
    answer, pid = device.target.answer, device.living("big").pid
    pids = answer(ListProcesses())
    assert isinstance(pids, tuple)
    assert pid in pids
    assert list(pids) == sorted(pids)
    assert answer(ListGroups("")) == ("/apps", "/system")
    groups = answer(ListGroups("/apps"))
    assert isinstance(groups, tuple)
    group = next(path for path in groups if f"{path}/pid_{pid}" in (answer(ListGroups(path)) or ()))  # type: ignore[operator]
    assert answer(ReadFile(f"/sys/fs/cgroup{group}/pid_{pid}/cgroup.procs")) == f"{pid}\n"
    assert answer(ReadFile(f"/sys/fs/cgroup{group}/memory.swap.current")) == "0\n"
    assert isinstance(answer(ReadFile("/sys/fs/cgroup/apps/memory.pressure")), Pressure)
    assert answer(ListGroups("/nothing")) == FileError("open", errno.ENOENT)
    assert answer(CgroupAttributePath("MemStats", pid)) == f"/sys/fs/cgroup{group}/pid_{pid}/memory.stat"


def test_adj_and_properties_are_kept(device: Device) -> None:
    process, answer = device.living("big"), device.target.answer
    written = answer(SetOomScoreAdj(process.pid, 123))
    assert (getattr(written, "tgid"), getattr(written, "error")) == (process.pid, None)  # noqa: B009
    assert process.adj == 123
    assert getattr(answer(SetOomScoreAdj(99999, 0)), "error") == FileError("open", errno.ENOENT)  # noqa: B009
    answer(SetProperty("sys.lmk.reportkills", "1"))
    asked = answer(GetProperties(("sys.lmk.reportkills", "ro.config.low_ram", "no.such")))
    assert asked == {"sys.lmk.reportkills": "1", "ro.config.low_ram": "true"}


def test_what_this_device_is_and_has_not(device: Device) -> None:
    answer = device.target.answer
    assert answer(DescribeMachine()) == Machine(4096, 100)
    assert answer(DescribeMemcg()) == Memcg(2)
    assert answer(ProbePidfd()) is True
    assert answer(CheckWritable("/sys/module/lowmemorykiller/parameters/minfree")) is False
    assert answer(ReadGpuTotal()) is None
    assert answer(OpenKernelKills()) == errno.ENOENT
    assert answer(TakeVmpressure()) == (0, 0, 0)
    refused = answer(ArmVmpressure(0, "low", "a", "b"))
    assert refused == FileError("pressure_level", errno.ENOENT)
    assert answer(WriteFile("/dev/memcg/apps/memory.soft_limit_in_bytes", "1")) is None
    assert answer(WriteFile("/etc/passwd", "")) == FileError("open", errno.ENOENT)
    assert answer(WatchExit(4711)) == errno.EBADF
    assert getattr(answer(OpenPidfd(99999)), "errno") == errno.ESRCH  # noqa: B009


def test_pressure_wakes_whoever_armed_a_trigger(tmp_path: Path) -> None:
    steps = "steps:\n  - launch: big\n  - grow: big\n    size: 4GiB\n    over: 8s\n  - wait: 12s\n"
    device = Device(tmp_path, steps)
    assert device.target.answer(ArmPsi(1, "some 70000 1000000\0")) is None
    assert device.target.answer(ArmPsi(2, "full 70000 100\0")) == FileError("write", errno.EINVAL)
    device.until_ms(9_000)
    fired = [event for event in device.events if isinstance(event, PressureEvent)]
    assert fired
    assert {event.level for event in fired} == {1}
    device.target.answer(Disarm(1))
    device.events.clear()
    device.until_ms(11_500)
    assert not any(isinstance(event, PressureEvent) for event in device.events)


def test_what_fires_at_one_instant_wakes_once(tmp_path: Path) -> None:
    device = Device(tmp_path, STEPS)
    for level in (1, 2):
        device.target.answer(ArmPsi(level, "some 50000 1000000"))
    device.until_ms(1_000)
    device.memory.reclaim(10**6, 10**12, kswapd=True, now_ns=device.target.now_ns())
    machine = device.target.machine
    for level in (1, 2):
        machine.psi_event(level)
    answer = device.target.answer(Wait(1000))
    assert [event.level for event in answer.events if isinstance(event, PressureEvent)] == [1, 2]  # type: ignore[attr-defined]


def test_a_look_takes_its_time_once_in_a_wake_up(tmp_path: Path) -> None:
    device = Device(tmp_path, STEPS, calibration=published(sample_us=8000))
    device.until_ms(5_000)
    cpus = device.target.machine.cpus
    for _ in range(2):
        before_ns = device.target.now_ns()
        device.target.answer(ReadFile("/proc/meminfo"))
        assert device.target.now_ns() == before_ns + 8000 * 1000 // cpus
        device.target.answer(ReadFile("/proc/vmstat"))
        assert device.target.now_ns() == before_ns + 8000 * 1000 // cpus
        device.target.answer(Wait(10))


def test_memory_events_tell_when_reclaim_begins_and_ends(tmp_path: Path) -> None:
    steps = "steps:\n  - launch: big\n  - grow: big\n    size: 3GiB\n    over: 8s\n  - wait: 12s\n"
    device = Device(tmp_path, steps)
    assert getattr(device.target.answer(OpenMemoryEvents()), "created")  # noqa: B009
    kinds: list[int] = []
    while not device.over and device.target.now_ns() < 60 * 10**9:
        answer = device.target.answer(Wait(50))
        events = getattr(answer, "events", None)
        if events is None:
            break
        if any(isinstance(event, MemoryEventsReady) for event in events):
            taken = device.target.answer(TakeMemoryEvents())
            assert isinstance(taken, MemoryEvents)
            kinds += [entry.kind for entry in taken.entries or ()]
    assert {1, 2, 3, 4} <= set(kinds)
    direct = [kind for kind in kinds if kind in (1, 2)]
    assert direct == [1, 2] * (len(direct) // 2) + [1] * (len(direct) % 2)
    # mm_vmscan_kswapd_wake at each run of balance_pgdat, mm_vmscan_kswapd_sleep only when it waits to be woken.
    kswapd = "".join(str(kind) for kind in kinds if kind in (3, 4))
    assert kswapd.startswith("3") and "44" not in kswapd and "33" in kswapd
