"""``lmk run``: a scenario on a real kernel, with lmk's lmkd deciding who dies."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from lmk.backends.bundle import Bundle, check_bundle, open_bundle, use_programs
from lmk.cli.beside import add_beside_option, simulation_of
from lmk.cli.runs import (
    DEFAULT_CONFIG,
    DEFAULT_SCENARIO,
    add_kill_delay_option,
    add_set_option,
    exit_code,
    load_config,
    new_run_dir,
)
from lmk.cli.terminal import RunDisplay, shown_progress
from lmk.config.device import DeviceConfig
from lmk.config.find import find_scenario
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.errors import UserError
from lmk.live.devices import KINDS, TargetName, check_target, parse_target
from lmk.live.session import Plan, run_live
from lmk.policy.registry import POLICIES, make_policy
from lmk.report.beside import beside
from lmk.report.table import beside_tables, run_tables
from lmk.sim.run import run_sim


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``run``."""
    parser = verbs.add_parser("run", help="run a scenario on a real kernel and show who was killed, why and how fast")
    parser.add_argument(
        "config", nargs="?", default=DEFAULT_CONFIG, metavar="CONFIG", help="a device config (phone-2gb)"
    )
    parser.add_argument(
        "scenario", nargs="?", default=DEFAULT_SCENARIO, metavar="SCENARIO", help="a scenario (app-switching)"
    )
    parser.add_argument("--target", default="qemu", metavar="TARGET", help=f"one of {', '.join(KINDS)}")
    parser.add_argument(
        "--kernel", metavar="WHICH", help="with avd and cuttlefish: a kernel of `lmk kernel list`, or a file"
    )
    parser.add_argument("--initramfs", type=Path, metavar="FILE", help="with cuttlefish: the kernel's modules")
    parser.add_argument("--policy", default="lmkd", choices=POLICIES, help="who decides (lmkd)")
    parser.add_argument("--seed", type=int, help="another seed than the scenario's")
    add_set_option(parser)
    add_kill_delay_option(parser)
    add_beside_option(parser)
    parser.add_argument("--dry-run", action="store_true", help="decide, but signal nobody")
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="where to leave the record (default: a new directory)"
    )
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="boot what `lmk kernel bundle` packed")
    parser.add_argument("--yes", action="store_true", help="go ahead on a device that is not an emulator")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; 1 if an expectation was not met."""
    if args.calibration and not args.beside_sim:
        raise UserError(f"--calibration {args.calibration}: only a simulation has rates", "add --beside-sim")
    plan = _plan(args)
    simulated = _simulate_first(plan, args) if args.beside_sim else None
    with RunDisplay() as display:
        result = run_live(plan, display)
    both = beside(simulated, result) if simulated is not None else None
    if args.json:
        print(json.dumps({**result, "beside": both}))
    else:
        Console().print(run_tables(result))
        if both is not None:
            Console().print(beside_tables(both))
    return exit_code(result)


def _simulate_first(plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """Simulate the same and show it at once: the device may take minutes to build and boot."""
    simulated = run_sim(simulation_of(plan, args.calibration))
    if not args.json:
        Console().print("[bold]Simulated[/bold]", run_tables(simulated), "[bold]On the kernel[/bold]", sep="\n")
    return simulated


def _plan(args: argparse.Namespace) -> Plan:
    """Everything that the user can have got wrong is found here, before anything is built or booted."""
    config = load_config(args)
    scenario = load_scenario(find_scenario(args.scenario))
    if scenario.sim_only:
        raise UserError(f"{scenario.name} is for the simulator alone", f"lmk sim {args.config} {args.scenario}")
    timeline = compile_timeline(scenario, config, args.seed)
    target = parse_target(args.target, args.kernel, args.initramfs)
    bundle = _bundle(args.bundle, target, config)
    run_dir = new_run_dir(args.record, f"{config.name}-{scenario.name}")
    check_target(target, config, confirmed=args.yes or args.dry_run)
    return Plan(
        config=config,
        scenario=scenario,
        timeline=timeline,
        target=target,
        policy_name=args.policy,
        make_policy=lambda: make_policy(args.policy, config.android),
        dry_run=args.dry_run,
        run_dir=run_dir,
        bundle=bundle,
        kill_delay_ms=args.inject_kill_delay,
    )


def _bundle(path: Path | None, target: TargetName, config: DeviceConfig) -> Bundle | None:
    if path is None:
        return None
    if target.kind != "qemu":
        raise UserError(f"--bundle {path}: the target is {target}", "a bundle is for --target qemu")
    with shown_progress() as progress:
        bundle = open_bundle(path, progress)
    check_bundle(bundle, config)
    use_programs(bundle)
    return bundle
