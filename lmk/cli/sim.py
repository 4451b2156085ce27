"""``lmk sim``: a scenario on the simulated device, with the same policy, record and report as ``lmk run``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from lmk.cli.runs import (
    DEFAULT_CONFIG,
    DEFAULT_SCENARIO,
    add_kill_delay_option,
    add_set_option,
    exit_code,
    load_config,
    new_run_dir,
)
from lmk.config.calibration import (
    DEFAULT_NAME,
    find_calibration,
    load_calibration,
    shipped_calibrations,
    with_kill_delay,
)
from lmk.config.find import find_scenario
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.errors import UserError
from lmk.policy.api import Policy
from lmk.policy.oomd import OomdPolicy, parse_config
from lmk.policy.registry import SIM_POLICIES, make_policy
from lmk.record.export import export_record
from lmk.record.reader import RecordReader
from lmk.sim.check import check_plan
from lmk.sim.run import EVENTS_MAX, SimPlan, run_sim


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``sim``."""
    parser = verbs.add_parser("sim", help="run a scenario on a simulated device, in seconds and without a kernel")
    parser.add_argument(
        "config", nargs="?", default=DEFAULT_CONFIG, metavar="CONFIG", help="a device config (phone-2gb)"
    )
    parser.add_argument(
        "scenario", nargs="?", default=DEFAULT_SCENARIO, metavar="SCENARIO", help="a scenario (app-switching)"
    )
    parser.add_argument("--policy", default="lmkd", choices=SIM_POLICIES, help="who decides (lmkd)")
    parser.add_argument("--oomd-config", type=Path, metavar="FILE", help="with --policy oomd: its JSON configuration")
    parser.add_argument("--seed", type=int, help="another seed than the scenario's")
    add_set_option(parser)
    add_kill_delay_option(parser)
    parser.add_argument(
        "--calibration",
        default=DEFAULT_NAME,
        metavar="NAME",
        help=f"rates of the hardware: {', '.join(shipped_calibrations())} or a file ({DEFAULT_NAME})",
    )
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="where to leave the record (default: a new directory)"
    )
    parser.add_argument("--export", type=Path, metavar="FILE", help="also write the record as canonical JSON lines")
    parser.add_argument(
        "--event-budget", type=int, default=EVENTS_MAX, metavar="N", help=f"give up after N events ({EVENTS_MAX})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; 1 if an expectation was not met."""
    plan = _plan(args)
    result = run_sim(plan)
    if args.export is not None:
        _export(plan.run_dir, args.export)
    if args.json:
        print(json.dumps(result))
    else:
        # Tables take longer to import than a short run takes to simulate.
        from rich.console import Console

        from lmk.report.table import run_tables

        Console().print(run_tables(result))
    return exit_code(result)


def _export(run_dir: Path, path: Path) -> None:
    try:
        with RecordReader(run_dir) as record:
            export_record(record, path)
    except OSError as error:
        raise UserError(f"--export {path}: {error.strerror}", "give a file you may write") from None


def _plan(args: argparse.Namespace) -> SimPlan:
    config = load_config(args)
    scenario = load_scenario(find_scenario(args.scenario))
    timeline = compile_timeline(scenario, config, args.seed)
    calibration = with_kill_delay(load_calibration(find_calibration(args.calibration)), args.inject_kill_delay)
    if args.event_budget < 1:
        raise UserError(f"--event-budget {args.event_budget}: must be at least 1", "leave it out for the default")
    check_plan(config, calibration)
    maker = _maker(args, config.android)
    return SimPlan(
        config=config,
        calibration=calibration,
        scenario=scenario,
        timeline=timeline,
        policy_name=args.policy,
        make_policy=maker,
        run_dir=new_run_dir(args.record, f"sim-{config.name}-{scenario.name}"),
        events_max=args.event_budget,
    )


def _maker(args: argparse.Namespace, release: str) -> Callable[[], Policy]:
    """How to make the policy; a file of its own is read and checked before anything runs."""
    path: Path | None = args.oomd_config
    if path is None:
        return lambda: make_policy(args.policy, release)
    if args.policy != "oomd":
        raise UserError(f"--oomd-config {path}: the policy is {args.policy}", "add --policy oomd")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--oomd-config {path}: {error}", "give a readable file") from None
    parse_config(text, str(path))
    return lambda: OomdPolicy(text)
