"""systemd-oomd: its two limits, just above and just below, and which group dies, on scripted answers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from lmk.policy.api import (
    FileError,
    Kill,
    Killed,
    ListGroups,
    ReadFile,
    ReadProcess,
    Request,
    StartReaper,
    Wait,
    Wakeup,
)
from lmk.policy.decision import Decision
from lmk.policy.systemd_oomd import CGROUP_ROOT, Settings, SystemdOomdPolicy
from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure, Stall
from lmk.units import NS_PER_MS

KIB = 1024
TOTAL_KIB = 1_000_000


class World:
    def __init__(self, *, used_pct: int = 50, swap_pct: int = 50, full: float = 0.0) -> None:
        self.used_pct, self.swap_pct, self.full = used_pct, swap_pct, full
        self.tree = {"": ("/apps", "/system"), "/apps": ("/apps/a", "/apps/b"), "/system": ()}
        self.swap_kib = {"/apps/a": 300_000, "/apps/b": 400_000, "/system": 40_000}
        self.scan = {"/apps": 30, "/apps/a": 20, "/apps/b": 10, "/system": 0}
        self.current_kib: dict[str, int] = {}
        self.procs = {"/apps/a": "101\n102\n", "/apps/b": "201\n", "/system": "1\n"}
        self.scanned: dict[str, int] = dict.fromkeys(self.scan, 1000)
        self.killed: list[tuple[int, int]] = []
        self.decisions: list[Decision] = []
        self.now_ns = 0

    def file(self, path: str) -> Any:
        if path == "/proc/meminfo":
            used = TOTAL_KIB * self.swap_pct // 100
            available = TOTAL_KIB - TOTAL_KIB * self.used_pct // 100
            return Meminfo(
                kib={
                    "MemTotal": TOTAL_KIB,
                    "MemAvailable": available,
                    "SwapTotal": TOTAL_KIB,
                    "SwapFree": TOTAL_KIB - used,
                }
            )
        group, _, name = path.removeprefix(CGROUP_ROOT).rpartition("/")
        if name == "memory.pressure":
            stall = Stall(avg10_pct=self.full, avg60_pct=0.0, avg300_pct=0.0, total_us=0)
            return Pressure(some=stall, full=stall)
        if name == "memory.stat":
            self.scanned[group] += self.scan[group]
            return f"anon 1\npgscan {self.scanned[group]}\nx 2\n"
        if name == "memory.swap.current":
            return f"{self.swap_kib[group] * KIB}\n"
        if name == "memory.current":
            return f"{self.current_kib.get(group, 1) * KIB}\n"
        return self.procs.get(group, FileError("open", 2))

    def answer(self, request: Request) -> Any:
        match request:
            case ReadFile(path):
                return self.file(path)
            case ListGroups(group):
                return self.tree.get(group, ())
            case ReadProcess() | StartReaper():
                return "text"
            case Kill(pid):
                self.killed.append((pid, self.now_ns // NS_PER_MS))
                return Killed(0)
            case Decision():
                self.decisions.append(request)
                return None
            case Wait(timeout_ms):
                assert timeout_ms
                self.now_ns += timeout_ms * NS_PER_MS
                return Wakeup()
        raise AssertionError(request)

    def run(self, until_ms: int, settings: Settings | None = None) -> list[int]:
        policy = SystemdOomdPolicy(settings or Settings())
        request = policy.start(0)
        while self.now_ns < until_ms * NS_PER_MS:
            request = policy.step(self.answer(request), self.now_ns)
        return [pid for pid, _ in self.killed]


def test_memory_and_swap_must_both_be_used_up() -> None:
    assert World(used_pct=91, swap_pct=90).run(2_000) == []
    assert World(used_pct=90, swap_pct=91).run(2_000) == []
    assert World(used_pct=91, swap_pct=91).run(100) == [201]


def test_small_users_of_swap_are_spared() -> None:
    world = World(used_pct=95, swap_pct=95)
    # more than a twentieth of what is used, but not of what there is
    world.swap_kib = {"/apps/a": 40_000, "/apps/b": 49_000, "/system": 30_000}
    assert world.run(2_000) == []
    world.swap_kib["/apps/b"] = 51_000
    assert world.run(4_000)[0] == 201


def test_pressure_must_last_and_the_group_that_is_scanned_most_dies_whole() -> None:
    world = World(full=61.0)
    assert world.run(29_000) == []
    world = World(full=61.0)
    assert world.run(35_000) == [101, 102]
    assert 30_000 <= world.killed[0][1] <= 32_000
    assert "61.00 % > 60 %" in world.decisions[0].reason_text


def test_pressure_at_the_limit_or_without_reclaim_kills_nobody() -> None:
    assert World(full=60.0).run(60_000) == []
    world = World(full=90.0)
    world.scan = dict.fromkeys(world.scan, 0)
    assert world.run(60_000) == []


def test_after_a_kill_it_waits() -> None:
    world = World(full=80.0)
    world.run(100_000)
    times = sorted({t for _, t in world.killed})
    # The limit has been exceeded all the while, so the pause is all there is.
    assert len(times) >= 3
    assert all(15_000 <= later - earlier <= 17_000 for earlier, later in pairwise(times))


def test_of_two_that_are_scanned_alike_the_larger_one_dies() -> None:
    world = World(full=80.0)
    world.scan = dict.fromkeys(world.scan, 10)
    world.current_kib = {"/apps/a": 5, "/apps/b": 6}
    assert world.run(35_000) == [201]


def test_settings() -> None:
    quick = Settings(swap_used_limit_pct=60, pressure_limit_pct=20, pressure_duration_s=2)
    assert World(used_pct=61, swap_pct=61).run(100, quick) == [201]
    assert World(full=21.0).run(4_000, quick) == [101, 102]
