"""``lmk run --beside-sim``: the same run on the simulated device first, and both side by side in the end."""

from __future__ import annotations

import argparse

import attrs

from lmk.backends.qemu_args import guest_cpus
from lmk.cli.runs import new_run_dir
from lmk.config.calibration import DEFAULT_NAME, EMULATOR, find_calibration, load_calibration, with_kill_delay
from lmk.errors import UserError
from lmk.live.session import Plan
from lmk.sim.check import check_plan
from lmk.sim.run import SimPlan


def add_beside_option(parser: argparse.ArgumentParser) -> None:
    """``--beside-sim``."""
    parser.add_argument(
        "--beside-sim",
        action="store_true",
        help="simulate the same first (seconds, no kernel needed) and show how far the two agree",
    )
    parser.add_argument(
        "--calibration",
        metavar="NAME",
        help=f"rates for --beside-sim ({EMULATOR}, from the host it was measured on; see lmk calibrate)",
    )


def simulation_of(plan: Plan, calibration_name: str | None = None) -> SimPlan:
    """The same run for the simulator. UserError for what cannot be compared."""
    if plan.dry_run:
        raise UserError("--beside-sim with --dry-run: nothing that the simulator does would be comparable", "drop one")
    emulated = plan.target.kind != "adb"
    usual = EMULATOR if emulated else DEFAULT_NAME
    calibration = load_calibration(find_calibration(calibration_name or usual))
    calibration = with_kill_delay(calibration, plan.kill_delay_ms)
    config = attrs.evolve(plan.config, cpus=guest_cpus(plan.config.cpus)) if emulated else plan.config
    check_plan(config, calibration)
    return SimPlan(
        config=config,
        calibration=calibration,
        scenario=plan.scenario,
        timeline=plan.timeline,
        policy_name=plan.policy_name,
        make_policy=plan.make_policy,
        run_dir=new_run_dir(None, f"sim-{plan.config.name}-{plan.scenario.name}"),
    )
