"""Unnecessary kills: the same run without each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from lmk.cli.main import main
from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.record.reader import RecordReader
from lmk.sim.again import plan_of
from lmk.sim.overkill import STALL_MS_MAX, check_kills, unnecessary_kills
from lmk.sim.run import SimPlan, run_sim

#: Three apps that do not fit, then a quarter of a minute in which nothing happens.
QUIETING = "steps: [launch: one, wait: 3s, launch: two, wait: 3s, launch: three, wait: 15s]\n"
LEAKING = "steps: [launch: one, wait: 2s, launch: two, wait: 2s, {leak: two, rate: 60MiB/s}, wait: 9s]\n"


@pytest.fixture
def plan(small: DeviceConfig, calibration: Calibration, scenario: Any, tmp_path: Path) -> SimPlan:
    asked = scenario(QUIETING)
    return SimPlan(
        config=small,
        calibration=calibration,
        scenario=asked,
        timeline=compile_timeline(asked, small, None),
        policy_name="lmkd",
        make_policy=lambda: LmkdPolicy(small.android),
        run_dir=tmp_path / "run",
    )


def test_every_kill_of_the_run_is_looked_at_once_and_the_answer_repeats(plan: SimPlan) -> None:
    kills = [kill["pid"] for kill in run_sim(plan)["kills"] if kill["killer"] == "lmk"]
    checks = check_kills(plan)
    assert kills
    assert [pid for check in checks for pid in check.pids] == kills
    assert check_kills(plan) == checks
    assert all(check.why for check in checks)


def test_among_many_kills_some_are_unnecessary(plan: SimPlan) -> None:
    config, tabs = load_device_config(find_config("phone-2gb")), load_scenario(find_scenario("tab-hoarder"))
    busy = attrs.evolve(
        plan,
        config=config,
        scenario=tabs,
        timeline=compile_timeline(tabs, config, 2),
        make_policy=lambda: LmkdPolicy(config.android),
    )
    checks = check_kills(busy)
    assert 0 < unnecessary_kills(checks) < len(checks)
    assert all(check.why == "the device recovered without it" for check in checks if check.unnecessary)
    assert all(check.stall_ms < STALL_MS_MAX for check in checks if check.unnecessary)


def test_where_memory_is_short_for_good_no_kill_is_unnecessary(
    plan: SimPlan, small: DeviceConfig, calibration: Calibration, scenario: Any
) -> None:
    asked = scenario(LEAKING)
    leaking = attrs.evolve(plan, scenario=asked, timeline=compile_timeline(asked, small, None))
    checks = check_kills(leaking)
    assert checks
    assert unnecessary_kills(checks) == 0
    reasons = ("would have killed", "OOM", "stalls", "ended")
    assert all(any(reason in c.why for reason in reasons) for c in checks), [c.why for c in checks]


def test_explain_makes_the_run_again_from_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "run"
    assert main(["sim", "go-1gb", "tab-hoarder", "--seed", "4", "--record", str(record), "--json"]) in (0, 1)
    run = json.loads(capsys.readouterr().out)
    with RecordReader(record) as reader:
        again = plan_of(reader)
    assert run_sim(attrs.evolve(again, run_dir=tmp_path / "again"))["kills"] == run["kills"]
    assert main(["explain", str(record), "--unnecessary", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1
    # What the kernel's OOM killer did is not lmkd's to have left undone.
    decided = [kill["pid"] for kill in run["kills"] if kill["killer"] == "lmk"]
    assert [kill["pid"] for kill in result["kills"]] == decided != []
    assert result["unnecessary"] == sum(kill["unnecessary"] for kill in result["kills"])
    assert main(["explain", str(record), "--unnecessary"]) == 0
    assert "kills were unnecessary" in capsys.readouterr().out
    assert main(["explain", str(record), "1", "--unnecessary"]) == 2
    assert "looks at every kill" in capsys.readouterr().err
