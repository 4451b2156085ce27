"""earlyoom: its percentages, its sleep, whom it chooses and how it kills, on scripted answers."""

from __future__ import annotations

from typing import Any

import pytest

from lmk.policy.api import (
    SIGKILL,
    FileError,
    Kill,
    Killed,
    ListProcesses,
    ReadFile,
    ReadProcess,
    Request,
    StartReaper,
    Wait,
    Wakeup,
)
from lmk.policy.decision import Decision
from lmk.policy.earlyoom import SIGTERM, EarlyoomPolicy, Limits, headroom
from lmk.procfs.meminfo import Meminfo
from lmk.units import NS_PER_MS

GIB_KIB = 1 << 20


def meminfo(available_pct: int, swap_pct: int, *, swap: bool = True) -> Meminfo:
    total = 2 * GIB_KIB
    available = total * available_pct // 100
    return Meminfo(
        kib={
            "MemTotal": total + 100_000,
            "MemAvailable": available,
            "AnonPages": total - available,
            "SwapTotal": GIB_KIB if swap else 0,
            "SwapFree": GIB_KIB * swap_pct // 100 if swap else 0,
        }
    )


@pytest.mark.parametrize(
    ("available", "swap", "signal"),
    [(11, 5, 0), (5, 11, 0), (10, 10, SIGTERM), (6, 9, SIGTERM), (5, 5, SIGKILL), (1, 6, SIGTERM), (0, 0, SIGKILL)],
)
def test_both_must_be_low(available: int, swap: int, signal: int) -> None:
    assert headroom(meminfo(available, swap)).signal == signal


def test_without_swap_memory_decides_alone() -> None:
    assert headroom(meminfo(9, 0, swap=False)).signal == SIGTERM
    assert headroom(meminfo(50, 0, swap=False)).signal == 0


def test_it_sleeps_the_longer_the_more_headroom_there_is() -> None:
    sleeps = [headroom(meminfo(available, available)).sleep_ms for available in (11, 30, 60, 100)]
    assert sleeps == sorted(sleeps)
    assert sleeps[0] == 100
    # 90 % of 2 GiB at 6000 KiB/ms and of 1 GiB at 800 KiB/ms are over a second
    assert sleeps[-1] == 1000


class World:
    """Three processes: one unkillable, one large, one larger by oom_score."""

    def __init__(self, info: Meminfo) -> None:
        self.info = info
        self.scores = {10: (900, -1000, 500), 11: (400, 0, 9000), 12: (700, 900, 3000)}
        self.flags: dict[int, int] = {}
        self.killed: list[tuple[int, int]] = []
        self.decisions: list[Decision] = []
        self.after_search: Meminfo | None = None
        self.now_ns = 0

    def answer(self, request: Request) -> Any:
        match request:
            case StartReaper():
                return True
            case ReadFile():
                return self.info
            case ListProcesses():
                if self.after_search is not None:
                    self.info = self.after_search
                return tuple(self.scores)
            case ReadProcess(pid, file):
                if pid not in self.scores:
                    return FileError("open", 2)
                score, adj, rss = self.scores[pid]
                stat = f"{pid} (a) b) S 1 {pid} {pid} 0 -1 {self.flags.get(pid, 0)}" + " 0" * 14 + f" {rss} 0\n"
                return {"oom_score": f"{score}\n", "oom_score_adj": f"{adj}\n", "stat": stat}.get(file, "text")
            case Kill(pid):
                self.killed.append((pid, request.signal))
                return Killed(0)
            case Decision():
                self.decisions.append(request)
                return None
            case Wait(timeout_ms):
                assert timeout_ms
                self.now_ns += timeout_ms * NS_PER_MS
                return Wakeup()
        raise AssertionError(request)

    def run(self, until_ms: int, limits: Limits | None = None) -> None:
        policy = EarlyoomPolicy(limits or Limits())
        request = policy.start(self.now_ns)
        while self.now_ns < until_ms * NS_PER_MS:
            request = policy.step(self.answer(request), self.now_ns)


def test_the_highest_oom_score_that_may_die_is_terminated() -> None:
    world = World(meminfo(8, 8))
    world.run(1)
    assert world.killed == [(12, SIGTERM)]
    assert world.decisions[0].killed_pids == (12,)
    assert "8.00 %" in world.decisions[0].reason_text


def test_a_victim_that_goes_is_waited_for_and_not_more() -> None:
    world = World(meminfo(8, 8))
    world.run(500)
    assert world.killed == [(12, SIGTERM)]
    del world.scores[12]
    world.killed.clear()
    world.run(world.now_ns // NS_PER_MS + 1)
    assert world.killed == [(11, SIGTERM)]


def test_a_victim_that_stays_is_killed_once_memory_is_lower() -> None:
    world = World(meminfo(4, 4))
    world.run(1)
    assert world.killed == [(12, SIGKILL)]


def test_nobody_dies_while_there_is_memory() -> None:
    world = World(meminfo(40, 2))
    world.run(20_000)
    assert world.killed == []


def test_kernel_threads_and_init_are_never_chosen() -> None:
    world = World(meminfo(8, 8))
    world.scores[1] = (1300, 0, 9000)
    world.scores[40] = (1200, 0, 9000)
    world.flags[40] = 0x208040
    world.run(1)
    assert world.killed == [(12, SIGTERM)]


def test_it_lets_go_when_memory_came_back_during_the_search() -> None:
    world = World(meminfo(8, 8))
    world.after_search = meminfo(8, 20)
    world.run(5_000)
    assert world.killed == []


def test_other_limits() -> None:
    world = World(meminfo(8, 8))
    world.run(1, Limits(memory_term_pct=7, memory_kill_pct=3))
    assert world.killed == []
    world.run(2000, Limits(memory_kill_pct=9, swap_kill_pct=9))
    assert world.killed[0] == (12, SIGKILL)
