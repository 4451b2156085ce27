"""Kill, reap and exit: what is freed, by whom, how fast, and what stays."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lmk.policy.api import ExitEvent, Kill, Killed, OpenPidfd, ReadProcess, UnwatchExit, Wait, Wakeup
from lmk.sim.zone import MIN, PAGE_KIB
from lmk.units import NS_PER_MS
from tests.sim.device import Device, config, published

OPEN_BIG = "steps:\n  - launch: big\n  - wait: 20s\n"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path, OPEN_BIG)
    device.until_ms(8_000)
    return device


def test_a_reaped_victim_gives_its_anonymous_memory_back_and_leaves_its_files_cached(device: Device) -> None:
    victim = device.living("big")
    anon, file, free = victim.anon_pages, victim.file_pages, device.memory.zones.free
    assert anon * PAGE_KIB == 200 * 1024
    assert (file - victim.text_pages) * PAGE_KIB == 40 * 1024
    assert victim.text_pages > 0
    handle = device.kill("big")
    device.until_ms(8_500)
    assert victim.dead
    assert device.exits()[0] == handle
    # what the process cost the kernel comes back as well, and home takes a little to show itself
    assert anon - 200 <= device.memory.zones.free - free <= anon + 200
    outcome = device.listener.outcomes[victim.pid]
    assert outcome["freed_kib"] == anon * PAGE_KIB
    assert outcome["reap_errno"] == 0
    assert 0 < outcome["signal_to_reaped_us"] < outcome["signal_to_exit_us"]
    assert [event.pid for event in device.reaped()] == [victim.pid]


def test_a_reaper_makes_it_faster(tmp_path: Path, device: Device) -> None:
    alone = Device(tmp_path, OPEN_BIG)
    alone.until_ms(8_000)
    device.kill("big", queue=True)
    alone.kill("big", queue=False)
    device.until_ms(9_000)
    alone.until_ms(9_000)
    (quick,), (slow,) = device.listener.outcomes.values(), alone.listener.outcomes.values()
    assert quick["signal_to_exit_us"] < slow["signal_to_exit_us"]
    assert slow["reap_method"] == "none"
    assert "signal_to_reaped_us" not in slow


def test_rates_are_the_calibrations(tmp_path: Path) -> None:
    calibration = published(exit_ns=1000, exit_base_us=3000, death_us=100)
    device = Device(tmp_path, OPEN_BIG, calibration=calibration)
    device.until_ms(8_000)
    pages = device.living("big").rss_pages
    device.kill("big", queue=False)
    device.until_ms(9_000)
    (outcome,) = device.listener.outcomes.values()
    assert outcome["signal_to_exit_us"] == pytest.approx(pages + 3000 + 100, rel=0.02)


def test_swapped_pages_take_time_to_free_too(tmp_path: Path) -> None:
    spans = []
    for swap_free_ns in (100, 5000):
        device = Device(tmp_path, OPEN_BIG, calibration=published(swap_free_ns=swap_free_ns))
        device.until_ms(8_000)
        victim = device.living("big")
        for region in victim.anon_regions:
            device.memory.page_out(region, region.resident, device.target.now_ns())
        assert victim.swap_pages * PAGE_KIB == 200 * 1024
        device.kill("big")
        device.until_ms(9_000)
        spans.append(device.listener.outcomes[victim.pid]["signal_to_reaped_us"])
        assert device.memory.zram is not None
        assert device.memory.zram.used == 0
    assert spans[1] > 10 * spans[0]


def test_more_kills_than_threads_go_without_a_reaper(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        "steps:\n  - launch: big\n  - wait: 4s\n  - launch: other\n  - wait: 4s\n  - launch: third\n  - wait: 9s\n",
    )
    device.until_ms(12_000)
    for name in ("big", "other", "third"):
        device.kill(name)
    device.until_ms(14_000)
    methods = [outcome["reap_method"] for outcome in device.listener.outcomes.values()]
    assert methods == ["simulated", "simulated", "none"]


def test_an_exit_is_told_until_nobody_watches(device: Device) -> None:
    handle = device.kill("big")
    device.until_ms(9_000)
    assert device.exits() == [handle]
    other = device.kill("launcher")
    told: list[ExitEvent] = []
    while device.target.now_ns() < (device.listener.zero_ns or 0) + 9_500 * NS_PER_MS and len(told) < 3:
        answer = device.target.answer(Wait(100))
        assert isinstance(answer, Wakeup)
        told += [event for event in answer.events if isinstance(event, ExitEvent)]
    assert [event.handle for event in told] == [other] * 3
    device.target.answer(UnwatchExit(other))
    assert device.target.answer(Wait(1)) == Wakeup(())


def test_a_pidfd_outlives_its_process(device: Device) -> None:
    pid = device.living("big").pid
    handle = device.kill("big")
    device.until_ms(9_000)
    assert device.target.answer(Kill(pid, handle, False)) == Killed(errno.ESRCH)
    assert device.target.answer(Kill(pid, None, False)) == Killed(errno.ESRCH)
    assert getattr(device.target.answer(OpenPidfd(pid)), "errno") == errno.ESRCH  # noqa: B009
    assert not isinstance(device.target.answer(ReadProcess(pid, "status")), str)


def test_the_oom_killer_takes_the_worst_and_spares_the_unkillable(tmp_path: Path) -> None:
    apps_total = (
        "steps:\n  - launch: other\n  - wait: 3s\n  - launch: big\n  - grow: big\n    size: 6GiB\n  - wait: 60s\n"
    )
    device = Device(tmp_path, apps_total, device=config(zram=None))
    device.until_ms(40_000)
    assert "big" in device.listener.oom
    assert not {"surfaceflinger", "native_daemons", "unreclaimable"} & set(device.listener.oom)
    assert device.memory.events.oom_kill == len(device.listener.oom)


def test_the_oom_killer_waits_for_the_worst_if_that_is_dying_already(tmp_path: Path) -> None:
    device = Device(tmp_path, OPEN_BIG, calibration=published(death_us=50_000))
    device.until_ms(8_000)
    big = device.living("big")
    big.adj = 900
    device.kill("big", queue=False)
    device.until_ms(8_010)
    assert big.killed
    assert device.target.machine.out_of_memory()
    assert device.listener.oom == []
    assert device.memory.events.oom_kill == 0
    # Once that is in exit_mm it is nobody's candidate, and there is a victim still: none is taken beside it.
    device.until_ms(8_051)
    assert device.target.machine.out_of_memory()
    assert device.listener.oom == []
    device.until_ms(9_000)
    assert big.dead
    assert device.target.machine.out_of_memory()
    assert device.listener.oom != []


def test_only_one_allocations_failures_in_a_row_call_the_oom_killer(device: Device) -> None:
    machine, big = device.target.machine, device.living("big")
    calls: list[int] = []

    def oom() -> bool:
        calls.append(machine.now_ns)
        return True

    machine.oom = oom
    machine.direct_reclaim = lambda want, budget_ns: (0, 1)  # type: ignore[method-assign]
    zones = device.memory.zones
    for _ in range(40):
        taken = zones.room(MIN)
        zones.take(taken)
        big.write(big.grown[0] if big.grown else big.cold, 1)
        big.run(machine, NS_PER_MS)
        zones.give(taken)
        # One failure, then it gets its page.
        big.run(machine, NS_PER_MS)
    assert big.written_pages > 0
    assert calls == []
    zones.take(zones.room(MIN))
    big.write(big.cold, 1)
    for _ in range(20):
        big.run(machine, 10 * NS_PER_MS)
    assert calls


def test_oom_score_is_the_kernels(device: Device) -> None:
    process = device.living("big")
    total = device.memory.zones.managed + (device.memory.zram.slots if device.memory.zram else 0)
    assert process.adj == 0
    expected = (1000 + process.rss_pages * 1000 // total) * 2 // 3
    assert device.target.answer(ReadProcess(process.pid, "oom_score")) == f"{expected}\n"


def test_a_process_that_is_swapped_out_whole_still_has_its_text(device: Device) -> None:
    """lmkd reads VmRSS of its victim, and kills another one where that is nothing."""
    victim = device.living("big")
    memory = device.memory
    for region in (*victim.anon_regions, victim.hot_file, victim.cold_file):
        memory.page_out(region, region.resident, device.target.machine.now_ns)
    assert victim.anon_pages == 0 and victim.rss_pages == victim.text_pages > 0
