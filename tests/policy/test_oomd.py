"""oomd: its JSON, its detectors with their durations, and whom its actions choose, on scripted cgroups."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmk.errors import ConfigError
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
from lmk.policy.oomd import OomdPolicy, parse_config
from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure, Stall
from lmk.units import MIB, NS_PER_MS

ROOT = "/sys/fs/cgroup"


def config(detectors: list[dict[str, Any]], actions: list[dict[str, Any]], **more: Any) -> str:
    ruleset = {"name": "r", "detectors": [["g", *detectors]], "actions": actions, **more}
    return json.dumps({"rulesets": [ruleset]})


def plugin(name: str, **args: str) -> dict[str, Any]:
    return {"name": name, "args": args}


class World:
    def __init__(self, *, full: float = 0.0, swap_free_pct: int = 50) -> None:
        self.full, self.swap_free_pct = full, swap_free_pct
        self.size_mib = {"/apps/a": 100, "/apps/b": 200, "/apps/c": 150, "/system/s": 900}
        self.swap_mib = {"/apps/a": 300, "/apps/b": 10, "/apps/c": 20, "/system/s": 0}
        self.scan = dict.fromkeys(self.size_mib, 0)
        self.scanned = dict.fromkeys(self.size_mib, 0)
        self.pid = {"/apps/a": 1, "/apps/b": 2, "/apps/c": 3, "/system/s": 4}
        self.killed: list[tuple[int, int]] = []
        self.now_ns = 0

    def answer(self, request: Request) -> Any:
        match request:
            case ReadFile("/proc/meminfo"):
                return Meminfo(kib={"MemTotal": 2_000_000})
            case ReadFile("/proc/swaps"):
                used = 1000 - 1000 * self.swap_free_pct // 100
                return f"Filename Type Size Used Priority\n/dev/zram0 partition 1000 {used} -2\n"
            case ReadFile(path):
                return self.file(*path.removeprefix(ROOT).rsplit("/", 1))
            case ListGroups(group):
                if not group:
                    return ("/apps", "/system")
                return tuple(path for path in self.size_mib if path.rsplit("/", 1)[0] == group)
            case StartReaper() | ReadProcess():
                return "text"
            case Kill(pid):
                self.killed.append((pid, self.now_ns // NS_PER_MS))
                return Killed(0)
            case Decision():
                return None
            case Wait(timeout_ms):
                assert timeout_ms
                self.now_ns += timeout_ms * NS_PER_MS
                return Wakeup()
        raise AssertionError(request)

    def file(self, group: str, name: str) -> Any:
        members = [path for path in self.size_mib if path == group or path.startswith(group + "/")]
        if name == "memory.pressure":
            stall = Stall(avg10_pct=self.full, avg60_pct=self.full, avg300_pct=0.0, total_us=0)
            return Pressure(some=stall, full=stall)
        if name == "memory.current":
            return f"{sum(self.size_mib[path] for path in members) * MIB}\n"
        if name == "memory.swap.current":
            return f"{sum(self.swap_mib[path] for path in members) * MIB}\n"
        if name == "memory.stat":
            for path in members:
                self.scanned[path] += self.scan[path]
            return f"anon 0\npgscan {sum(self.scanned[path] for path in members)}\n"
        return f"{self.pid[group]}\n" if group in self.pid else FileError("open", 2)

    def run(self, text: str, until_ms: int) -> list[int]:
        policy = OomdPolicy(text)
        request = policy.start(0)
        while self.now_ns < until_ms * NS_PER_MS:
            request = policy.step(self.answer(request), self.now_ns)
        return [pid for pid, _ in self.killed]


PRESSURE = plugin("pressure_above", cgroup="apps", resource="memory", threshold="60", duration="10")


def test_pressure_must_be_above_for_its_duration() -> None:
    text = config([PRESSURE], [plugin("kill_by_swap_usage", cgroup="apps/*")])
    assert World(full=60.0).run(text, 60_000) == []
    assert World(full=60.5).run(text, 9_000) == []
    assert World(full=60.5).run(text, 12_000) == [1]


def test_every_detector_of_a_group_must_fire() -> None:
    detectors = [PRESSURE, plugin("memory_reclaim", cgroup="apps", duration="10")]
    text = config(detectors, [plugin("kill_by_pg_scan", cgroup="apps/*")])
    assert World(full=90.0).run(text, 60_000) == []
    world = World(full=90.0)
    world.scan["/apps/c"] = 7
    assert world.run(text, 16_000)[0] == 3


def test_after_an_action_a_ruleset_rests() -> None:
    text = config([PRESSURE], [plugin("kill_by_swap_usage", cgroup="apps/*")], post_action_delay="20")
    world = World(full=90.0)
    world.run(text, 45_000)
    times = [t for _, t in world.killed]
    assert len(times) == 2
    assert times[1] - times[0] >= 20_000


@pytest.mark.parametrize(("free", "dies"), [(10, []), (9, [1])])
def test_swap_free_is_strict(free: int, dies: list[int]) -> None:
    text = config([plugin("swap_free", threshold_pct="10")], [plugin("kill_by_swap_usage", cgroup="apps/*")])
    assert World(swap_free_pct=free).run(text, 4_000) == dies


def test_size_or_growth_prefers_the_dominant_then_the_growing_then_the_large() -> None:
    text = config([plugin("exists", cgroup="apps/a")], [plugin("kill_by_memory_size_or_growth", cgroup="apps/*")])
    assert World().run(text, 4_000) == [2]
    dominant = World()
    dominant.size_mib["/apps/c"] = 600
    assert dominant.run(text, 4_000) == [3]


def test_memory_above_takes_percent_and_megabytes() -> None:
    for threshold, dies in (("40M", [1]), ("450", []), ("449", [1]), ("90%", [])):
        detector = plugin("memory_above", cgroup="apps", threshold=threshold)
        text = config([detector], [plugin("kill_by_swap_usage", cgroup="apps/*", threshold="100M")])
        assert World().run(text, 4_000) == dies, threshold


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("{}", "rulesets"),
        (config([plugin("no_such")], [plugin("continue")]), "not implemented"),
        (config([plugin("pressure_above", resource="io")], [plugin("continue")]), "'io'"),
        (config([PRESSURE], []), "needs detectors and actions"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(text)


def test_comments_are_allowed_as_the_program_allows_them() -> None:
    text = config([PRESSURE], [plugin("kill_by_swap_usage", cgroup="apps/*")])
    commented = "// a comment\n" + text.replace('"actions"', '/* of "two"\n lines */ "actions"')
    assert parse_config(commented) == parse_config(text)
    assert parse_config(text.replace('"r"', '"http://r"'))[0].name == "http://r"
