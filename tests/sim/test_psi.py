"""PSI: weights, triggers and averages by the kernel's rules."""

from __future__ import annotations

import itertools

import pytest

from lmk.sim.psi import EINVAL, JIFFY_NS, Psi
from lmk.units import NS_PER_MS, NS_PER_S

MS = NS_PER_MS


def spans(*, stall: int = 0, busy: int = 0) -> tuple[int, int, int, int, int, int]:
    return (stall, stall, 0, 0, 0, busy)


class Recorder:
    def __init__(self) -> None:
        self.fired: list[int] = []

    def __call__(self, level: int) -> None:
        self.fired.append(level)


def drive(psi: Psi, until_ms: int, stall_of_10ms: int, start_ms: int = 0) -> list[int]:
    """CPU 0 is busy and stalls for so much of every 10 ms; returns when the triggers fired, in ms."""
    moments: list[int] = []
    fired = Recorder()
    psi._fire = fired
    for now in range(start_ms + 10, until_ms + 1, 10):
        psi.account(0, spans(stall=stall_of_10ms * MS, busy=10 * MS), now * MS)
        while psi.poll_at_ns is not None and psi.poll_at_ns <= now * MS:
            psi.poll(psi.poll_at_ns)
            moments += [now] * len(fired.fired)
            fired.fired.clear()
    return moments


def test_idle_cpus_do_not_dilute_and_busy_ones_do() -> None:
    psi = Psi(4, lambda _: None)
    psi.account(0, spans(stall=100 * MS, busy=100 * MS), 100 * MS)
    assert psi.memory_totals_us(100 * MS) == (100_000, 100_000)
    psi.account(0, spans(stall=100 * MS, busy=100 * MS), 200 * MS)
    psi.account(1, spans(busy=100 * MS), 200 * MS)
    # collect_percpu_times: (100 ms * 25 jiffies + 0 * 25) / 50 on top of the first
    assert psi.memory_totals_us(200 * MS) == (150_000, 150_000)


def test_what_else_runs_dilutes_stalls_and_is_never_stalled_itself() -> None:
    psi = Psi(2, lambda _: None, base_permille=100)
    psi.account(0, spans(stall=1000 * MS, busy=1000 * MS), 1000 * MS)
    # 250 jiffies on the one CPU, 25 of somebody else on the other; a tenth of the stall is not full
    assert psi.memory_totals_us(1000 * MS) == (1_000_000 * 250 // 275, 900_000 * 250 // 275)


def test_a_trigger_fires_once_per_window_while_stalls_go_on() -> None:
    psi = Psi(1, lambda _: None)
    assert psi.arm(1, "some 70000 1000000\0", 0) == 0
    moments = drive(psi, 9000, stall_of_10ms=5, start_ms=5000)
    assert 5100 <= moments[0] <= 5300
    assert len(moments) in (4, 5)
    assert all(later - sooner >= 1000 for sooner, later in itertools.pairwise(moments))


def test_of_triggers_that_fire_at_once_the_newest_is_told_first() -> None:
    fired = Recorder()
    psi = Psi(1, fired)
    for level, text in enumerate(("some 50000 1000000", "some 70000 1000000", "full 70000 1000000")):
        assert psi.arm(level, text, 0) == 0
    for now in range(5010, 5400, 10):
        psi.account(0, spans(stall=10 * MS, busy=10 * MS), now * MS)
        while psi.poll_at_ns is not None and psi.poll_at_ns <= now * MS:
            psi.poll(psi.poll_at_ns)
    assert fired.fired == [2, 1, 0]


def test_stalls_below_the_threshold_never_fire() -> None:
    psi = Psi(1, lambda _: None)
    psi.arm(2, "full 700000 1000000\0", 0)
    assert drive(psi, 5000, stall_of_10ms=6) == []
    assert drive(psi, 8000, stall_of_10ms=9, start_ms=5000) != []


def next_poll(psi: Psi) -> int | None:
    return psi.poll_at_ns


def test_the_worker_sleeps_when_nothing_stalls() -> None:
    psi = Psi(1, lambda _: None)
    psi.arm(1, "some 70000 1000000\0", 0)
    psi.account(0, spans(busy=10 * MS), 10 * MS)
    assert next_poll(psi) is None
    psi.account(0, spans(stall=MS, busy=10 * MS), 20 * MS)
    assert next_poll(psi) == 20 * MS + JIFFY_NS
    last_ns = 0
    while (at_ns := next_poll(psi)) is not None:
        psi.poll(at_ns)
        last_ns = at_ns
    assert last_ns < 2 * NS_PER_S


@pytest.mark.parametrize(
    "text",
    ["", "some", "some 70000", "any 70000 1000000", "some 0 1000000", "some 2000000 1000000", "full 70000 20000000"],
)
def test_bad_triggers_are_refused_as_the_kernel_does(text: str) -> None:
    assert Psi(1, lambda _: None).arm(1, text, 0) == EINVAL


def test_averages_rise_to_the_share_and_decay_after_it() -> None:
    psi = Psi(1, lambda _: None)
    drive(psi, 60_000, stall_of_10ms=4)
    pressure = psi.pressure("memory", 60_000 * MS)
    assert 39.0 <= pressure.some.avg10_pct <= 40.5
    assert 24.0 <= pressure.some.avg60_pct <= 27.0
    assert pressure.some.total_us == pytest.approx(24_000_000, rel=0.01)
    later = psi.pressure("memory", 90_000 * MS)
    assert later.some.avg10_pct < 3.0 < later.some.avg60_pct
    assert later.some.total_us == pressure.some.total_us
