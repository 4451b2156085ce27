"""``lmk run --beside-sim``: what can be told before anything is built or booted."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from lmk.cli import run as run_verb
from lmk.cli.beside import simulation_of
from lmk.cli.main import main
from lmk.config.device import load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.errors import UserError
from lmk.live.devices import parse_target
from lmk.live.session import Plan
from lmk.policy.registry import make_policy
from lmk.sim.run import run_sim


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    config = load_device_config(find_config("go-1gb"))
    scenario = load_scenario(find_scenario("one-leaker"))
    return Plan(
        config=config,
        scenario=scenario,
        timeline=compile_timeline(scenario, config, 7),
        target=parse_target("qemu"),
        policy_name="lmkd",
        make_policy=lambda: make_policy("lmkd", config.android),
        dry_run=False,
        run_dir=tmp_path / "run",
    )


def test_the_simulation_is_of_the_same_run_on_the_emulators_rates(plan: Plan) -> None:
    simulation = simulation_of(plan)
    assert (simulation.scenario, simulation.timeline, simulation.policy_name) == (plan.scenario, plan.timeline, "lmkd")
    assert simulation.calibration.kind == "emulator-tcg"
    assert simulation.config.cpus <= plan.config.cpus
    assert simulation.run_dir != plan.run_dir


def test_a_phone_is_not_compared_with_the_emulators_rates(plan: Plan) -> None:
    assert simulation_of(attrs.evolve(plan, target=parse_target("adb:x"))).calibration.kind != "emulator-tcg"


def test_rates_measured_on_this_host_may_be_given(plan: Plan) -> None:
    assert simulation_of(plan, "published").calibration.name == "published"


def test_rates_without_a_simulation_are_refused_before_anything_is_booted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "go-1gb", "one-leaker", "--calibration", "published"]) == 2
    assert "only a simulation has rates; add --beside-sim" in " ".join(capsys.readouterr().err.split())


def test_a_dry_run_has_nothing_to_compare(plan: Plan) -> None:
    with pytest.raises(UserError, match="--beside-sim with --dry-run"):
        simulation_of(attrs.evolve(plan, dry_run=True))


def test_simulated_first_then_the_device_then_both(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def run_live(asked: Plan, _watcher: object) -> dict[str, object]:
        order.append("device")
        simulated = run_sim(attrs.evolve(simulation_of(asked), run_dir=asked.run_dir))
        return {**simulated, "target": "qemu", "disturbed": False}

    monkeypatch.setattr(run_verb, "_plan", lambda _: plan)
    monkeypatch.setattr(run_verb, "run_live", run_live)
    assert main(["run", "go-1gb", "one-leaker", "--beside-sim"]) in (0, 1)
    shown = capsys.readouterr().out
    assert order == ["device"]
    assert shown.index("Simulated") < shown.index("On the kernel") < shown.index("Simulated beside emulated")
    assert "(F1 1.0)" in " ".join(shown.split())
