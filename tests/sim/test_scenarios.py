"""Every shipped scenario shows in the simulator what it is meant to show, on the devices it is meant for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.config.device import load_device_config
from lmk.config.find import find_config, shipped_scenarios
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline

PHONES = ("go-1gb", "phone-2gb", "phone-4gb")
#: What docs/scenarios.md says each is meant for. Its expectations hold there.
MEANT_FOR = {
    "app-switching": PHONES[1:],
    "background-updates": PHONES,
    "camera-burst": PHONES,
    "cold-boot-storm": PHONES,
    "day": ("phone-4gb",),
    "file-thrashing": ("go-1gb", "phone-2gb"),
    "foreground-giant": PHONES,
    "game-launch": PHONES,
    "go-day": ("go-1gb",),
    "incompressible": PHONES[1:],
    "kill-storm": PHONES,
    "low-swap-perceptible": PHONES,
    "many-small-apps": ("phone-2gb", "phone-4gb"),
    "one-leaker": PHONES,
    "quick-fill": PHONES,
    "some-versus-full": ("phone-2gb",),
    "tab-hoarder": PHONES[1:],
    "test-service": PHONES[:2],
}
SHORT = [name for name, path in shipped_scenarios().items() if not load_scenario(path).sim_only]


def run(config: str, scenario: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code = main(["sim", config, scenario, "--json", "--record", str(folder / "record")])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["complete"]
    assert code == (0 if all(verdict["met"] for verdict in result["summary"]["expectations"]) else 1)
    return result


@pytest.mark.parametrize(
    ("config", "scenario"), [(config, name) for name, configs in MEANT_FOR.items() for config in configs]
)
def test_expectations_hold_where_they_are_meant_to(
    config: str, scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = run(config, scenario, tmp_path, capsys)["summary"]["expectations"]
    assert verdicts
    assert [verdict for verdict in verdicts if not verdict["met"]] == []


def test_every_shipped_scenario_is_meant_for_something() -> None:
    assert set(MEANT_FOR) == set(shipped_scenarios())


def test_the_short_ones_end_within_three_minutes() -> None:
    for name in SHORT:
        path = shipped_scenarios()[name]
        timeline = compile_timeline(load_scenario(path), load_device_config(find_config("phone-2gb")))
        assert timeline.duration_ms <= 180_000, name


@pytest.mark.parametrize(("name", "launches"), [("day", (350, 450)), ("go-day", (150, 300))])
def test_a_day_is_a_day_and_only_for_the_simulator(name: str, launches: tuple[int, int]) -> None:
    day = load_scenario(shipped_scenarios()[name])
    timeline = compile_timeline(day, load_device_config(find_config("phone-4gb")))
    assert day.sim_only
    assert timeline.duration_ms == pytest.approx(24 * 3600 * 1000, rel=0.01)
    assert launches[0] <= timeline.launches <= launches[1]
    assert main(["run", "phone-4gb", name]) == 2


def test_a_storm_kills_while_memory_is_available(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run("phone-4gb", "kill-storm", tmp_path, capsys)
    summary = result["summary"]
    assert len(result["kills"]) >= 5
    assert summary["min_mem_available_kib"] * 5 > result["device"]["mem_total_kib"]


def test_somebody_waits_and_the_device_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run("phone-2gb", "some-versus-full", tmp_path, capsys)["summary"]
    assert summary["psi_some_ms"] > 4 * summary["psi_full_ms"]


def test_the_test_service_dies_where_the_stall_threshold_is_low(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run("eink-viwoods", "test-service", tmp_path, capsys)
    died = {kill["name"]: kill["oom_score_adj"] for kill in result["kills"]}
    assert died["androidx.test.orchestrator"] == 200


def test_zram_at_its_worst_costs_cold_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run("phone-2gb", "incompressible", tmp_path, capsys)["summary"]
    assert summary["cold_starts"] == summary["launches"]
