"""Every shipped scenario runs to its end in the simulator, on a Go phone and on the default one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main
from lmk.config.device import load_device_config
from lmk.config.find import find_config, shipped_scenarios
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline

SHORT = [name for name, path in shipped_scenarios().items() if not load_scenario(path).sim_only]


@pytest.mark.parametrize("scenario", SHORT)
@pytest.mark.parametrize("config", ["go-1gb", "phone-2gb"])
def test_it_runs(config: str, scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["sim", config, scenario, "--json", "--record", str(tmp_path / "record")])
    result = json.loads(capsys.readouterr().out)
    assert result["complete"]
    assert code == (0 if all(verdict["met"] for verdict in result["summary"]["expectations"]) else 1)
    if config == "phone-2gb":
        assert result["summary"]["kernel_oom_kills"] == 0


def test_there_are_a_dozen_and_the_short_ones_end_within_three_minutes() -> None:
    assert len(shipped_scenarios()) >= 12
    for name in SHORT:
        path = shipped_scenarios()[name]
        timeline = compile_timeline(load_scenario(path), load_device_config(find_config("phone-2gb")))
        assert timeline.duration_ms <= 180_000, name


def test_a_day_is_a_day_and_only_for_the_simulator() -> None:
    day = load_scenario(shipped_scenarios()["day"])
    timeline = compile_timeline(day)
    assert day.sim_only
    assert timeline.duration_ms == pytest.approx(24 * 3600 * 1000, rel=0.01)
    assert 350 <= timeline.launches <= 450
    assert main(["run", "phone-4gb", "day"]) == 2
