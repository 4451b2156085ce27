"""lmk top's view of a device, through the real helper on a /proc that the test writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.backends.qemu import QemuGuest
from lmk.live.look_on import HELPER_NAME, LiveFrames, Sight, adb_sight
from tests.fakes.helper_peer import LocalHelper, local_helper
from tests.fakes.proc_root import ProcRoot
from tests.policy.test_look import MEMINFO, VMSTAT, ZONEINFO


@pytest.fixture
def proc(tmp_path: Path) -> ProcRoot:
    root = ProcRoot(tmp_path / "proc")
    root.write("meminfo", MEMINFO)
    root.write("vmstat", VMSTAT.format(refaults=1))
    root.write("zoneinfo", ZONEINFO)
    root.add_process(100, name="com.example.old", start_ticks=10, oom_score_adj=910)
    root.add_process(101, name="com.example.new", start_ticks=20, oom_score_adj=910)
    root.add_process(102, name="com.example.front", start_ticks=30, oom_score_adj=0, rss_kib=204800)
    root.add_process(103, name="a_daemon", oom_score_adj=-1000, uid=0)
    return root


@pytest.fixture
def helper(tmp_path: Path, proc: ProcRoot) -> Iterator[LocalHelper]:
    with local_helper(tmp_path, proc_root=proc.path) as running:
        yield running


def frames_of(helper: LocalHelper) -> LiveFrames:
    kills = [{"pid": 9, "name": "com.example.dead", "oom_score_adj": 900}]
    properties = {"init.svc.lmkd": "running", "ro.lmk.psi_partial_stall_ms": "100"}
    return LiveFrames(Sight(connect=helper.connect, properties=properties, kills=lambda _: kills), "a device", "14Q2")


def test_thresholds_tiers_and_kills(helper: LocalHelper, proc: ProcRoot) -> None:
    with frames_of(helper) as frames:
        first = frames.frame("now", "keys")
        proc.write("pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=900000\n")
        second = frames.frame("now", "keys")
    found = {gauge.name: gauge for gauge in first.gauges}
    assert found["PSI some in 1000 ms"].share is None  # one sample says nothing yet
    assert found["free memory, low watermark"].now == "48.8 MiB"
    assert {gauge.name: gauge.fires for gauge in second.gauges}["PSI some in 1000 ms"]
    assert [(row.tier, row.count, row.victim.name if row.victim else None) for row in first.tiers] == [
        ("cached", 2, "com.example.old"),
        ("foreground", 1, "com.example.front"),
    ]
    assert first.tiers[1].rss_kib == 204800
    assert [(kill.name, kill.adj) for kill in first.kills] == [("com.example.dead", 900)]
    assert first.notes == ()


def test_nothing_is_touched(helper: LocalHelper, proc: ProcRoot) -> None:
    before = {path: path.read_bytes() for path in sorted(proc.path.rglob("*")) if path.is_file()}
    with frames_of(helper) as frames:
        for _ in range(3):
            frames.frame("", "")
        assert not helper.lmkd_socket.exists()
    assert {path: path.read_bytes() for path in sorted(proc.path.rglob("*")) if path.is_file()} == before


@pytest.mark.emulator
def test_on_a_guest(guest: QemuGuest) -> None:
    with LiveFrames(adb_sight(guest.adb), "guest", "14Q2") as frames:
        frames.frame("", "")
        frame = frames.frame("", "")
    found = {gauge.name: gauge for gauge in frame.gauges}
    assert found["free memory, low watermark"].share is not None
    assert found["PSI some in 1000 ms"].share is not None
    assert (
        HELPER_NAME not in guest.adb.check_shell("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '").split("cat ")[0]
    )
