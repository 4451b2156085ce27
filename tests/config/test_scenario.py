"""Scenario files: what loads, and what each mistake says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.expect import MEASURES, Expectation
from lmk.config.find import shipped_scenarios
from lmk.config.scenario import load_scenario
from lmk.config.scenario_types import (
    Amount,
    AmountRate,
    Grow,
    Launch,
    Leak,
    Leave,
    Repeat,
    Touch,
    Wait,
)
from lmk.errors import ConfigErrors
from tests.config.helpers import errors_of, write

APPS = """\
name: evening
apps:
  home: {role: home, anon: 40MiB}
  camera: {anon: 260MiB, file: 140MiB, compressibility: 2.6, hot: 0.3, cold_start: 900ms, growth: 2MiB/min}
  chat: {anon: 7%}
"""
FULL = (
    APPS
    + """\
description: everything there is
seed: 7
steps:
  - launch: camera
  - wait: 1.5s
  - background: camera
  - grow: camera
    size: 100MiB
    over: 5s
  - allocate: chat
    size: 50%
  - leak: chat
    rate: 1%/s
    limit: 60%
  - touch: camera
    times: 2
  - repeat: 2
    steps:
      - launch: chat
      - wait: 1s
  - exit: camera
generate:
  duration: 60s
  apps: [chat, camera]
  stay: {min: 1s, max: 3s}
cached_apps: {freeze: true, freeze_after: 10s, compact: false}
expect:
  foreground_kills: 0
  min_kill_adj: 200
  kills: {min: 1, max: 9}
  psi_full_ms: {max: 1500}
  launch_cold_p95_ms: {max: 3s}
"""
)


def test_a_full_scenario(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, FULL))
    camera = scenario.apps["camera"]
    assert (camera.role, camera.process, camera.cold_start_ms) == ("app", "camera", 900)
    assert camera.growth == AmountRate(amount=Amount(size_bytes=2 << 20), per_ms=60_000)
    assert scenario.apps["chat"].anon == Amount(share=Fraction(7, 100))
    assert scenario.seed == 7
    assert scenario.steps == (
        Launch(app="camera"),
        Wait(span_ms=1500),
        Leave(app="camera"),
        Grow(app="camera", size=Amount(size_bytes=100 << 20), over_ms=5000),
        Grow(app="chat", size=Amount(share=Fraction(1, 2))),
        Leak(
            app="chat",
            rate=AmountRate(amount=Amount(share=Fraction(1, 100)), per_ms=1000),
            limit=Amount(share=Fraction(3, 5)),
        ),
        Touch(app="camera", anon=0.0, file=1.0, times=2),
        Repeat(times=2, steps=(Launch(app="chat"), Wait(span_ms=1000))),
        scenario.steps[-1],
    )
    assert scenario.generate is not None
    assert scenario.generate.apps == ("chat", "camera")
    assert scenario.cached_apps.compact is False
    assert Expectation(name="min_kill_adj", minimum=200) in scenario.expect
    assert Expectation(name="launch_cold_p95_ms", maximum=3000) in scenario.expect
    assert scenario.needs_memory_size


def test_sizes_in_bytes_need_no_device(tmp_path: Path) -> None:
    text = "name: a\napps: {one: {anon: 1MiB}}\nsteps: [{launch: one}]\n"
    assert not load_scenario(write(tmp_path, text)).needs_memory_size


def mistakes() -> list[tuple[str, str]]:
    """(file, error) from scenario_mistakes.txt."""
    blocks = (Path(__file__).parent / "scenario_mistakes.txt").read_text().split("\n\n")[1:]
    pairs = [block.strip("\n").rsplit("\n=> ", 1) for block in blocks]
    return [(f"{text}\n".replace("APPS\n", APPS), error) for text, error in pairs]


@pytest.mark.parametrize(("text", "error"), mistakes(), ids=[error[:50] for _, error in mistakes()])
def test_each_mistake_says_what_and_where(tmp_path: Path, text: str, error: str) -> None:
    assert error in errors_of(load_scenario, write(tmp_path, text))


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = APPS.replace("hot: 0.3", "hot: 3") + "steps:\n  - launch: nobody\n  - wait: 1\nsede: 1\n"
    assert len(errors_of(load_scenario, write(tmp_path, text))) == 4


@pytest.mark.parametrize("path", shipped_scenarios().values(), ids=shipped_scenarios())
def test_shipped_scenarios_load(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario.description
    assert scenario.expect


def test_every_measure_can_be_expected(tmp_path: Path) -> None:
    lines = "".join(f"  {name}: 5\n" for name in MEASURES)
    scenario = load_scenario(write(tmp_path, APPS + "steps: [{wait: 1s}]\nexpect:\n" + lines))
    assert [expectation.name for expectation in scenario.expect] == list(MEASURES)
    for expectation in scenario.expect:
        assert (expectation.minimum is None) == (MEASURES[expectation.name].bare == "max")


@given(st.text(alphabet="abc:{}[]-% \n0123456789.launchwtgrepd", max_size=200))
def test_garbage_is_an_error_or_a_scenario(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.mktemp("scenario"), APPS + "steps:\n" + text)
    try:
        load_scenario(path)
    except ConfigErrors as errors:
        assert errors.errors
