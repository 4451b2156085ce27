"""lmk-apprunner in the guest: real zram, real cgroups, the freezer, page cache on the data disk."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from lmk.backends.qemu import QemuGuest
from lmk.config.timeline import PlannedProcess, Timeline
from lmk.device.adb import AdbDevice
from lmk.device.apprunner import AppEvent, AppRunner

pytestmark = pytest.mark.emulator

MIB_KIB = 1024
FIRST_UID = 10100


@attrs.frozen
class Phone:
    adb: AdbDevice
    runner: AppRunner

    def until(self, kind: str, timeout_s: float = 60.0, **members: object) -> AppEvent:
        for event in self.runner.events(until="stopped", timeout_s=timeout_s):
            if event.kind == kind and all(event.body.get(key) == value for key, value in members.items()):
                return event
        raise AssertionError(f"no {kind} {members}")

    def read(self, path: str) -> str:
        return self.adb.check_shell(f"cat {path}")

    def vmstat(self, name: str) -> int:
        lines = dict(line.split() for line in self.read("/proc/vmstat").splitlines())
        return int(lines[name])

    def zram(self) -> tuple[int, int, int]:
        """Bytes stored, bytes they compressed to, same-filled pages."""
        fields = self.read("/sys/block/zram0/mm_stat").split()
        return int(fields[0]), int(fields[1]), int(fields[5])

    def group(self, uid: int, pid: int) -> str:
        return f"/sys/fs/cgroup/apps/uid_{uid}/pid_{pid}"


@pytest.fixture
def phone(guest: QemuGuest) -> Iterator[Phone]:
    runner = AppRunner(guest.adb)
    with runner:
        yield Phone(guest.adb, runner)


def app(id_: int, name: str, **changes: object) -> PlannedProcess:
    plain = PlannedProcess(
        id=id_,
        name=name,
        process_name=f"com.example.{name}",
        role="app",
        uid=FIRST_UID + id_,
        anon_kib=16 * MIB_KIB,
        file_kib=8 * MIB_KIB,
        ratio_permille=2600,
        hot_permille=400,
        cold_start_ms=50,
    )
    return attrs.evolve(plain, **changes)  # type: ignore[arg-type]


def timeline(*processes: PlannedProcess, **changes: object) -> Timeline:
    plain = Timeline(
        scenario="test",
        seed=1,
        processes=processes,
        steps=(),
        duration_ms=600_000,
        freeze=False,
        freeze_after_ms=500,
        compact=False,
        minfree=(),
    )
    return attrs.evolve(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio_permille", [1400, 2600, 4000])
def test_zram_compresses_an_app_as_the_scenario_says(phone: Phone, ratio_permille: int) -> None:
    phone.runner.start(timeline(app(0, "one", anon_kib=64 * MIB_KIB, file_kib=0, ratio_permille=ratio_permille)))
    phone.runner.step("launch 0")
    pid = phone.until("filled").body["pid"]
    phone.runner.step("background 0")
    before = phone.zram()
    # It answers EAGAIN once there is not that much left to reclaim.
    phone.adb.shell(f"echo 60M > {phone.group(FIRST_UID, pid)}/memory.reclaim", timeout_s=60)
    after = phone.zram()
    stored, compressed = after[0] - before[0], after[1] - before[1]
    assert stored > 40 << 20
    assert stored / compressed == pytest.approx(ratio_permille / 1000, rel=0.1)
    assert after[2] == before[2]


def test_file_pages_refault(phone: Phone) -> None:
    phone.runner.start(timeline(app(0, "one", anon_kib=MIB_KIB, file_kib=64 * MIB_KIB)))
    phone.runner.step("launch 0")
    pid = phone.until("filled").body["pid"]
    phone.runner.step("background 0")
    before = phone.vmstat("workingset_refault_file")
    phone.adb.shell(f"echo 60M > {phone.group(FIRST_UID, pid)}/memory.reclaim", timeout_s=60)
    phone.runner.step("touch 0 file=1000")
    phone.until("touched")
    assert phone.vmstat("workingset_refault_file") - before > 4096


def test_oom_score_adj_groups_and_names(phone: Phone) -> None:
    home = app(0, "home", role="home", autostart=True)
    service = app(3, "sync", role="service")
    phone.runner.start(timeline(home, app(1, "one"), app(2, "two"), service))
    pids = {}
    for id_, name in ((3, "sync"), (1, "one"), (2, "two")):
        phone.runner.step(f"launch {id_}")
        pids[name] = phone.until("filled", app=f"com.example.{name}").body["pid"]
    assert {name: int(phone.read(f"/proc/{pid}/oom_score_adj")) for name, pid in pids.items()} == {
        "two": 0,
        "one": 700,
        "sync": 500,
    }
    assert phone.read(f"/proc/{pids['two']}/cmdline") == "com.example.two\0"
    for id_, name in ((1, "one"), (2, "two")):
        assert phone.read(f"{phone.group(FIRST_UID + id_, pids[name])}/cgroup.procs").split() == [str(pids[name])]
    runner = phone.adb.check_shell("pidof lmk-apprunner || pgrep -o lmk-apprunner").split()[0]
    assert phone.read(f"/proc/{runner}/oom_score_adj") == "-1000\n"
    locked = next(line for line in phone.read(f"/proc/{runner}/status").splitlines() if line.startswith("VmLck"))
    assert int(locked.split()[1]) > 0


def test_the_standin_lmkd_hears_of_every_app(phone: Phone) -> None:
    phone.adb.check_shell("setprop lmk.standin_lmkd 1; start lmkd")
    try:
        phone.runner.start(timeline(app(0, "one"), app(1, "two")))
        phone.until("lmkd_connected")
        phone.runner.step("launch 0")
        one = phone.until("launch", app="com.example.one").body["pid"]
        phone.runner.step("launch 1")
        two = phone.until("launch", app="com.example.two").body["pid"]
        listed = phone.read("/dev/__lmkd_standin").splitlines()
        assert f"{one} {FIRST_UID} 700" in listed
        assert f"{two} {FIRST_UID + 1} 0" in listed
    finally:
        phone.adb.shell("stop lmkd; setprop lmk.standin_lmkd 0")


def test_cached_apps_are_frozen_and_paged_out(phone: Phone) -> None:
    processes = (app(0, "one", anon_kib=48 * MIB_KIB), app(1, "two"), app(2, "three"))
    phone.runner.start(timeline(*processes, freeze=True, compact=True))
    phone.runner.step("launch 0")
    pid = phone.until("filled").body["pid"]
    phone.runner.step("launch 1")
    phone.runner.step("launch 2")
    phone.until("frozen", app="com.example.one", errno=0)
    assert "frozen 1" in phone.read(f"{phone.group(FIRST_UID, pid)}/cgroup.events")
    compacted = phone.until("compacted", app="com.example.one").body
    assert (compacted["errno"], compacted["anon"], compacted["file"]) == (0, True, True)
    assert compacted["rss_after_kib"] < compacted["rss_before_kib"] / 2
    phone.runner.step("launch 0")
    phone.until("thawed", app="com.example.one")
    launch = phone.until("launch", app="com.example.one").body
    assert launch["cold"] is False
    assert launch["major_faults"] > 0


def test_pinned_memory_cannot_be_reclaimed(phone: Phone) -> None:
    phone.runner.start(timeline(app(0, "one", anon_kib=MIB_KIB, file_kib=0, pinned_kib=48 * MIB_KIB)))
    phone.runner.step("launch 0")
    pid = phone.until("filled").body["pid"]
    phone.adb.shell(f"echo 40M > {phone.group(FIRST_UID, pid)}/memory.reclaim", timeout_s=60)
    status = phone.read(f"/proc/{pid}/status")
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    assert rss_kib >= 48 * MIB_KIB


def test_the_runner_outlives_the_kernels_oom_killer(phone: Phone) -> None:
    phone.runner.start(timeline(app(0, "hog", ratio_permille=1000), app(1, "other")))
    phone.runner.step("launch 1")
    phone.until("filled")
    phone.runner.step("launch 0")
    phone.until("launch", app="com.example.hog")
    phone.runner.step("grow 0 kib=4000000")
    died = phone.until("died", timeout_s=240, app="com.example.hog").body
    assert died["signal"] == 9
    phone.runner.step("launch 1")
    assert phone.until("launch", app="com.example.other").body["launch_ms"] > 0
    assert phone.vmstat("oom_kill") >= 1
