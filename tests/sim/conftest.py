"""Small devices and scenarios, and one call that simulates them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmk.config.calibration import Calibration, find_calibration, load_calibration
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.config.scenario import Scenario, load_scenario
from lmk.config.timeline import compile_timeline
from lmk.policy.registry import make_policy
from lmk.sim.run import SimPlan, run_sim

APPS = """\
name: test
description: for tests
seed: 1
apps:
  launcher: {role: home, process: com.android.launcher3, anon: 3%, file: 2%, hot: 0.5, cold_start: 200ms}
  one: {process: com.example.one, anon: 25%, file: 5%, hot: 0.4, cold_start: 300ms}
  two: {process: com.example.two, anon: 30%, file: 8%, hot: 0.4, compressibility: 1.5, cold_start: 300ms}
  three: {process: com.example.three, anon: 35%, file: 8%, hot: 0.4, cold_start: 300ms}
"""

STEPS = """\
steps:
  - repeat: 3
    steps:
      - launch: one
      - wait: 3s
      - launch: two
      - wait: 3s
      - launch: three
      - wait: 3s
"""

Simulate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    return load_calibration(find_calibration("published"))


@pytest.fixture(scope="session")
def small() -> DeviceConfig:
    return load_device_config(find_config("go-1gb"))


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[[str], Scenario]:
    """A scenario from the text of its steps, with APPS before it."""

    def make(steps: str, apps: str = APPS) -> Scenario:
        path = tmp_path / "scenario.yaml"
        path.write_text(apps + steps)
        return load_scenario(path)

    return make


@pytest.fixture
def simulate(tmp_path: Path, calibration: Calibration, scenario: Callable[..., Scenario]) -> Simulate:
    """Runs steps on a device and gives the JSON object; keyword arguments go to SimPlan."""
    runs = [0]

    def run(config: DeviceConfig, steps: str = STEPS, policy: str = "lmkd", **more: Any) -> dict[str, Any]:
        runs[0] += 1
        asked = scenario(steps, more.pop("apps", APPS))
        plan = SimPlan(
            config=config,
            calibration=more.pop("calibration", calibration),
            scenario=asked,
            timeline=compile_timeline(asked, config, more.pop("seed", None)),
            policy_name=policy,
            make_policy=lambda: make_policy(policy, config.android),
            run_dir=tmp_path / f"run{runs[0]}",
            **more,
        )
        return run_sim(plan)

    return run
