"""``lmk compare``: policies, device configs and finished runs side by side, on the same scenarios and seeds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lmk.cli.runs import DEFAULT_CONFIG, DEFAULT_SCENARIO
from lmk.config.android import BUILD_VERSIONS, LAST_RELEASE
from lmk.config.calibration import DEFAULT_NAME, find_calibration, load_calibration
from lmk.config.device import load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.config.load import suggest
from lmk.config.scenario import load_scenario
from lmk.errors import UserError
from lmk.policy.registry import SIM_POLICIES
from lmk.record.reader import RecordReader
from lmk.report.compare import METRICS, UNNECESSARY, Variant, compare
from lmk.report.summary import run_json
from lmk.sim.batch import SimJob, run_jobs
from lmk.sim.check import check_plan

_STYLE = {"better": "green", "worse": "bold red"}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``compare``."""
    parser = verbs.add_parser(
        "compare", help="policies, configs or finished runs side by side, with differences and intervals"
    )
    parser.add_argument("--config", action="append", metavar="CONFIG", help=f"a device config ({DEFAULT_CONFIG})")
    parser.add_argument("--scenario", action="append", metavar="SCENARIO", help=f"a scenario ({DEFAULT_SCENARIO})")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="POLICY",
        help=f"one of {', '.join(SIM_POLICIES)}; lmkd@13 is lmkd as of Android 13 (lmkd)",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of each generated scenario (5)")
    parser.add_argument(
        "--run", dest="records", action="append", type=Path, metavar="DIR", help="a finished run's record"
    )
    parser.add_argument("--calibration", default=DEFAULT_NAME, metavar="NAME", help=f"rates ({DEFAULT_NAME})")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes at once (all cores)")
    parser.add_argument(
        "--unnecessary", action="store_true", help="also count kills that were unnecessary (some ten times the work)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare; the first config with the first policy (or the first run) is what the others are held against."""
    variants = _finished(args.records or ())
    simulates = args.config or args.policy or not args.records
    count = len(args.config or [1]) * len(args.policy or [1]) if simulates else 0
    if count + len(variants) < 2:
        raise UserError("there is only one variant", "give a second --policy, --config or --run")
    if simulates:
        variants = _simulated(args) + variants
    result = compare(variants, (*METRICS, UNNECESSARY) if args.unnecessary else METRICS)
    if args.json:
        print(json.dumps(result))
    else:
        Console().print(compare_tables(result))
    return 0


def _finished(paths: tuple[Path, ...] | list[Path]) -> list[Variant]:
    found = []
    for path in paths:
        with RecordReader(path) as record:
            found.append(Variant(name=path.name or str(path), runs=[run_json(record)]))
    return found


def _simulated(args: argparse.Namespace) -> list[Variant]:
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: must be at least 1", "leave it out for 5")
    configs = [find_config(name) for name in args.config or [DEFAULT_CONFIG]]
    scenarios = [find_scenario(name) for name in args.scenario or [DEFAULT_SCENARIO]]
    calibration = find_calibration(args.calibration)
    policies = [(spec, *_policy(spec)) for spec in args.policy or ["lmkd"]]
    for config in configs:
        check_plan(load_device_config(config), load_calibration(calibration))
    seeds = {scenario: _seeds(scenario, args.seeds) for scenario in scenarios}
    jobs: list[SimJob] = []
    names: list[str] = []
    for config in configs:
        for spec, policy, release in policies:
            names.append(
                " ".join([config.stem] * (len(configs) > 1) + [spec] * (len(policies) > 1 or len(configs) < 2))
            )
            jobs += [
                SimJob(
                    config=config,
                    scenario=scenario,
                    calibration=calibration,
                    policy=policy,
                    release=release,
                    seed=seed,
                    unnecessary=args.unnecessary,
                )
                for scenario in scenarios
                for seed in seeds[scenario]
            ]
    results = _run(jobs, args.jobs, show=not args.json)
    share = sum(len(some) for some in seeds.values())
    return [Variant(name=name, runs=results[i * share : (i + 1) * share]) for i, name in enumerate(names)]


def _seeds(path: Path, count: int) -> range:
    """A scenario without a generator is the same with every seed: once is enough, more would only look like proof."""
    scenario = load_scenario(path)
    return range(scenario.seed, scenario.seed + (count if scenario.generate is not None else 1))


def _run(jobs: list[SimJob], workers: int | None, *, show: bool) -> list[dict[str, Any]]:
    if not show:
        return run_jobs(jobs, workers)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{len(jobs)} runs", total=len(jobs))
        return run_jobs(jobs, workers, lambda done: progress.update(task, completed=done))


def _policy(spec: str) -> tuple[str, str | None]:
    name, at, release = spec.partition("@")
    if name not in SIM_POLICIES:
        raise UserError(f"--policy {spec}: no such policy", suggest(name, SIM_POLICIES) or ", ".join(SIM_POLICIES))
    if not at:
        return name, None
    tag = LAST_RELEASE.get(release, release)
    if name != "lmkd" or tag not in BUILD_VERSIONS:
        raise UserError(f"--policy {spec}: no such release of {name}", f"lmkd@ one of {', '.join(LAST_RELEASE)}")
    return name, tag


def compare_tables(result: dict[str, Any]) -> Group:
    """One table for each variant beside the baseline."""
    return Group(*(_table(result, index) for index in range(len(result["variants"]) - 1)))


def _table(result: dict[str, Any], index: int) -> Table:
    base, name = result["baseline"], result["variants"][index + 1]
    title = f"{name} ({result['runs'][name]} runs) against {base} ({result['runs'][base]})"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("figure", no_wrap=True)
    for heading in (base, name, "difference", "95 % interval"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for metric in result["metrics"]:
        other = metric["others"][index]
        interval = other["ci95"]
        between = "-" if interval is None else f"{_number(interval[0])} … {_number(interval[1])}"
        table.add_row(
            metric["name"],
            _number(metric["baseline_mean"]),
            _number(other["mean"]),
            _number(other["difference"]),
            between,
            Text(other["verdict"], style=_STYLE.get(other["verdict"], "")),
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
