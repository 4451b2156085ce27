"""``lmk tune``: search for settings that are better than a config's own, in the simulator."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmk.cli.extras import need_extra
from lmk.config.calibration import DEFAULT_NAME, find_calibration, load_calibration
from lmk.config.device import load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.errors import UserError
from lmk.resources import state_dir
from lmk.sim.check import check_plan

if TYPE_CHECKING:
    from lmk.cli.tune_show import TuneDisplay
    from lmk.tune.search import Search, StudyPlan
    from lmk.tune.verdict import Trial
    from lmk.tune.workers import Workers

#: Unseen seeds begin so many after those of the search, however many it has.
UNSEEN_FROM = 100_000


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``tune``."""
    parser = verbs.add_parser("tune", help="search for better settings of lmkd and the kernel in the simulator")
    parser.add_argument("config", metavar="CONFIG", help="the device config to start from")
    add_run_options(parser)
    parser.add_argument(
        "--objective",
        action="append",
        metavar="FIGURE",
        help="what is to be better; several make a Pareto front (cold_starts, psi_full_ms)",
    )
    parser.add_argument(
        "--constraint",
        action="append",
        metavar="TEXT",
        help="'visible_kills<=0', 'psi_full_ms<=1.1*stock' (no more foreground, perceptible and kernel kills)",
    )
    parser.add_argument(
        "--space",
        action="append",
        metavar="NAME[=VALUES]",
        help="a setting that may move: thrashing_limit, vm.swappiness=60..200:10, kill_timeout_ms=50,100",
    )
    parser.add_argument("--trials", type=int, default=100, metavar="N", help="settings to try beside stock (100)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="settings asked for at once (16)")
    parser.add_argument("--sampler", default="auto", choices=("auto", "tpe", "nsga2", "random"), help="how to search")
    parser.add_argument("--seed", type=int, default=1, help="of the search itself (1)")
    parser.add_argument("--study", type=Path, metavar="FILE", help="the study's file (OUTPUT/study.sqlite)")
    parser.add_argument("--resume", action="store_true", help="go on with the study in --study")
    parser.add_argument("--unseen", type=int, default=10, metavar="N", help="seeds to check the winner on (10)")
    parser.add_argument(
        "--sensitivity", type=int, default=5, metavar="N", help="values per setting of the sensitivity sheet (5)"
    )
    parser.add_argument("--no-rates", action="store_true", help="leave out the check at 0.3 and 3 times each rate")
    parser.add_argument("--confirm", choices=("qemu",), help="run the winner and stock on a real kernel too")
    parser.add_argument("--confirm-window", metavar="START+LEN", help="only a piece of each scenario, such as 9h+60s")
    parser.add_argument("--confirm-runs", type=int, default=5, metavar="N", help="pairs of runs per scenario (5)")
    parser.set_defaults(run=run)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What ``tune`` and ``sweep`` have in common: what is run, where, and what is left behind."""
    parser.add_argument(
        "--scenario", action="append", required=True, metavar="SCENARIO", help="what is run; may be given again"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="K", help="seeds of each generated scenario (5)")
    parser.add_argument("--calibration", default=DEFAULT_NAME, metavar="NAME", help=f"rates ({DEFAULT_NAME})")
    parser.add_argument("--workers", type=int, metavar="N", help="processes at once (all cores)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on this Dask cluster's workers, e.g. tcp://host:8786")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results go (default: a new directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")


def run(args: argparse.Namespace) -> int:
    """Search, look closer at the winner, show and write the result."""
    need_extra("tune", "optuna", "matplotlib")
    from lmk.cli.tune_show import TuneDisplay, tune_tables
    from lmk.tune.journal import Journal
    from lmk.tune.search import Search

    plan = _plan(args)
    folder = output_dir(args.output, f"tune-{plan.config.name}")
    journal = Journal(args.study or folder / "study.sqlite", plan.facts(), resume=args.resume)
    try:
        workers = make_workers(args)
        try:
            with TuneDisplay(plan) as display:
                search = Search(plan, journal, workers)
                search.run(display.searching)
                result = _look_closer(search, workers, display, args)
        finally:
            workers.close()
        if args.confirm is not None:
            result["confirm"] = _confirmed(search, result, args, folder)
    finally:
        journal.close()
    result["files"] = {**_written(folder, search, result), "study": str(journal.path)}
    if args.json:
        print(json.dumps(result))
    else:
        from rich.console import Console

        Console().print(tune_tables(result))
    return 0


def _look_closer(search: Search, workers: Workers, display: TuneDisplay, args: argparse.Namespace) -> dict[str, Any]:
    """The study's object with its analyses; those an interrupt cut off are null."""
    from lmk.tune.analysis import at_other_rates, sensitivity, unseen
    from lmk.tune.jobs import run_specs
    from lmk.tune.result import study_json

    _check_stock(search)
    result: dict[str, Any] = {**study_json(search), "unseen": None, "sensitivity": None, "rates": None, "confirm": None}
    winner = _winner(search, result)
    if search.interrupted:
        return result
    plan = search.plan
    try:
        if winner is not None and winner.number and args.unseen:
            runs = run_specs([find_scenario(name) for name in args.scenario], args.unseen, UNSEEN_FROM)
            result["unseen"] = unseen(plan, winner.params, runs, workers, display.stage("unseen seeds"))
        if winner is not None and args.sensitivity:
            told = display.stage("one setting at a time")
            result["sensitivity"] = sensitivity(plan, winner, args.sensitivity, workers, told)
        if winner is not None and winner.number and not args.no_rates:
            told = display.stage("at 0.3 and 3 times each rate")
            result["rates"] = at_other_rates(plan, winner, plan.runs, workers, told)
    except KeyboardInterrupt:
        result["interrupted"] = True
    return result


def _confirmed(search: Search, result: dict[str, Any], args: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """Stock and winner on a kernel; None where there is nothing to confirm. The workers are gone by now."""
    from lmk.cli.terminal import shown_progress
    from lmk.cli.tune_confirm import agreement, confirm
    from lmk.tune.result import tuned_config

    winner = _winner(search, result)
    if winner is None or not winner.number or result["interrupted"]:
        return None
    configs = {"stock": search.plan.config, "tuned": tuned_config(search, winner)}
    with shown_progress() as tell:
        compared = confirm(
            args, configs, UNSEEN_FROM, folder, lambda done, total: tell("runs on a kernel", done / total)
        )
    return {"target": args.confirm, "compared": compared, "agreement": agreement(result, compared)}


def _winner(search: Search, result: dict[str, Any]) -> Trial | None:
    chosen = result["chosen"]
    return next((trial for trial in search.trials if chosen and trial.number == chosen["trial"]), None)


def _check_stock(search: Search) -> None:
    if not search.trials:
        raise UserError("interrupted before the config as it is was measured", "let it run longer")
    if search.stock.why:
        raise UserError(f"{search.plan.config.name} as it is cannot be run: {search.stock.why}", "try another scenario")


def _written(folder: Path, search: Search, result: dict[str, Any]) -> dict[str, str]:
    from lmk.tune.result import write_files

    return write_files(folder, search, _winner(search, result), result)


def _plan(args: argparse.Namespace) -> StudyPlan:
    """Everything that the user can have got wrong is found here, before anything is run."""
    from lmk.tune.goals import make_goals
    from lmk.tune.jobs import run_specs
    from lmk.tune.search import StudyPlan
    from lmk.tune.space import check_strategy, make_space

    check_counts(args, trials=1, batch=1, seeds=1, unseen=0, sensitivity=0, confirm_runs=1)
    config = load_device_config(find_config(args.config))
    calibration = load_calibration(find_calibration(args.calibration))
    check_strategy(config)
    check_plan(config, calibration)
    if args.confirm is not None:
        from lmk.cli.tune_confirm import check_confirm

        check_confirm(args, config)
    elif args.confirm_window:
        raise UserError(f"--confirm-window {args.confirm_window}: nothing is confirmed", "add --confirm qemu")
    if args.resume and args.study is None:
        raise UserError("--resume: does not say what", "name the file: --study FILE")
    return StudyPlan(
        config=config,
        calibration=calibration,
        space=make_space(args.space or (), config),
        goals=make_goals(args.objective or (), args.constraint or ()),
        runs=run_specs([find_scenario(name) for name in args.scenario], args.seeds),
        trials=args.trials,
        batch=args.batch,
        sampler=args.sampler,
        seed=args.seed,
    )


def check_counts(args: argparse.Namespace, **least: int) -> None:
    """Raises UserError for an option below its smallest value; ``--workers`` is always looked at."""
    for name, smallest in {**least, "workers": 1}.items():
        value = getattr(args, name)
        if value is not None and value < smallest:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {value}: must be at least {smallest}", "leave it out for the default")


def make_workers(args: argparse.Namespace) -> Workers:
    """Where the runs are made."""
    from lmk.tune.workers import LocalWorkers

    if args.dask is None:
        return LocalWorkers(args.workers)
    if args.workers is not None:
        raise UserError("--workers: a cluster's workers are its own", "leave out --workers or --dask")
    need_extra("dask", "distributed")
    from lmk.tune.cluster import DaskWorkers

    return DaskWorkers(args.dask)


def output_dir(asked: Path | None, name: str) -> Path:
    """The directory results go to; made if it is not there. Raises UserError."""
    folder = asked or state_dir("tune") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{time.time_ns() % 1_000_000:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: {error.strerror}", "give a directory you may write") from None
    return folder
