"""A study as the one JSON object that ``lmk tune --json`` prints (docs/json.md), and the files it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lmk.config.calibration import EMULATOR, Calibration
from lmk.config.change import with_settings
from lmk.config.device import DeviceConfig
from lmk.config.dump import dump_device
from lmk.config.exporting import export_prop
from lmk.errors import UserError
from lmk.tune.goals import Measured
from lmk.tune.jobs import RunSpec
from lmk.tune.search import Search
from lmk.tune.verdict import COMPLETE, FAILED, STOPPED, Trial, choose, gain

SCHEMA: Final = 1


def warnings_about(calibration: Calibration, config: DeviceConfig) -> list[str]:
    """What somebody who uses the result should know about the rates behind it."""
    if calibration.kind == EMULATOR:
        return [
            f"{config.name} was tuned with the rates of software emulation ({calibration.name}), 5 to 20 times slower "
            "than a phone: the result says nothing about a phone"
        ]
    return []


def scenario_counts(runs: tuple[RunSpec, ...]) -> dict[str, int]:
    """How many runs of each scenario."""
    found: dict[str, int] = {}
    for run in runs:
        found[run.scenario] = found.get(run.scenario, 0) + 1
    return found


def study_json(search: Search) -> dict[str, Any]:
    """What the search alone says; the analyses are added to it."""
    plan, trials = search.plan, search.trials
    front = search.front
    chosen = choose(front, search.stock, plan.goals) if trials and search.stock.state == COMPLETE else None
    states = [trial.state for trial in trials]
    return {
        "schema": SCHEMA,
        "config": plan.config.name,
        "scenarios": scenario_counts(plan.runs),
        "calibration": {"name": plan.calibration.name, "class": plan.calibration.kind},
        "objectives": list(plan.goals.names),
        "constraints": [constraint.text for constraint in plan.goals.constraints],
        "space": [axis.words() for axis in plan.space.axes],
        "dead": plan.space.dead,
        "seed": plan.seed,
        "trials": {
            "asked": plan.trials,
            "complete": states.count(COMPLETE),
            "stopped": states.count(STOPPED),
            "failed": states.count(FAILED),
            "repeated": sum(trial.same_as is not None for trial in trials),
        },
        "runs": {"made": search.runs_made, "found": search.runs_found},
        "interrupted": search.interrupted,
        "stock": trial_json(search.stock, search) if trials else None,
        "pareto": [trial_json(trial, search) for trial in front],
        "chosen": trial_json(chosen, search) if chosen is not None else None,
        "importances": search.importances(),
        "warnings": warnings_about(plan.calibration, plan.config),
    }


def trial_json(trial: Trial, search: Search) -> dict[str, Any]:
    """One trial: what it moves, what came of it, and its mean relative gain over stock."""
    stock = search.stock
    known = trial.state == COMPLETE and stock.state == COMPLETE
    return {
        "trial": trial.number,
        "params": trial.params,
        "changed": {name: value for name, value in trial.params.items() if value != stock.params.get(name)},
        "state": trial.state,
        "why": trial.why or None,
        "broken": list(trial.broken),
        "figures": rounded(trial.figures()),
        "gain": round(gain(trial, stock, search.plan.goals), 4) if known else None,
    }


def rounded(figures: Measured) -> dict[str, float | None]:
    """Figures as they are printed."""
    return {name: None if value is None else round(value, 3) for name, value in figures.items()}


def tuned_config(search: Search, trial: Trial) -> DeviceConfig:
    """The config with the setting of a trial; its source names the study and the class of rates it rests on."""
    plan = search.plan
    scenarios = ", ".join(f"{name} x{count}" for name, count in scenario_counts(plan.runs).items())
    source = (
        f"measured: lmk tune, trial {trial.number} of {plan.trials}, simulated with calibration "
        f"{plan.calibration.name} ({plan.calibration.kind}) on {scenarios}"
    )
    changed = with_settings(plan.config, trial.params, source)
    name = f"{plan.config.name[:58]}-tuned"
    return changed.with_properties(changed.own_properties, name=name, description=_description(search))


def _description(search: Search) -> str:
    config = search.plan.config
    warned = "; WARNING: tuned on emulator rates, not for a phone" if search.plan.calibration.kind == EMULATOR else ""
    return f"{config.description or config.name}, tuned for {' and '.join(search.plan.goals.names)}{warned}"


def write_files(folder: Path, search: Search, chosen: Trial | None, result: Mapping[str, Any]) -> dict[str, str]:
    """The chosen point as config and ``.prop``, the pictures, and the object itself; name -> path."""
    from lmk.tune.plots import draw_front

    files: dict[str, str] = {}
    try:
        plan = search.plan
        plot = folder / "pareto.png"
        title = f"{plan.config.name}: {len(search.trials)} trials, calibration {plan.calibration.kind}"
        draw_front(plot, search.trials, search.front, chosen, plan.goals, title)
        files["plot"] = str(plot)
        if chosen is not None and chosen.number:
            config = tuned_config(search, chosen)
            for name, text in (("chosen.yaml", dump_device(config)), ("chosen.prop", export_prop(config))):
                (folder / name).write_text(text, encoding="utf-8")
                files[name.partition(".")[2]] = str(folder / name)
        files["result"] = str(folder / "result.json")
        (folder / "result.json").write_text(json.dumps({**result, "files": files}, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: {error.strerror}", "give a directory you may write") from None
    return files
