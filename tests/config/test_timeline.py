"""Timelines: the same for the same seed, within their bounds, and readable by the runner."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.device import load_device_config
from lmk.config.find import find_config, find_scenario, shipped_configs, shipped_scenarios
from lmk.config.scenario import Scenario, load_scenario
from lmk.config.timeline import JITTER_MS, PlannedProcess, Timeline, compile_timeline, jittered, timeline_text
from lmk.errors import ConfigError
from tests.config.helpers import write

MIB = 1 << 20
SEEDS = st.integers(0, 2**63 - 1)


@attrs.frozen(kw_only=True)
class Process:
    name: str = "system_server"
    adj: int = -900
    anon_bytes: int = 180 * MIB
    file_bytes: int = 120 * MIB
    hot: float = 0.6
    compressibility: float = 2.5


@attrs.frozen(kw_only=True)
class Phone:
    memory_bytes: int = 2048 * MIB
    android: str = "14Q2"
    system: tuple[Process, ...] = (Process(), Process(name="surfaceflinger", adj=-1000))
    unreclaimable_bytes: int = 150 * MIB


SCENARIO = """\
name: evening
seed: 3
apps:
  home: {role: home, anon: 40MiB}
  sync: {role: service, anon: 20MiB, growth: 10%/min}
  camera: {process: com.example.camera, anon: 12.5%, file: 140MiB, hot: 0.3, cold_start: 900ms}
  chat: {anon: 64MiB, compressibility: same-filled, background: perceptible}
"""
STEPS = """\
steps:
  - launch: sync
  - launch: camera
  - wait: 5s
  - grow: camera
    size: 10%
    over: 2s
  - repeat: 2
    steps:
      - launch: chat
      - wait: 1s
  - background: chat
  - leak: sync
    rate: 1%/s
    limit: 300MiB
  - touch: camera
    anon: 0.5
    times: 3
  - exit: sync
  - wait: 2s
"""
GENERATED = "generate: {duration: 120s, stay: {min: 1s, max: 4s}, grow: 0.3, touch: 0.2, home: 0.4}\n"


@pytest.fixture
def generated(tmp_path: Path) -> Scenario:
    return load_scenario(write(tmp_path, SCENARIO + STEPS + GENERATED))


def by_name(timeline: Timeline, name: str) -> PlannedProcess:
    return next(process for process in timeline.processes if process.name == name)


def test_steps_get_absolute_times(tmp_path: Path) -> None:
    timeline = compile_timeline(load_scenario(write(tmp_path, SCENARIO + STEPS)), Phone())
    names = [process.name for process in timeline.processes]
    assert [(step.t_ms, step.action, names[step.process]) for step in timeline.steps] == [
        (0, "launch", "sync"),
        (0, "launch", "camera"),
        (5000, "grow", "camera"),
        (5000, "launch", "chat"),
        (6000, "launch", "chat"),
        (7000, "background", "chat"),
        (7000, "leak", "sync"),
        (7000, "touch", "camera"),
        (7000, "exit", "sync"),
    ]
    assert timeline.duration_ms == 9000
    assert timeline.launches == 3
    grow, leak, touch = timeline.steps[2], timeline.steps[6], timeline.steps[7]
    assert (grow.kib, grow.over_ms) == (2048 * 1024 // 10, 2000)
    assert (leak.kib_per_s, leak.kib) == (2048 * 1024 // 100, 300 * 1024)
    assert (touch.anon_permille, touch.file_permille, touch.times) == (500, 1000, 3)


def test_processes_of_device_and_scenario(tmp_path: Path) -> None:
    timeline = compile_timeline(load_scenario(write(tmp_path, SCENARIO + STEPS)), Phone())
    assert [process.id for process in timeline.processes] == list(range(7))
    server = by_name(timeline, "system_server")
    assert (server.role, server.adj, server.uid, server.anon_kib) == ("fixed", -900, 1000, 180 * 1024)
    ballast = by_name(timeline, "unreclaimable")
    assert (ballast.locked, ballast.anon_kib, ballast.file_kib) == (True, 150 * 1024, 0)
    camera = by_name(timeline, "camera")
    assert (camera.process_name, camera.anon_kib, camera.hot_permille) == ("com.example.camera", 256 * 1024, 300)
    assert all(process.uid >= 10000 for process in timeline.processes if process.role != "fixed")
    assert by_name(timeline, "sync").growth_kib_per_min == 2048 * 1024 // 10
    assert by_name(timeline, "chat").ratio_permille == 0
    started = {process.name for process in timeline.processes if process.autostart}
    assert started == {"system_server", "surfaceflinger", "unreclaimable", "home"}
    assert len(timeline.minfree) == 6


@pytest.mark.parametrize(
    ("android", "freeze", "after_ms", "compact"),
    [("11Q3", False, None, False), ("12", True, 600_000, False), ("13Q2", True, 600_000, False)]
    + [(tag, True, 10_000, True) for tag in ("14.0", "14Q2", "15Q2", "16")],
)
def test_cached_apps_as_that_android(
    tmp_path: Path, android: str, freeze: bool, after_ms: int | None, compact: bool
) -> None:
    scenario = load_scenario(write(tmp_path, SCENARIO + STEPS))
    timeline = compile_timeline(scenario, Phone(android=android))
    assert (timeline.freeze, timeline.compact) == (freeze, compact)
    if after_ms is not None:
        assert timeline.freeze_after_ms == after_ms
    switched = load_scenario(
        write(tmp_path, SCENARIO + STEPS + "cached_apps: {freeze: false, freeze_after: 1s, compact: true}\n")
    )
    timeline = compile_timeline(switched, Phone(android=android))
    assert (timeline.freeze, timeline.freeze_after_ms, timeline.compact) == (False, 1000, True)


def test_shares_need_a_device(generated: Scenario, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shares of memory.*name a device config"):
        compile_timeline(generated)
    plain = load_scenario(write(tmp_path, "name: a\napps: {one: {anon: 1MiB}}\nsteps: [{launch: one}]\n", "b.yaml"))
    timeline = compile_timeline(plain)
    assert [process.name for process in timeline.processes] == ["one"]
    assert timeline.minfree == ()


def test_a_generator_may_come_to_too_many_steps(tmp_path: Path) -> None:
    text = SCENARIO + "generate: {duration: 20h, stay: {min: 1s, max: 1s}}\n"
    with pytest.raises(ConfigError, match=r"generate: comes to .* steps, at most 4096"):
        compile_timeline(load_scenario(write(tmp_path, text)), Phone())


def test_another_seed_is_another_evening(generated: Scenario) -> None:
    texts = {timeline_text(compile_timeline(generated, Phone(), seed)) for seed in range(5)}
    assert len(texts) == 5
    assert compile_timeline(generated, Phone()) == compile_timeline(generated, Phone(), 3)


SEED_3 = [
    (9000, "launch", "camera"),
    (11812, "background", "camera"),
    (12312, "launch", "chat"),
    (12312, "grow", "chat"),
    (14090, "launch", "camera"),
    (17007, "launch", "chat"),
]


def test_the_sequence_of_a_seed_never_changes(generated: Scenario) -> None:
    """Random() is the same on every Python; a change here breaks the comparison with recorded runs."""
    timeline = compile_timeline(generated, Phone(), 3)
    names = [process.name for process in timeline.processes]
    assert [(step.t_ms, step.action, names[step.process]) for step in timeline.steps[9:15]] == SEED_3


@given(seed=SEEDS)
def test_generated_timelines_are_deterministic_and_bounded(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    scenario = load_scenario(write(tmp_path_factory.getbasetemp(), SCENARIO + STEPS + GENERATED))
    timeline = compile_timeline(scenario, Phone(), seed)
    assert timeline == compile_timeline(scenario, Phone(), seed)
    assert timeline_text(timeline) == timeline_text(compile_timeline(scenario, Phone(), seed))
    times = [step.t_ms for step in timeline.steps]
    assert times == sorted(times)
    assert times[-1] <= timeline.duration_ms == 9000 + 120_000
    assert all(0 <= step.process < len(timeline.processes) for step in timeline.steps)
    launched = [step.process for step in timeline.steps if step.action == "launch" and step.t_ms >= 9000]
    # Each launch brings another app to the front.
    assert all(one != other for one, other in itertools.pairwise(launched))
    assert len(launched) >= 120_000 // (4000 + 500)


def test_an_app_alone_is_opened_again_and_again(tmp_path: Path) -> None:
    text = "name: a\napps: {one: {anon: 1MiB}}\ngenerate: {duration: 30s, home: 0}\n"
    timeline = compile_timeline(load_scenario(write(tmp_path, text)))
    assert {step.action for step in timeline.steps} == {"launch"}


@pytest.mark.parametrize("scenario", ["app-switching", "one-leaker", "foreground-giant", "file-thrashing"])
@pytest.mark.parametrize("config", ["go-1gb", "phone-2gb", "phone-4gb"])
def test_shipped_scenarios_on_shipped_phones(scenario: str, config: str) -> None:
    device = load_device_config(find_config(config))
    timeline = compile_timeline(load_scenario(find_scenario(scenario)), device)
    assert timeline.duration_ms <= 180_000
    apps = [process for process in timeline.processes if process.role != "fixed"]
    assert max(process.anon_kib for process in apps) * 1024 < device.memory_bytes / 2


def test_app_switching_switches_often_between_more_than_fits() -> None:
    device = load_device_config(find_config("phone-2gb"))
    timeline = compile_timeline(load_scenario(find_scenario("app-switching")), device)
    assert timeline.launches >= 30
    wanted_kib = sum(process.anon_kib + process.file_kib for process in timeline.processes)
    assert wanted_kib * 1024 > device.memory_bytes


def test_every_shipped_config_can_run_every_shipped_scenario() -> None:
    for config in shipped_configs().values():
        for scenario in shipped_scenarios().values():
            timeline_text(compile_timeline(load_scenario(scenario), load_device_config(config)))


def test_the_text_is_lines_of_known_words(generated: Scenario) -> None:
    lines = timeline_text(compile_timeline(generated, Phone())).splitlines()
    assert lines[0] == "lmk-timeline 1"
    assert re.fullmatch(r"end \d+", lines[-1])
    assert {line.split()[0] for line in lines} == {"lmk-timeline", "#", "seed", "option", "process", "at", "end"}
    assert os.linesep.join(lines).isascii()


@given(seed=st.integers(min_value=1, max_value=2**32))
def test_jitter_moves_moments_and_nothing_else(seed: int) -> None:
    whole = compile_timeline(load_scenario(find_scenario("app-switching")), Phone())
    moved = jittered(whole, seed)
    assert [(s.action, s.process, s.kib) for s in moved.steps] == [(s.action, s.process, s.kib) for s in whole.steps]
    assert all(abs(a.t_ms - b.t_ms) <= JITTER_MS for a, b in zip(moved.steps, whole.steps, strict=True))
    assert [s.t_ms for s in moved.steps] == sorted(s.t_ms for s in moved.steps)
    assert moved.duration_ms == whole.duration_ms
    assert moved == jittered(whole, seed)
    assert moved != whole


def test_jitter_of_seed_zero_is_the_timeline_as_written() -> None:
    whole = compile_timeline(load_scenario(find_scenario("app-switching")), Phone())
    assert jittered(whole, 0) is whole
