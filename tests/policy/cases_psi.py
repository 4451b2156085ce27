"""Worked cases 1 to 50: the PSI strategy (reference section 12.2).

Where the reference says "+200 event" the event comes at +150, between two polls of the priming run, so that the call
in question is the event's; "+200 poll" is the run's own poll at +200.
"""

from __future__ import annotations

from typing import Any

from tests.policy.cases import ALL, BEFORE_LOW_MEM, worked
from tests.policy.small_world import Device, MakePolicy, pressure

PAUSED = (-1, 1)
POLLED = (1, -1)
#: The run that the priming event starts ends with the poll at 1100, one started at 150 with the poll at 1250.
PRIME_RUN_END = 1100
EVENT_RUN_END = 1250


def nothing_before_low_mem(tag: str, run_kills: list[tuple[int, int, int]]) -> bool:
    """In 13 and 14.0 LOW_MEM does not exist; asserts that nothing died there."""
    if tag in BEFORE_LOW_MEM:
        assert run_kills == []
        return True
    return False


@worked(1)
def event_without_pressure(tag: str, make: MakePolicy) -> None:
    run = Device().event(150, k=True).run(tag, make, 3000)
    assert run.kills() == []
    assert run.at(150).update == (1, -1, 100)
    assert run.times()[-1] == EVENT_RUN_END  # START


@worked(2)
def no_counter_changed(tag: str, make: MakePolicy) -> None:
    run = Device().event(150, MemFree=30000).run(tag, make, 3000)
    assert run.kills() == []
    assert run.at(150).update == (1, -1, 100)
    decision = run.at(150).decision
    assert decision is not None and decision.ended_early == "no reclaim"
    assert run.times()[-1] == EVENT_RUN_END


@worked(3)
def high_watermark_kills_nobody(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, k=True, MemFree=52000).run(tag, make, 3000)
    call = run.at(200)
    assert run.kills() == []
    assert call.decision is not None and call.decision.evaluations[0].watermark == 2
    assert call.update == (1, -1, 100)
    assert run.times()[-1] == PRIME_RUN_END  # NO_CHANGE


@worked(4)
def low_watermark(tag: str, make: MakePolicy) -> None:
    run = Device().event(150, k=True, MemFree=44000).run(tag, make)
    call = run.at(150)
    if nothing_before_low_mem(tag, run.kills()):
        assert call.update == (1, -1, 100)
        return
    assert call.kills == [(8, 701, 1001)]
    assert call.text == "low watermark is breached"
    assert call.update[:2] == PAUSED


@worked(5)
def min_watermark(tag: str, make: MakePolicy) -> None:
    run = Device().event(150, k=True, MemFree=36000).run(tag, make, 160)
    if nothing_before_low_mem(tag, run.kills()):
        return
    call = run.at(150)
    assert call.kills == [(8, 701, 1001)]
    assert call.text == "min watermark is breached"
    assert call.update[:2] == PAUSED


@worked(6)
def critical_event(tag: str, make: MakePolicy) -> None:
    call = Device().event(150, level=2, k=True).run(tag, make, 160).at(150)
    assert call.kills == [(1, 0, 1001)]
    assert call.text == "device is not responding"
    assert call.update[:2] == (-1, 2)


@worked(7)
def poll_of_the_critical_handler(tag: str, make: MakePolicy) -> None:
    run = Device().event(50, level=2).at(100, k=True).run(tag, make, 3000)
    call = run.at(150)
    assert (call.data, call.by_event) == (2, False)
    assert run.kills() == []
    assert call.update == (2, -1, 100)
    assert run.times()[-1] == 1150  # NO_CHANGE


@worked(8)
def low_swap_and_thrashing(tag: str, make: MakePolicy) -> None:
    call = Device().at(150, k=True, SwapFree=100_000, R=300_000).run(tag, make).at(200)
    assert call.kills == [(2, 201, 1001)]
    assert call.text == "device is low on swap (100000kB < 200000kB) and thrashing (150%)"


@worked(9)
def low_swap_thrashing_and_min(tag: str, make: MakePolicy) -> None:
    call = Device().at(150, k=True, SwapFree=100_000, R=300_000, MemFree=36000).run(tag, make, 210).at(200)
    assert call.kills == [(2, 0, 1001)]


@worked(10)
def thrashing_200(tag: str, make: MakePolicy) -> None:
    call = Device().at(150, k=True, SwapFree=100_000, R=400_000).run(tag, make, 210).at(200)
    assert call.kills == [(2, 0 if tag in BEFORE_LOW_MEM else 201, 1001)]


@worked(11)
def thrashing_300(tag: str, make: MakePolicy) -> None:
    call = Device().at(150, k=True, SwapFree=100_000, R=600_000).run(tag, make, 210).at(200)
    assert call.kills == [(2, 0, 1001)]


@worked(12)
def low_mem_and_swap(tag: str, make: MakePolicy) -> None:
    call = Device().at(150, k=True, SwapFree=100_000, MemFree=44000, R=100_000).run(tag, make, 210).at(200)
    assert call.kills == [(3, 201, 1001)]
    assert call.text == "low watermark is breached and swap is low (100000kB < 200000kB)"


@worked(13)
def low_swap_alone(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, k=True, SwapFree=100_000, MemFree=52000, R=100_000).run(tag, make, 3000)
    assert run.kills() == []
    assert run.at(200).update == (1, -1, 10)
    assert run.times()[-1] == 1010  # NO_CHANGE, every 10 ms


@worked(14)
def free_swap_is_capped(tag: str, make: MakePolicy) -> None:
    changes: dict[str, Any] = {"MemFree": 44000, "Inactive(file)": 100_000}
    run = Device().at(150, k=True, **changes).run(tag, make, 210)
    if tag == "13.0":
        assert run.kills() == []
        return
    assert run.at(200).kills == [(3, 201, 1001)]
    assert run.at(200).text == "low watermark is breached and swap is low (144000kB < 200000kB)"
    if tag in ("15.0", "16"):
        for ratio in ("0", "2"):
            device = Device(props={"ro.lmk.swap_compression_ratio": ratio}).at(150, k=True, **changes)
            assert device.run(tag, make, 210).at(200).kills == [(8, 701, 1001)]


@worked(15)
def swap_utilisation(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.swap_util_max": "40"}).at(150, k=True, MemFree=44000)
    run = device.run(tag, make, 210)
    if tag == "13.0":
        assert run.kills() == []
        return
    assert run.at(200).kills == [(6, 0, 1001)]
    assert run.at(200).text == "low watermark is breached and swap utilization is high (43% > 40%)"


def after_16(death_ms: int | None = None, **changes: Any) -> Device:
    """Case 16; its victim 1001 dies after so many ms."""
    device = Device(**changes).at(150, k=True, MemFree=44000, R=220_000)
    return device.process(1001, death=-1 if death_ms is None else death_ms * 1000)


@worked(16)
def low_mem_and_thrashing(tag: str, make: MakePolicy) -> None:
    call = after_16().run(tag, make, 210).at(200)
    assert call.kills == [(4, 201, 1001)]
    assert call.text == "low watermark is breached and thrashing (110%)"


@worked(17)
def death_restarts_the_window(tag: str, make: MakePolicy) -> None:
    run = after_16(30).at(220, k=True, MemFree=160_000, R=230_000).run(tag, make, 3000)
    assert run.at(230, "kill_done").update == (1, -1, 10)
    call = run.at(230)
    assert not call.by_event and call.kills == []
    assert call.update == (1, -1, 100)
    assert call.decision is not None
    assert call.decision.evaluations[0].base_refaults == 230_000
    assert call.decision.evaluations[0].thrashing_limit_pct == 90
    assert run.times()[-1] == 1330  # the run that was resumed at 230


@worked(18)
def cut_limit(tag: str, make: MakePolicy) -> None:
    device = after_16(30).at(220, k=True, MemFree=160_000, R=230_000).process(1002, death=30_000)
    device.at(300, k=True, MemFree=44000, R=420_000).at(350, k=True, MemFree=200_000)
    run = device.run(tag, make, 370)
    assert run.at(330).kills == [(4, 201, 1002)]
    assert run.at(330).text == "low watermark is breached and thrashing (95%)"
    decision = run.at(360).decision
    assert decision is not None and decision.evaluations[0].thrashing_limit_pct == 81


@worked(19)
def direct_reclaim_and_thrashing(tag: str, make: MakePolicy) -> None:
    call = Device().at(150, d=True, R=220_000).run(tag, make, 210).at(200)
    assert call.kills == [(5, 201, 1001)]
    assert call.text == "device is in direct reclaim and thrashing (110%)"


@worked(20)
def pressure_after_kill(tag: str, make: MakePolicy) -> None:
    call = after_16(40).at(220, k=True, MemFree=36000).run(tag, make, 245).at(240)
    assert call.kills == [(0, 0, 1002)]
    assert call.text == "min watermark is breached even after kill"


@worked(21)
def pressure_after_kill_min_score(tag: str, make: MakePolicy) -> None:
    device = after_16(40, props={"ro.lmk.pressure_after_kill_min_score": "201"})
    call = device.at(220, k=True, MemFree=36000).run(tag, make, 245).at(240)
    assert call.kills == [(0, 0 if tag in BEFORE_LOW_MEM else 201, 1002)]


@worked(22)
def low_watermark_after_kill(tag: str, make: MakePolicy) -> None:
    run = after_16(40).at(220, k=True).run(tag, make, 245)
    call = run.at(240)
    if tag in BEFORE_LOW_MEM:
        assert call.kills == [] and call.update == (1, -1, 100)
    else:
        assert call.kills == [(8, 701, 1002)]


def after_23() -> Device:
    device = after_16(40, props={"ro.lmk.filecache_min_kb": "900000"})
    return device.at(220, k=True, MemFree=100_000).process(1002, death=40_000)


@worked(23)
def low_filecache_after_thrashing(tag: str, make: MakePolicy) -> None:
    call = after_23().run(tag, make, 245).at(240)
    assert call.kills == [(7, 201, 1002)]
    assert call.text == "filecache is low (799996kB < 900000kB) after thrashing"


@worked(24)
def big_filecache_clears_the_flag(tag: str, make: MakePolicy) -> None:
    device = after_23().at(260, k=True, MemFree=200_000, nr_inactive_file=150_000)
    run = device.at(300, k=True, nr_inactive_file=100_000).run(tag, make, 400)
    flags = []
    for call in (run.at(280), run.at(380)):
        assert call.kills == [] and call.decision is not None
        flags.append(call.decision.evaluations[0].check_filecache)
    assert flags == [False, False]


@worked(25)
def critical_stall(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.stall_limit_critical": "30"}).at(10, ["exit", 1001], ["exit", 1002])
    device.at(150, k=True, MemFree=44000, psi=pressure(35.0)).at(250, k=True).at(350, k=True)
    run = device.run(tag, make, 410)
    if nothing_before_low_mem(tag, run.kills()):
        return
    assert [run.at(t).kills for t in (200, 300, 400)] == [[], [], [(8, 0, 1003)]]


@worked(26)
def pending_kill_skips_events(tag: str, make: MakePolicy) -> None:
    run = Device().event(150, k=True, MemFree=44000).event(200, k=True).run(tag, make, 210)
    call = run.at(200) if tag not in BEFORE_LOW_MEM else run.calls[-1]
    assert call.kills == []
    if tag not in BEFORE_LOW_MEM:
        assert call.update[:2] == PAUSED
        assert call.decision is not None and call.decision.ended_early == "pending kill"


@worked(27)
def kill_timeout(tag: str, make: MakePolicy) -> None:
    device = Device().event(150, k=True, MemFree=44000).event(200, k=True).event(260, k=True)
    run = device.run(tag, make, 270)
    if nothing_before_low_mem(tag, run.kills()):
        return
    # The main loop's own time-out at 250 polls first, sees the change of 200 and kills; 1001 is still there.
    assert run.at(150).kills == [(8, 701, 1001)]
    assert run.at(250).kills == [(8, 701, 1002)]
    assert run.at(260).kills == [] and run.at(260).update[:2] == PAUSED


@worked(28)
def stale_record_costs_a_call(tag: str, make: MakePolicy) -> None:
    device = Device().at(10, ["exit", 1001]).event(150, k=True, MemFree=44000).at(200, k=True)
    run = device.run(tag, make, 260)
    assert run.at(150).kills == [] and run.at(150).update == (1, -1, 100)
    assert run.at(250).kills == ([] if tag in BEFORE_LOW_MEM else [(8, 701, 1002)])


@worked(29)
def tiny_victim_is_not_enough(tag: str, make: MakePolicy) -> None:
    run = Device().with_process(1007, 960, 2).event(150, k=True, MemFree=44000).run(tag, make, 160)
    if nothing_before_low_mem(tag, run.kills()):
        return
    assert run.at(150).kills == [(8, 701, 1007), (8, 701, 1001)]
    assert "Attempt to wait for a kill while another wait is in progress" in run.at(150).logs


def poll_at(t_ms: int, **changes: Any) -> Device:
    """A poll at t that is the second examined call; an event without reclaim keeps the run going."""
    return Device().event(t_ms - 100).at(t_ms - 50, k=True, **changes)


@worked(30)
def carry_decays(tag: str, make: MakePolicy) -> None:
    run = poll_at(1500, MemFree=44000, R=160_000).run(tag, make, 1510)
    decision = run.at(1500).decision
    assert decision is not None and decision.evaluations[0].thrashing_pct == 40
    assert run.at(1500).kills == ([] if tag in BEFORE_LOW_MEM else [(8, 701, 1001)])


@worked(31)
def carry_above_the_limit_stays(tag: str, make: MakePolicy) -> None:
    run = poll_at(1500, MemFree=44000, R=240_000).run(tag, make, 1510)
    assert run.at(1500).kills == [(4, 201, 1001)]
    assert run.at(1500).text == "low watermark is breached and thrashing (120%)"


@worked(32)
def carry_of_two_windows(tag: str, make: MakePolicy) -> None:
    run = poll_at(2500, MemFree=44000, R=800_000).run(tag, make, 2510)
    decision = run.at(2500).decision
    assert decision is not None and decision.evaluations[0].thrashing_pct == 100
    assert run.at(2500).kills == ([] if tag in BEFORE_LOW_MEM else [(8, 701, 1001)])


@worked(33)
def carry_of_63_windows(tag: str, make: MakePolicy) -> None:
    call = Device().event(63_500, k=True, MemFree=44000, R=800_000).run(tag, make, 63_510).at(63_500)
    assert call.decision is not None and call.decision.evaluations[0].thrashing_pct == 0
    assert call.kills == ([] if tag in BEFORE_LOW_MEM else [(8, 701, 1001)])


@worked(34, (*ALL, "N1"))
def carry_of_64_windows(tag: str, make: MakePolicy) -> None:
    call = Device().event(64_500, k=True, MemFree=44000, R=800_000).run(tag, make, 64_510).at(64_500)
    assert call.decision is not None
    assert call.decision.evaluations[0].thrashing_pct == (0 if tag == "N1" else 400)
    assert call.kills == [(8, 701, 1001) if tag == "N1" else (4, 0, 1001)]


@worked(35)
def no_swap(tag: str, make: MakePolicy) -> None:
    device = Device(mi={"SwapTotal": 0, "SwapFree": 0}).at(150, k=True, MemFree=44000, R=300_000)
    assert device.run(tag, make, 210).at(200).kills == [(4, 201, 1001)]


@worked(36)
def cma_is_subtracted(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, k=True, MemFree=60000, CmaFree=20000).run(tag, make, 210)
    if nothing_before_low_mem(tag, run.kills()):
        return
    assert run.at(200).kills == [(8, 701, 1001)]
    assert run.at(200).text == "low watermark is breached"


@worked(37)
def heaviest_of_slot_200(tag: str, make: MakePolicy) -> None:
    device = Device().at(10, ["exit", 1001], ["exit", 1002], ["exit", 1003])
    device.at(150, k=True, SwapFree=100_000, MemFree=36000)
    device.at(205, k=True).at(215, k=True).at(225, k=True)
    run = device.run(tag, make, 231)
    for t_ms in (200, 210, 220):
        assert run.at(t_ms).kills == [] and run.at(t_ms).update == (1, -1, 10)
    assert run.at(230).kills == [(3, 0, 1005)]


@worked(38)
def only_pgrefill_changed(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, pgrefill=2001, MemFree=44000).run(tag, make, 210)
    assert run.at(200).kills == ([] if tag in BEFORE_LOW_MEM else [(8, 701, 1001)])


@worked(39)
def kills_that_fail(tag: str, make: MakePolicy) -> None:
    device = Device()
    for pid in (1001, 1002, 1003):
        device.process(pid, kerr=1)
    run = device.event(150, k=True, MemFree=44000).run(tag, make, 160)
    call = run.at(150)
    tried = [effect[2] for effect in call.effects if effect[0] == "kill"]
    assert tried == ([] if tag in BEFORE_LOW_MEM else [1001, 1002])
    assert call.kills == [] and call.update == (1, -1, 100)


@worked(40)
def after_kill_is_lost_by_a_bail_out(tag: str, make: MakePolicy) -> None:
    device = Device().process(1001, death=80_000).event(150, k=True, MemFree=44000)
    run = device.at(220, MemFree=36000).at(300, k=True).run(tag, make, 340)
    if nothing_before_low_mem(tag, run.kills()):
        return
    assert run.at(230).kills == [] and run.at(230).update == (1, -1, 100)
    assert run.at(330).kills == [(8, 701, 1002)]


@worked(41)
def low_swap_polls_fast(tag: str, make: MakePolicy) -> None:
    run = Device().event(150, k=True, SwapFree=100_000).at(165, d=True).run(tag, make, 3000)
    assert [run.at(t).update for t in (150, 160, 170)] == [(1, -1, 10)] * 3
    assert run.kills() == []
    assert run.times()[-1] == 170 + 1010  # the poll at 160 changed nothing, the one at 170 started a new run


@worked(42)
def carry_is_added_in_the_next_window(tag: str, make: MakePolicy) -> None:
    device = Device().at(150, k=True, R=180_000).event(650)
    device.at(1100, k=True, R=181_000).at(1200, k=True, R=182_000, MemFree=44000)
    run = device.run(tag, make, 1260)
    thrashing = []
    for t_ms in (200, 1150, 1250):
        decision = run.at(t_ms).decision
        assert decision is not None
        thrashing.append(decision.evaluations[0].thrashing_pct)
    assert thrashing == [90, 45, 45]
    if nothing_before_low_mem(tag, run.kills()):
        return
    assert run.at(1250).kills == [(8, 701, 1001)]
    (event,) = [e for e in run.at(1250).effects if e[0] == "evlog"]
    assert event[32:34] == (45, 90)


def low_ram() -> Device:
    """A low-RAM device whose per-app memcgs are off, so that registration is as elsewhere."""
    return Device(props={"ro.config.low_ram": "true", "ro.config.per_app_memcg": "false"})


def after_43() -> Device:
    device = low_ram().event(650).at(1100, k=True).process(1001, death=30_000)
    return device.at(1200, k=True, R=80_000, MemFree=44000)


@worked(43)
def low_ram_limits(tag: str, make: MakePolicy) -> None:
    call = after_43().run(tag, make, 1260).at(1250)
    assert call.kills == [(4, 201, 1001)]
    assert call.text == "low watermark is breached and thrashing (40%)"


@worked(44)
def low_ram_decay(tag: str, make: MakePolicy) -> None:
    device = after_43().at(1270, k=True, MemFree=200_000).at(1330, k=True, R=112_000, MemFree=44000)
    run = device.run(tag, make, 1390)
    quiet = run.at(1280)
    assert quiet.kills == [] and quiet.decision is not None
    assert quiet.decision.evaluations[0].thrashing_limit_pct == 15
    assert run.at(1380).kills == [(4, 201, 1002)]
    assert run.at(1380).text == "low watermark is breached and thrashing (16%)"


@worked(45)
def low_ram_critical(tag: str, make: MakePolicy) -> None:
    device = low_ram().only(1003, 1004, 1005, 1006).at(150, k=True, R=180_000, MemFree=44000)
    assert device.run(tag, make, 210).at(200).kills == [(4, 0, 1003)]


def first_call_at(uptime_ms: int) -> Device:
    """The first call ever at this uptime with a million refaults; direct reclaim before the poll after it."""
    offset = uptime_ms - 100_000
    vmstat = {"workingset_refault_file": 1_000_000, "pgscan_direct": 0}
    device = Device(vs=vmstat).event(offset, k=True).at(offset + 50, pgscan_direct=1)
    device.prime, device.start_ms = False, offset - 100
    return device


@worked(46, (*ALL, "N1"))
def first_call_ever(tag: str, make: MakePolicy) -> None:
    for uptime_ms, carry in ((70_500, 1_562_500), (12_500, 24_414)):
        offset = uptime_ms - 100_000
        run = first_call_at(uptime_ms).run(tag, make, offset + 110)
        assert run.at(offset).kills == []
        poll = run.at(offset + 100)
        if tag == "N1":
            assert poll.kills == []
            continue
        assert poll.kills == [(5, 0, 1001)]
        assert poll.text == f"device is in direct reclaim and thrashing ({carry}%)"


@worked(47)
def order_within_a_slot(tag: str, make: MakePolicy) -> None:
    device = Device().only().with_process(2001, 900, 9000, death=10_000)
    device.with_process(2002, 900, 9000, death=10_000).with_process(2003, 900, 9000)
    device.script["reg"].append([2001, 900, None])
    run = device.event(150, k=True, MemFree=44000).at(155, k=True).run(tag, make, 161)
    assert run.policy is not None
    if tag in BEFORE_LOW_MEM:
        assert [row.pid for row in run.policy.processes()] == [2001, 2003, 2002]
        assert run.kills() == []
        return
    assert [row.pid for row in run.policy.processes()] == [2001]
    assert [kill[2] for kill in run.kills()] == [2002, 2003]


@worked(48)
def heaviest_everywhere(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.kill_heaviest_task": "true"}).with_process(2001, 990, 36000)
    device.with_process(2002, 990, 36000).with_process(2003, 990, 28000)
    run = device.event(150, k=True, MemFree=44000).run(tag, make, 160)
    assert run.kills() == ([] if tag in BEFORE_LOW_MEM else [(8, 701, 2002)])


@worked(49)
def zombie_in_slot_200(tag: str, make: MakePolicy) -> None:
    device = Device().only(1004, 1006).process(1004, zombie=1, res=0)
    device.event(150, k=True, SwapFree=100_000, MemFree=36000).at(155, k=True)
    run = device.run(tag, make, 161)
    if tag == "16":
        assert run.at(150).kills == []
        assert run.at(160).kills == [(3, 0, 1006)]
        return
    assert run.at(150).kills == [(3, 0, 1006)]
    assert run.policy is not None and [row.pid for row in run.policy.processes()] == [1004]


@worked(50)
def without_pidfds(tag: str, make: MakePolicy) -> None:
    device = Device(cfg={"pidfd": 0}).event(150, k=True, MemFree=44000)
    run = device.at(155, k=True).at(165, ["exit", 1001], k=True).run(tag, make, 171)
    if nothing_before_low_mem(tag, run.kills()):
        return
    assert run.at(150).kills == [(8, 701, 1001)] and run.at(150).update == (1, -1, 10)
    assert run.at(160).kills == [] and run.at(160).update == (1, -1, 10)
    assert run.at(170).kills == [(8, 701, 1002)]
