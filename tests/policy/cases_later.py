"""Worked cases 51 to 75: Android 15 and 16, the old strategy, polling time lines (sections 12.3 to 12.5)."""

from __future__ import annotations

from typing import Any

from tests.policy.cases import ALL, SINCE_15, worked
from tests.policy.small_world import TARGETS, Device, MakePolicy, Run, zone, zones

THRESHOLD = {"ro.lmk.direct_reclaim_threshold_ms": "200"}


def listening(props: dict[str, str] | None = None, flags: str = "111111", **changes: Any) -> Device:
    """A device whose memory event listener was created at start."""
    device = Device(cfg={"mem": flags}, props={"sys.boot_completed": "1", **(props or {})}, **changes)
    device.script["setup"].append(["cmd", 10])
    return device


@worked(51, SINCE_15)
def stuck_in_direct_reclaim(tag: str, make: MakePolicy) -> None:
    run = listening(THRESHOLD).at(100, ["mem", 1, 0, 0, 0]).event(350, R=1).run(tag, make, 360)
    assert run.kills() == [(9, 0, 1001)]
    assert run.at(350).kills == [(9, 0, 1001)]
    assert run.at(350).text == "device is stuck in direct reclaim (250ms > 200ms)"


@worked(52, SINCE_15)
def stuck_since_clock_zero(tag: str, make: MakePolicy) -> None:
    device = Device(props=THRESHOLD, vs={"pgscan_direct": 0}).at(50, pgscan_direct=1)
    call = device.run(tag, make, 110).at(100)
    assert call.kills == [(9, 0, 1001)]
    assert call.text == "device is stuck in direct reclaim (100100ms > 200ms)"


@worked(53, SINCE_15)
def listener_replaces_vmstat(tag: str, make: MakePolicy) -> None:
    device = listening().event(150, k=True, d=True, MemFree=36000).at(200, ["mem", 3, 0, 0, 0])
    run = device.run(tag, make, 260)
    assert run.at(150).kills == [] and run.at(150).update == (1, -1, 100)
    assert run.at(250).kills == [(8, 701, 1001)]


@worked(54, SINCE_15)
def nobody_above_1000(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.lowmem_min_oom_score": "1001"}).event(150, k=True, MemFree=44000)
    call = device.run(tag, make, 160).at(150)
    assert call.kills == [] and call.update == (1, -1, 100)


@worked(55, SINCE_15)
def lowmem_score_is_clamped(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.lowmem_min_oom_score": "100"}).at(10, ["exit", 1001], ["exit", 1002])
    device.at(150, k=True, MemFree=44000).at(250, k=True).at(350, k=True)
    run = device.run(tag, make, 410)
    assert [run.at(t).kills for t in (200, 300, 400)] == [[], [], [(8, 201, 1003)]]


@worked(56, SINCE_15)
def lower_event_after_a_higher_one(tag: str, make: MakePolicy) -> None:
    device = Device().event(120, level=2).event(150, level=1).event(230, level=1)
    run = device.run(tag, make, 240)
    if tag in ("15.0", "15Q1"):
        assert run.at(150).update == (1, -1, 100)
        return
    assert run.at(150).update == (2, -1, 100)  # ignored
    assert not run.at(220).by_event
    assert run.at(230).update == (1, -1, 100)  # after the poll at 220 it counts


@worked(57, SINCE_15)
def first_kill_keeps_its_reason(tag: str, make: MakePolicy) -> None:
    changed = {"0.0.min": 5000, "0.0.low": 6000, "0.0.high": 7000}
    call = Device().event(150, k=True, MemFree=44000, zi=changed).run(tag, make, 160).at(150)
    assert call.kills == [(8, 701, 1001)]
    assert call.text == "low watermark is breached"
    assert call.decision is not None
    assert [look.watermark for look in call.decision.evaluations] == [1, 3]


@worked(58, SINCE_15)
def first_kill_keeps_its_score(tag: str, make: MakePolicy) -> None:
    changed = {"0.0.min": 12000, "0.0.low": 14000, "0.0.high": 16000}
    device = Device().event(150, k=True, MemFree=44000, SwapFree=100_000, zi=changed)
    call = device.run(tag, make, 160).at(150)
    assert call.kills == [(3, 201, 1001)]
    assert call.text.startswith("min watermark is breached and swap is low")


@worked(59, ("16",))
def vendor_kill(tag: str, make: MakePolicy) -> None:
    run = listening().at(150, ["mem", 5, 5, 500, 0]).at(170, ["mem", 5, 5, 500, 0]).run(tag, make, 180)
    first, second = run.at(150, "memevent"), run.at(170, "memevent")
    assert first.kills == [(1005, 500, 1001)]
    assert first.text == "vendor kill with the reason 1005, min_score_adj 500"
    assert second.kills == []
    assert first.update[0] == second.update[0] == -1


@worked(60, ("16",))
def vendor_kill_limits(tag: str, make: MakePolicy) -> None:
    run = listening().at(150, ["mem", 5, 3, -5, 0]).at(160, ["mem", 5, 1500, 0, 0]).run(tag, make, 170)
    refused = run.at(150, "memevent")
    assert refused.kills == [] and refused.update == (1, -1, 100)
    assert [line for line in refused.logs if line.startswith("Invalid vendor kill reason")]
    assert run.at(160, "memevent").kills == [(2500, 0, 1001)]


# ---- old strategy -------------------------------------------------------------------------------


def old_device(props: dict[str, str] | None = None, **changes: Any) -> Device:
    """Section 12.4: minfree mode with PSI monitors, memcg v1, debug lines."""
    device = Device(
        props={
            "ro.lmk.use_new_strategy": "false",
            "ro.lmk.use_minfree_levels": "true",
            "ro.lmk.debug": "true",
            **(props or {}),
        },
        mi={"Shmem": 40000, "Unevictable": 10000, "SwapCached": 30000, "Buffers": 20000},
        **changes,
    )
    device.script["setup"].append(["target", TARGETS])
    device.prime = False
    return device


@worked(61)
def minfree_ignores(tag: str, make: MakePolicy) -> None:
    call = old_device().event(150, MemFree=200_000, Cached=500_000).run(tag, make, 151).at(150, "mp")
    assert call.kills == []
    assert "Ignore medium memory pressure event (free memory=140000kB, cache=470000kB, limit=322560kB)" in call.logs


@worked(62)
def minfree_kills(tag: str, make: MakePolicy) -> None:
    call = old_device().event(150, MemFree=150_000, Cached=200_000).run(tag, make, 151).at(150, "mp")
    assert call.kills == [(-1, 900, 1001)]
    assert call.logs[-1] == (
        "Reclaimed 100000kB, cache(170000kB) and free(150000kB)-reserved(60000kB) below min(221184kB) "
        "for oom_score_adj 900"
    )
    assert call.update[:2] == (-1, 1)


@worked(63)
def minfree_skips_while_killing(tag: str, make: MakePolicy) -> None:
    device = old_device().process(1001, death=25_000).event(150, MemFree=150_000, Cached=200_000)
    run = device.event(170).at(172, MemFree=400_000).run(tag, make, 176)
    skipped = run.at(170, "mp")
    assert skipped.kills == []
    assert skipped.update[0] == 1  # polling again: no PAUSE request
    # The death polls at once; up to 15Q1 a poll comes even before the death is seen, and is skipped too.
    skips = len(run.pressure_calls()) - 2
    assert skips == (1 if tag == "16" else 2)
    later = run.pressure_calls()[-1]
    assert f"{skips} memory pressure events were skipped after a kill!" in later.logs


@worked(64)
def minfree_level_100(tag: str, make: MakePolicy) -> None:
    call = old_device().event(150, MemFree=60_000, Cached=120_000).run(tag, make, 151).at(150, "mp")
    assert call.kills == [(-1, 100, 1001)]
    assert "below min(92160kB) for oom_score_adj 100" in call.logs[-1]


@worked(65)
def minfree_reports_once_a_second(tag: str, make: MakePolicy) -> None:
    device = old_device().only(1006).event(150, MemFree=60_000, Cached=120_000).event(600).event(1300)
    run = device.run(tag, make, 1301)
    reports = [(call.t_ms, call.logs) for call in run.pressure_calls() if any("Recl" in s for s in call.logs)]
    assert [t_ms for t_ms, _ in reports] == [150, 1150]
    silent = len([t_ms for t_ms in run.times() if 150 < t_ms < 1150])
    assert reports[1][1][-1] == f"Suppressed {silent} failed kill reports"
    assert "Reclaimed 0kB, cache(90000kB)" in reports[0][1][-1]


def vmpressure_device(props: dict[str, str] | None = None, files: dict[str, str] | None = None) -> Device:
    device = old_device({"ro.lmk.use_minfree_levels": "false", **(props or {})})
    device.script["files"] = files or {}
    return device


@worked(66)
def vmpressure_before_any_low_event(tag: str, make: MakePolicy) -> None:
    call = vmpressure_device().event(150, MemFree=150_000).run(tag, make, 151).at(150, "mp")
    assert call.kills == []
    assert "Ignoring pressure since more memory is available (37500) than watermark (-1)" in call.logs


@worked(67)
def vmpressure_medium(tag: str, make: MakePolicy) -> None:
    device = vmpressure_device().event(100, level=0, MemFree=200_000).event(155, level=1, MemFree=150_000)
    call = device.run(tag, make, 156).at(155, "mp")
    assert call.kills == [(-1, 800, 1001)]


@worked(68)
def vmpressure_upgrade(tag: str, make: MakePolicy) -> None:
    device = vmpressure_device(
        {"ro.lmk.critical_upgrade": "true", "ro.lmk.upgrade_pressure": "60"},
        {
            "/dev/memcg/memory.usage_in_bytes": "500000000",
            "/dev/memcg/memory.memsw.usage_in_bytes": "1000000000",
        },
    )
    device.event(100, level=0, MemFree=200_000).event(155, level=1, MemFree=150_000)
    call = device.run(tag, make, 156).at(155, "mp")
    assert call.kills == [(-1, 0, 1001)]
    assert "Event upgraded to critical" in call.logs


# ---- polling ------------------------------------------------------------------------------------


@worked(69)
def polling_run(tag: str, make: MakePolicy) -> None:
    run = Device().run(tag, make, 3000)
    assert run.times() == list(range(100, 1101, 100))
    assert run.at(1100).update == (-1, -1, 100)


@worked(70)
def direct_reclaim_keeps_polling(tag: str, make: MakePolicy) -> None:
    device = Device()
    for t_ms in range(50, 5000, 100):
        device.at(t_ms, d=True)
    run = device.run(tag, make, 7000)
    assert run.times() == list(range(100, 6101, 100))


def critical_kill_at_150(death_ms: int) -> Device:
    return Device().process(1001, death=death_ms * 1000).event(150, level=2, k=True)


@worked(71)
def death_polls_at_once(tag: str, make: MakePolicy) -> None:
    run = critical_kill_at_150(30).run(tag, make, 3000)
    assert run.at(150).update[:2] == (-1, 2)
    assert run.at(180, "kill_done").update == (2, -1, 10)
    after = [t_ms for t_ms in run.times() if t_ms > 150]
    assert after == list(range(180, 1281, 100))  # the run that began at 180
    assert run.at(180).update == (2, -1, 100)


@worked(72)
def kill_timeout_polls_at_once(tag: str, make: MakePolicy) -> None:
    run = critical_kill_at_150(-1).at(200, k=True, MemFree=36000).run(tag, make, 251)
    call = run.at(250)
    assert not call.by_event
    assert call.kills == [(0, 0, 1002)]
    assert [t_ms for t_ms in run.times() if t_ms > 150] == [250]


def watermark_of(tag: str, make: MakePolicy, free_pages: int) -> int:
    two = zones(zone(1500, 1000, 2000, (0, 2000, 2000)), zone(1200, 800, 1600, (0, 0, 0)))
    call = Device(zi=two).at(150, k=True, MemFree=free_pages * 4).run(tag, make, 210).at(200)
    assert call.decision is not None
    return call.decision.evaluations[0].watermark


@worked(73)
def protection_counts(tag: str, make: MakePolicy) -> None:
    marks = [watermark_of(tag, make, pages) for pages in (3799, 3800, 4699, 4700, 5599, 5600)]
    assert marks == [0, 1, 1, 2, 2, 3]


@worked(74)
def no_kill_timeout(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.kill_timeout_ms": "0"}).event(150, level=2, k=True)
    device.event(400, level=2, k=True).event(2000, level=2, k=True).at(2500, ["exit", 1001])
    run = device.at(2450, k=True).event(2560, level=2, k=True).run(tag, make, 2570)
    assert [run.at(t_ms).kills for t_ms in (400, 2000)] == [[], []]
    assert run.at(2500, "kill_done").update[0] == 2
    assert run.at(2560).kills == [(1, 0, 1002)]


@worked(75, ALL)
def target_once_a_second(tag: str, make: MakePolicy) -> None:
    device = old_device().at(500, ["target", [[1, 2]]]).at(1100, ["target", [[3, 4]]])
    run = device.run(tag, make, 1200)
    first = ",".join(f"{pages}:{adj}" for pages, adj in TARGETS)
    assert ("prop", "sys.lmk.minfree_levels", first) in run.initial
    assert properties(run) == [("prop", "sys.lmk.minfree_levels", "3:4")]
    assert run.logs().count("Ignoring frequent updated to lmkd limits") == 1


def properties(run: Run) -> list[Any]:
    """Properties set after start-up."""
    return run.effects("prop")
