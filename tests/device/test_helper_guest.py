"""The helper in the guest, on the patched kernel: real reaps, real pressure, and what happens when parts die."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lmk.backends.qemu import QemuGuest
from lmk.device.helper import HelperProcess, HelperStream, start_helper, stop_leftover
from lmk.device.helper_messages import (
    Armed,
    Failsafe,
    Killed,
    MemEvents,
    Message,
    Oom,
    Pressure,
    Ran,
    SettingsDone,
    Signalled,
    Watched,
)
from lmk.device.helper_requests import Arm, Kill, Run, Settings, Watch, WriteAdj
from lmk.device.helper_types import (
    CallState,
    Capability,
    FailsafeKill,
    FailsafeMode,
    FailsafeReason,
    FileId,
    KillFlag,
    MemEvent,
    ReapMethod,
    SettingItem,
    TableWhich,
    WatchItem,
)
from lmk.errors import DeviceLostError
from tests.fakes.helper_peer import expect, wait_until

pytestmark = pytest.mark.emulator
SETTINGS = Settings(failsafe_ms=1500)


@pytest.fixture
def device(guest: QemuGuest) -> Iterator[QemuGuest]:
    """The shared guest, without leftovers of a test before or after."""
    _clean(guest)
    yield guest
    _clean(guest)


def _clean(guest: QemuGuest) -> None:
    guest.adb.recover(30)
    guest.adb.shell("for p in $(pidof busybox dd); do kill -9 $p; done; setprop lmk.standin_lmkd 0; stop lmkd")
    stop_leftover(guest.adb)


@pytest.fixture
def process(device: QemuGuest) -> HelperProcess:
    return start_helper(device.adb)


def hog(guest: QemuGuest, mib: int) -> int:
    """A process that touches and keeps that much anonymous memory; its pid."""
    command = f"busybox dd if=/dev/urandom of=/dev/null bs={mib}M count=1000000"
    said = guest.adb.check_shell(f"(setsid {command} >/dev/null 2>&1 </dev/null & echo $!)")
    return int(said.split()[-1])


def app(stream: HelperStream, guest: QemuGuest, mib: int, adj: int) -> int:
    """A hog that is registered and has its oom_score_adj."""
    pid = hog(guest, mib)
    wait_until(lambda: stream.done(WriteAdj(pid=pid, oom_score_adj=adj)).error == 0, "the process")
    item = WatchItem(pid=pid, uid=10000, oom_score_adj=adj)
    assert stream.request(Watch(items=(item,)), Watched).results[0].error == 0
    return pid


def alive(guest: QemuGuest, pid: int) -> bool:
    return guest.adb.shell(f"test -d /proc/{pid}").exit_code == 0


def everything(stream: HelperStream, for_s: float) -> list[Message]:
    """All events for a while."""
    found, deadline = list[Message](), time.monotonic() + for_s
    while (left_s := deadline - time.monotonic()) > 0:
        received = stream.next_event(left_s)
        if received is not None:
            found.append(received.message)
    return found


def test_all_that_the_guest_offers_is_there(process: HelperProcess) -> None:
    with process.connect() as stream:
        hello = stream.hello
        assert hello.process_reap == hello.process_mrelease == hello.pidfd_open == CallState.PRESENT
        assert all(hello.capabilities & capability for capability in Capability)
        done = stream.request(SETTINGS, SettingsDone)
        assert {SettingItem(result.item).name: result.error for result in done.results if result.error} == {}


@pytest.mark.parametrize("method", [ReapMethod.PROCESS_REAP, ReapMethod.PROCESS_MRELEASE, ReapMethod.NONE])
def test_a_victims_memory_comes_back(device: QemuGuest, process: HelperProcess, method: ReapMethod) -> None:
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        pid = app(stream, device, 100, 900)
        (row,) = stream.table(TableWhich.REGISTERED)
        wait_until(lambda: _anon_kib(device, pid) > 90 * 1024, "the victim's memory", 60)
        kill_id = stream.post(Kill(handle=row.handle, pid=pid, start_ticks=0, method=method, flags=KillFlag.MEASURE))
        signalled = stream.answer(kill_id)
        assert isinstance(signalled, Signalled) and signalled.error == 0
        told_id, story = expect(stream, Killed, 30)
        assert told_id == kill_id and story.method == method
        assert story.anon_kib_before > 90 * 1024
        assert story.exit_ns > story.signal_ns and story.back_allocatable_ns > story.signal_ns
        if method != ReapMethod.NONE:
            # 0 reaped; ESRCH: its exit was quicker.
            assert story.reap_error in (0, 3) and story.anon_kib_after < 1024


@pytest.mark.parametrize("method", [ReapMethod.AUTO, ReapMethod.PROCESS_REAP, ReapMethod.NONE])
def test_a_whole_cgroup_dies(device: QemuGuest, process: HelperProcess, method: ReapMethod) -> None:
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        pid = app(stream, device, 40, 900)
        others = [hog(device, 10) for _ in range(5)]
        group = f"/sys/fs/cgroup/uid_10000/pid_{pid}"
        device.adb.check_shell(f"mkdir -p {group}")
        for member in (pid, *others):
            device.adb.check_shell(f"echo {member} > {group}/cgroup.procs")
        (row,) = stream.table(TableWhich.REGISTERED)
        flags = KillFlag.GROUP
        kill_id = stream.post(Kill(handle=row.handle, pid=pid, start_ticks=0, method=method, flags=flags))
        signalled = stream.answer(kill_id)
        assert isinstance(signalled, Signalled) and signalled.error == 0
        story = expect(stream, Killed, 30)[1]
        # Our kernel has cgroup.reap: the helper takes it unless told otherwise.
        assert story.method == (ReapMethod.CGROUP if method == ReapMethod.AUTO else method)
        assert story.group_members == (0 if method == ReapMethod.AUTO else 6)
        assert story.reap_error == 0
        wait_until(lambda: not any(alive(device, member) for member in others), "the end of the others", 10)
        assert device.adb.check_shell(f"cat {group}/cgroup.procs").strip() == ""
        device.adb.check_shell(f"rmdir {group}")


def _anon_kib(guest: QemuGuest, pid: int) -> int:
    said = guest.adb.shell(f"grep RssAnon /proc/{pid}/status").stdout.split()
    return int(said[1]) if len(said) > 1 else 0


def test_real_pressure_arrives_with_its_sample_and_the_reclaim_events(
    device: QemuGuest, process: HelperProcess
) -> None:
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        assert stream.request(Arm(slot=1, text="some 70000 1000000"), Armed).error == 0
        pids = [app(stream, device, 300, 900 + number) for number in range(4)]
        pressure = expect(stream, Pressure, 90)[1]
        assert pressure.fired == 2
        vmstat = pressure.snapshot.text(FileId.VMSTAT)
        assert vmstat is not None and vmstat.data.startswith(b"nr_free_pages ")
        # The next victim first, with what a decision needs to know of it.
        assert pressure.candidates[0].pid == pids[-1]
        assert all(entry.error == 0 and entry.data for entry in pressure.candidates[0].files)
        events = [item for message in everything(stream, 2) if isinstance(message, MemEvents) for item in message.items]
        assert {item.event for item in events} & {MemEvent.KSWAPD_WAKE, MemEvent.DIRECT_BEGIN}
        assert all(0 < pressure.end_ns - item.t_ns < 60e9 or item.t_ns > pressure.begin_ns for item in events)


def test_a_kernel_oom_kill_is_seen(device: QemuGuest, process: HelperProcess) -> None:
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        group = "/sys/fs/cgroup/oomtest"
        device.adb.check_shell(f"mkdir -p {group}; echo 20M > {group}/memory.max; echo 0 > {group}/memory.swap.max")
        said = device.adb.shell(
            f"echo $$ > {group}/cgroup.procs; exec busybox dd if=/dev/urandom of=/dev/null bs=60M count=1", 60
        )
        assert said.exit_code == 137
        ooms = [expect(stream, Oom, 30)[1] for _ in range(2)]  # once from tracefs, once from kmsg
        assert len({oom.source for oom in ooms}) == 2 and len({oom.pid for oom in ooms}) == 1


def test_without_host_the_failsafe_keeps_the_oom_killer_away(device: QemuGuest, process: HelperProcess) -> None:
    device.adb.check_shell("dmesg -C")  # other tests on this guest may have run out of memory on purpose
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        front = app(stream, device, 60, 0)
        cached = [app(stream, device, 200, 900 + number) for number in range(3)]
    # Far more than RAM and swap hold, growing while nobody controls the helper; a busy host takes its time over that.
    kills: dict[int, FailsafeKill] = {}
    for number in range(40):
        with process.connect() as stream:
            failsafe = expect(stream, Failsafe, 30)[1]
            assert failsafe.reason == FailsafeReason.HANGUP
            kills |= {kill.pid: kill for kill in failsafe.kills}
            if len(kills) >= 3:
                break
            if number < 8:
                cached.append(app(stream, device, 200, 910 + number))
        time.sleep(3)
    assert len(kills) >= 3 and kills.keys() <= set(cached)
    assert [kill for kill in kills.values() if kill.error or kill.method != ReapMethod.PROCESS_REAP] == []
    # On a slow host a reap may be told of before it is over.
    assert all(kill.reap_error in (0, errno.ESRCH, errno.ETIMEDOUT) for kill in kills.values())
    assert "Out of memory: Killed process" not in device.adb.shell("dmesg").stdout
    assert alive(device, front)


def test_the_helper_killed_under_pressure(device: QemuGuest, process: HelperProcess) -> None:
    device.adb.check_shell("dmesg -C")  # other tests on this guest may have run out of memory on purpose
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        front = app(stream, device, 60, 0)
        pids = {app(stream, device, 150, 900 + number): 900 + number for number in range(3)}
        device.adb.check_shell(f"kill -9 {stream.hello.pid}")
        with pytest.raises(DeviceLostError):
            expect(stream, Failsafe, 10)
    with process.connect() as stream:
        assert stream.hello.worker_starts == 2
        assert expect(stream, Failsafe, 10)[1].reason == FailsafeReason.WORKER_DIED
        assert {row.pid for row in stream.table(TableWhich.REGISTERED)} <= {front, *pids}
        assert front in {row.pid for row in stream.table(TableWhich.REGISTERED)}
    score = device.adb.check_shell(f"cat /proc/{stream.hello.pid}/oom_score_adj /proc/{stream.hello.pid}/cgroup")
    assert score.split() == ["-1000", "0::/lmk.protected"]


def test_the_adb_server_killed(device: QemuGuest, process: HelperProcess) -> None:
    with process.connect() as stream:
        stream.request(SETTINGS, SettingsDone)
        pid = app(stream, device, 10, 900)
        server = device.adb_server.pid
        assert server is not None
        os.kill(server, signal.SIGKILL)
        with pytest.raises(DeviceLostError):
            expect(stream, Failsafe, 10)
    device.adb.recover(30)
    with process.connect() as stream:
        assert stream.hello.worker_starts == 1
        assert expect(stream, Failsafe, 10)[1].reason in (FailsafeReason.HANGUP, FailsafeReason.SILENT)
        assert pid in {row.pid for row in stream.table(TableWhich.REGISTERED)}


_HOST = """
import sys, time
from lmk.device.adb import AdbServer
from lmk.device.helper import HelperProcess
from lmk.device.helper_messages import SettingsDone, Ran, Watched
from lmk.device.helper_requests import Run, Settings, Watch
from lmk.device.helper_types import FailsafeMode, WatchItem
server, serial, remote, token, pid = sys.argv[1:]
device = AdbServer(server).device(serial)
stream = HelperProcess(device, remote, token).connect()
stream.request(Settings(failsafe_ms=1500, failsafe_mode=FailsafeMode.HANDBACK), SettingsDone)
assert stream.request(Run(argv=("stop", "lmkd")), Ran).status == 0
stream.request(Watch(items=(WatchItem(pid=int(pid), uid=10000, oom_score_adj=900),)), Watched)
print("ready", flush=True)
while True:
    stream.next_event(None)
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
def test_a_host_that_dies_or_hangs_leaves_the_stock_lmkd_running(
    device: QemuGuest, process: HelperProcess, way: signal.Signals
) -> None:
    device.adb.check_shell("setprop lmk.standin_lmkd 1; start lmkd")
    pid = hog(device, 10)
    argv = [sys.executable, "-c", _HOST, str(device.adb.server.address), device.adb.serial, process.remote]
    host = subprocess.Popen([*argv, process._token, str(pid)], stdout=subprocess.PIPE)
    assert host.stdout is not None
    try:
        assert host.stdout.readline() == b"ready\n"
        assert device.adb.getprop("init.svc.lmkd") == "stopped"
        os.kill(host.pid, way)
        wait_until(lambda: device.adb.getprop("init.svc.lmkd") == "running", "the stock lmkd", 30)
        wanted = f"{pid} 10000 900"
        wait_until(
            lambda: wanted in device.adb.shell("cat /dev/__lmkd_standin").stdout.splitlines(), "registration", 15
        )
    finally:
        host.kill()
        host.wait()
        host.stdout.close()
    with process.connect() as stream:
        failsafe = expect(stream, Failsafe, 15)[1]
        assert (failsafe.mode, failsafe.handed_back, failsafe.handback_error) == (FailsafeMode.HANDBACK, 1, 0)
        assert failsafe.reregistered == 1
        assert stream.request(Run(argv=("stop", "lmkd")), Ran).status == 0
    assert alive(device, pid)
