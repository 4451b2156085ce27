"""``lmk validate``: the simulator and the emulator on the same input, and how far they agree."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from lmk.cli.runs import DEFAULT_CONFIG, add_set_option, load_config
from lmk.cli.terminal import RunDisplay
from lmk.cli.validate_tables import tables
from lmk.config.calibration import EMULATOR, Calibration, find_calibration, load_calibration
from lmk.config.device import DeviceConfig
from lmk.config.find import find_scenario
from lmk.config.scenario import Scenario, load_scenario
from lmk.errors import UserError
from lmk.live.devices import check_target
from lmk.live.watcher import Watcher
from lmk.validate.closedloop import closed_loop_json
from lmk.validate.inputs import Input, make_input
from lmk.validate.openloop import curve_errors, open_loop_json
from lmk.validate.ranking import SETTINGS, Ranked, ranking_json
from lmk.validate.runs import QEMU, closed_loop, kept_runs, make_runs, open_loop, repeating, view
from lmk.validate.view import Curves
from lmk.validate.window import Window, parse_window

#: Raised when a key changes meaning (docs/json.md).
SCHEMA: Final = 1
PARTS: Final = ("open", "closed", "ranking")
_RUNS_MIN: Final = 2


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``validate``."""
    parser = verbs.add_parser("validate", help="how far the simulator agrees with the emulator")
    parser.add_argument("config", metavar="CONFIG", help=f"a device config ({DEFAULT_CONFIG})")
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO", help="scenarios; ranking wants two")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs a side, open and closed loop (5)")
    parser.add_argument("--ranking-runs", type=int, default=3, metavar="N", help="runs a side of each setting (3)")
    parser.add_argument(
        "--repeats", type=int, default=0, metavar="N", help="also give N emulator runs the kills of the first N (0)"
    )
    parser.add_argument(
        "--parts", default=",".join(PARTS), metavar="LIST", help=f"which of {','.join(PARTS)} (all of them)"
    )
    parser.add_argument("--window", metavar="START+LEN", help="only a piece of each scenario, such as 9h+60s")
    parser.add_argument("--seed", type=int, help="another seed than the scenarios'")
    add_set_option(parser)
    parser.add_argument(
        "--calibration", default=EMULATOR, metavar="NAME", help=f"a calibration of class {EMULATOR} ({EMULATOR})"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="begin no emulator run after so long; the next call goes on"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make what runs are missing, compare; 1 if something is not met or not all runs are there yet."""
    validation = _Validation(args)
    with RunDisplay() as display:
        result = validation.run(display)
    if args.json:
        print(json.dumps(result))
    else:
        Console(width=None if Console().is_terminal else 120).print(tables(result))
    return 0 if result["complete"] and result["met"] else 1


class _Validation:
    """Everything the user can have got wrong is found when this is made."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._config: DeviceConfig = load_config(args)
        self._calibration: Calibration = load_calibration(find_calibration(args.calibration))
        if self._calibration.kind != EMULATOR:
            raise UserError(
                f"--calibration {args.calibration}: its class is {self._calibration.kind}",
                f"only {EMULATOR} can be compared with the emulator",
            )
        self._parts = _parts(args.parts)
        if args.runs < _RUNS_MIN or args.ranking_runs < _RUNS_MIN:
            raise UserError("fewer than two runs have no spread", "give --runs 2 or more")
        if args.minutes is not None and args.minutes < 0:
            raise UserError(f"--minutes {args.minutes}: is negative", "0 makes no emulator run at all")
        if not 0 <= args.repeats <= args.runs:
            raise UserError(f"--repeats {args.repeats}: each repeats one of {args.runs} runs", "give at most --runs")
        if args.repeats and "open" not in self._parts:
            raise UserError(f"--repeats {args.repeats}: is part of the open loop", "add open to --parts")
        self._runs, self._ranking_runs, self._repeats = args.runs, args.ranking_runs, args.repeats
        self._seed: int | None = args.seed
        self._window: Window | None = parse_window(args.window) if args.window else None
        self._scenarios = [load_scenario(find_scenario(name)) for name in args.scenarios]
        check_target(QEMU, self._config, confirmed=True)
        self._inputs = [self._input(scenario) for scenario in self._scenarios]
        limit_s = float("inf") if args.minutes is None else args.minutes * 60
        self._until_s = time.monotonic() + limit_s
        self._complete = True

    def run(self, watcher: Watcher) -> dict[str, Any]:
        """The JSON object."""
        loops = [self._loops(given, watcher) for given in self._inputs] if self._parts & {"open", "closed"} else []
        ranking = self._ranking(watcher) if "ranking" in self._parts else None
        verdicts = [part["met"] for loop in loops for part in (loop["open_loop"], loop["closed_loop"]) if part]
        verdicts += [ranking["met"]] if ranking is not None else []
        return {
            "schema": SCHEMA,
            "config": self._config.name,
            "calibration": {"name": self._calibration.name, "class": self._calibration.kind},
            "seed": self._seed,
            "scenarios": loops,
            "ranking": ranking,
            "complete": self._complete,
            "met": all(verdicts),
        }

    def _input(self, scenario: Scenario, setting: str = "stock") -> Input:
        return make_input(
            self._config,
            scenario,
            self._calibration,
            seed=self._seed,
            window=self._window,
            setting=setting,
            settings=SETTINGS[setting],
        )

    def _paths(self, given: Input, count: int, watcher: Watcher) -> list[Path]:
        paths = make_runs(given, count, watcher, until_s=self._until_s)
        self._complete &= len(paths) >= count
        return paths

    def _loops(self, given: Input, watcher: Watcher) -> dict[str, Any]:
        paths = self._paths(given, self._runs, watcher)
        real = [view(path, given.from_ms) for path in paths]
        opened = closed = None
        missed = 0
        if "open" in self._parts and real:
            predictions = []
            for path in paths:
                prediction, nobody = open_loop(given, self._calibration, path)
                predictions.append(prediction.curves)
                missed += nobody
            repeated = self._repeated(given, paths, watcher)
            opened = {**open_loop_json(curve_errors(real, predictions, repeated)), "kills_missed": missed}
        if "closed" in self._parts and len(real) >= _RUNS_MIN:
            simulated = closed_loop(given, self._calibration, self._runs)
            closed = closed_loop_json(real, simulated, given.timeline)
        return {
            "scenario": given.timeline.scenario,
            "seed": given.timeline.seed,
            "from_ms": given.from_ms,
            "duration_ms": given.timeline.duration_ms,
            "records": [str(path) for path in paths],
            "open_loop": opened,
            "closed_loop": closed,
        }

    def _repeated(self, given: Input, paths: list[Path], watcher: Watcher) -> list[Curves]:
        found = []
        for path in paths[: self._repeats]:
            again = self._paths(repeating(given, path), 1, watcher)
            found += [view(each, given.from_ms).curves for each in again]
        return found

    def _ranking(self, watcher: Watcher) -> dict[str, Any]:
        ranked = []
        inputs = [self._input(scenario, setting) for scenario in self._scenarios for setting in SETTINGS]
        # Round by round, so that an interruption leaves as many runs of one setting as of the other.
        for count in range(1, self._ranking_runs + 1):
            for given in inputs:
                make_runs(given, count, watcher, until_s=self._until_s)
        for given in inputs:
            paths = kept_runs(given)[: self._ranking_runs]
            self._complete &= len(paths) >= self._ranking_runs
            ranked.append(
                Ranked(
                    setting=given.setting,
                    scenario=given.timeline.scenario,
                    real=[view(path, given.from_ms) for path in paths],
                    simulated=closed_loop(given, self._calibration, self._ranking_runs),
                )
            )
        return ranking_json(ranked)


def _parts(text: str) -> set[str]:
    parts = {part.strip() for part in text.split(",")}
    unknown = parts - set(PARTS)
    if unknown or not parts:
        raise UserError(f"--parts {text}: no such part", f"some of {','.join(PARTS)}")
    return parts
