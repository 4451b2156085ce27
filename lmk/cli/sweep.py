"""``lmk sweep``: a grid or a list of settings on the same runs, as a table and heat maps."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmk.cli.extras import need_extra
from lmk.cli.terminal import shown_progress
from lmk.cli.tune import add_run_options, check_counts, make_workers, output_dir
from lmk.config.calibration import find_calibration, load_calibration
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.errors import UserError
from lmk.sim.check import check_plan

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lmk.tune.sweep import Sweep
    from lmk.tune.verdict import Trial

SCHEMA = 1
DEFAULT_FIGURES = ("kills", "cold_starts", "launch_warm_p95_ms", "psi_some_ms", "psi_full_ms", "perceptible_kills")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``sweep``."""
    parser = verbs.add_parser("sweep", help="try a grid or a list of settings, as a table and heat maps")
    parser.add_argument("config", metavar="CONFIG", help="the device config to start from")
    add_run_options(parser)
    parser.add_argument(
        "--space", action="append", metavar="NAME[=VALUES]", help="one or two settings, as for lmk tune: their grid"
    )
    parser.add_argument("--steps", type=int, default=6, metavar="N", help="values of a range (6)")
    parser.add_argument("--list", dest="points", metavar="LIST", help="a file of settings, or psi-in-the-wild")
    parser.add_argument("--figure", action="append", metavar="FIGURE", help="what is shown; may be given again")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, show and write the result."""
    need_extra("tune", "optuna", "matplotlib")
    from lmk.tune.goals import metric_named
    from lmk.tune.jobs import Job, run_specs
    from lmk.tune.result import scenario_counts, warnings_about
    from lmk.tune.sweep import point_json, run_sweep

    check_counts(args, seeds=1, steps=2)
    config = load_device_config(find_config(args.config))
    calibration = load_calibration(find_calibration(args.calibration))
    check_plan(config, calibration)
    figures = [metric_named("--figure", name).name for name in args.figure or DEFAULT_FIGURES]
    sweep = _sweep(args, config)
    runs = run_specs([find_scenario(name) for name in args.scenario], args.seeds)
    folder = output_dir(args.output, f"sweep-{config.name}")
    workers = make_workers(args)
    try:
        with shown_progress() as tell:
            stage = f"{(len(sweep.points) + 1) * len(runs)} runs"
            base = Job(config=config, run=runs[0], calibration=calibration, unnecessary="unnecessary_kills" in figures)
            trials, compared = run_sweep(
                config, sweep, runs, base, workers, lambda done, total: tell(stage, done / total)
            )
    finally:
        workers.close()
    stock = trials[0]
    assert stock is not None, "run_sweep refuses a stock that cannot be run"
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "config": config.name,
        "scenarios": scenario_counts(runs),
        "calibration": {"name": calibration.name, "class": calibration.kind},
        "space": [axis.words() for axis in sweep.axes],
        "dead": dict(sweep.dead),
        "stock": stock.figures(),
        "points": [point_json(point, trial) for point, trial in zip(sweep.points, trials[1:], strict=True)],
        "compared": compared,
        "warnings": warnings_about(calibration, config),
    }
    result["files"] = _files(folder, config, sweep, [stock, *trials[1:]], figures, result)
    if args.json:
        print(json.dumps(result))
    else:
        from rich.console import Console

        Console().print(_shown(result, figures))
    return 0


def _sweep(args: argparse.Namespace, config: DeviceConfig) -> Sweep:
    from lmk.tune.space import check_strategy
    from lmk.tune.sweep import find_list, grid_sweep, list_sweep

    check_strategy(config)
    if (args.space is None) == (args.points is None):
        raise UserError("what is to be swept?", "give --space NAME=LOW..HIGH once or twice, or --list NAME")
    if args.points is not None:
        return list_sweep(find_list(args.points), config)
    return grid_sweep(args.space, config, args.steps)


def _files(
    folder: Path,
    config: DeviceConfig,
    sweep: Sweep,
    trials: Sequence[Trial | None],
    figures: Sequence[str],
    result: dict[str, Any],
) -> dict[str, str]:
    from lmk.tune.maps import heat_maps
    from lmk.tune.plots import draw_heat_map

    files = {"result": str(folder / "result.json")}
    try:
        for name, heat in heat_maps(config, sweep, trials, figures, result["calibration"]["class"]).items():
            draw_heat_map(folder / f"{name}.png", heat)
            files[f"map {name}"] = str(folder / f"{name}.png")
        (folder / "result.json").write_text(json.dumps({**result, "files": files}, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: {error.strerror}", "give a directory you may write") from None
    return files


def _shown(result: dict[str, Any], figures: Sequence[str]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from lmk.cli.tune_show import number

    rates = f"calibration {result['calibration']['name']} ({result['calibration']['class']})"
    runs = ", ".join(f"{name} x{count}" for name, count in result["scenarios"].items())
    title = f"{result['config']}: {len(result['points'])} points on {runs}; {rates}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for name in figures:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row("stock", *(number(result["stock"][name]) for name in figures), style="bold")
    for point in result["points"]:
        cells = [
            "failed" if point["figures"] is None else number(point["figures"][name]) + _mark(result, point, name)
            for name in figures
        ]
        table.add_row(point["name"], *cells)
    parts: list[RenderableType] = [table]
    if any(metric["others"] and metric["others"][0]["ci95"] for metric in result["compared"]["metrics"]):
        parts.append(Text("+ better, - worse than stock: the 95 % interval of the paired difference excludes zero"))
    parts += [Text(f"without effect: {name}: {why}") for name, why in result["dead"].items()]
    parts += [Text(f"warning: {text}", style="bold yellow") for text in result["warnings"]]
    parts += [Text(f"{name}: {path}") for name, path in result["files"].items()]
    return Group(*parts)


def _mark(result: dict[str, Any], point: dict[str, Any], name: str) -> str:
    metric = next(metric for metric in result["compared"]["metrics"] if metric["name"] == name)
    other = next((other for other in metric["others"] if other["variant"] == point["name"]), None)
    return {"better": " +", "worse": " -"}.get(other["verdict"] if other else "", "  ")
