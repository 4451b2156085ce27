"""What a winner is worth: on seeds nobody has seen, moved one setting at a time, and at other hardware rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from lmk.config.calibration import Calibration, ZramClass, ZramCost
from lmk.report.compare import Metric, Variant, compare
from lmk.tune.goals import GOAL_METRICS, Goals, Measured, mean, means
from lmk.tune.jobs import Job, Outcome, RunSpec
from lmk.tune.search import StudyPlan
from lmk.tune.space import Axis
from lmk.tune.verdict import Trial, paired
from lmk.tune.workers import Workers, simulate_all

Rates = TypeVar("Rates", Calibration, ZramCost, ZramClass)
Told = Callable[[int, int], None]
#: How far a rate may be off: the figures it rests on differ by about so much between phones.
RATE_FACTORS: Final = (0.3, 3.0)
#: Sizes, not rates; and what only a config without `storage:` uses.
_NOT_RATES: Final = {
    *("name", "kind", "sources", "zram", "zram_overhead_permille"),
    *("kernel_fixed_kib", "kernel_reserved_permille", "kernel_used_kib", "process_kib"),
}
_STORAGE_RATES: Final = {"storage_read_kib_per_s", "storage_iops"}


def compare_figures(variants: Mapping[str, Sequence[Measured]], runs: Sequence[RunSpec], kind: str) -> dict[str, Any]:
    """``lmk compare``'s object for figures of the same runs with several settings; the first is the baseline."""
    all_figures = (one for figures in variants.values() for one in figures)
    known = {name for one in all_figures for name, value in one.items() if value is not None}
    metrics = [attrs.evolve(metric, observe=_observed(metric.name)) for metric in GOAL_METRICS if metric.name in known]
    return compare(
        [
            Variant(
                name=name,
                runs=[
                    {"scenario": run.scenario, "seed": run.seed, "figures": one, "calibration": {"class": kind}}
                    for run, one in zip(runs, figures, strict=True)
                ],
            )
            for name, figures in variants.items()
        ],
        metrics,
    )


def _observed(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda run: run["figures"].get(name)


def unseen(
    plan: StudyPlan, params: Mapping[str, Any], runs: Sequence[RunSpec], workers: Workers, told: Told
) -> dict[str, Any] | None:
    """Stock against a setting on runs that the search did not use; None if one of them cannot be made."""
    jobs = [plan.job(dict(setting), run) for setting in ({}, params) for run in runs]
    outcomes = simulate_all(workers, jobs, lambda done: told(done, len(jobs)))
    if any(outcome.error for outcome in outcomes):
        return None
    figures = [outcome.figures for outcome in outcomes]
    return compare_figures({"stock": figures[: len(runs)], "tuned": figures[len(runs) :]}, runs, plan.calibration.kind)


def sensitivity(plan: StudyPlan, base: Trial, count: int, workers: Workers, told: Told) -> list[dict[str, Any]]:
    """Each setting moved alone from the base through about ``count`` values, on the study's runs.

    A setting is dead if every run came out the same to the last figure, whatever its value.
    """
    points = [
        (axis, value) for axis in plan.space.axes for value in axis.grid(count) if value != base.params.get(axis.name)
    ]
    jobs = [plan.job({**base.params, axis.name: value}, run) for axis, value in points for run in plan.runs]
    outcomes = simulate_all(workers, jobs, lambda done: told(done, len(jobs)))
    by_point = [outcomes[i * len(plan.runs) : (i + 1) * len(plan.runs)] for i in range(len(points))]
    return [_sheet(plan, base, axis, points, by_point) for axis in plan.space.axes]


def _sheet(
    plan: StudyPlan,
    base: Trial,
    axis: Axis,
    points: Sequence[tuple[Axis, Any]],
    by_point: Sequence[Sequence[Outcome]],
) -> dict[str, Any]:
    rows = []
    dead = True
    for (moved, value), outcomes in zip(points, by_point, strict=True):
        if moved.name != axis.name:
            continue
        error = next((outcome.error for outcome in outcomes if outcome.error), None)
        figures = [outcome.figures for outcome in outcomes]
        dead = dead and error is None and all(a == b for a, b in zip(figures, base.runs, strict=True))
        rows.append(
            {
                "value": value,
                "figures": None if error else means(figures),
                "broken": [] if error else _broken(plan.goals, figures, base.runs),
                "error": error,
            }
        )
    rows.append({"value": base.params.get(axis.name), "figures": base.figures(), "broken": [], "error": None})
    rows.sort(key=lambda row: (row["value"] is None, row["value"]))
    return {"name": axis.name, "base": base.params.get(axis.name), "dead": dead, "values": rows}


def _broken(goals: Goals, runs: Sequence[Measured], base: Sequence[Measured]) -> list[str]:
    """Which of the constraints' figures are worse than the base's."""
    found = []
    for constraint in goals.constraints:
        own, before = mean(runs, constraint.metric), mean(base, constraint.metric)
        if own is not None and before is not None and (own > before if constraint.at_most else own < before):
            found.append(constraint.metric)
    return found


def rate_names(calibration: Calibration, *, algorithm: str | None, has_storage: bool) -> list[str]:
    """The rates a device with this zram algorithm uses; ``zram.write_ns`` and ``zram.read_ns`` among them."""
    left_out = _NOT_RATES | (_STORAGE_RATES if has_storage else set())
    names = [field.name for field in attrs.fields(Calibration) if field.name not in left_out]
    return names + (["zram.write_ns", "zram.read_ns"] if algorithm in calibration.zram else [])


def scaled(calibration: Calibration, name: str, factor: float, algorithm: str | None) -> Calibration:
    """The calibration with one rate ``factor`` times as large, at least 1."""
    if name.startswith("zram."):
        field = name.removeprefix("zram.")
        cost = _scaled_fields(calibration.zram[algorithm or ""], field, factor)
        classes = tuple(_scaled_fields(one, field, factor) for one in cost.classes)
        cost = attrs.evolve(cost, classes=classes)
        return attrs.evolve(calibration, zram={**calibration.zram, algorithm or "": cost})
    return _scaled_fields(calibration, name, factor)


def _scaled_fields(rates: Rates, field: str, factor: float) -> Rates:
    """A value with one whole number of its fields ``factor`` times as large, at least 1."""
    changes: dict[str, Any] = {field: max(1, round(getattr(rates, field) * factor))}
    return attrs.evolve(rates, **changes)


def at_other_rates(
    plan: StudyPlan, winner: Trial, runs: Sequence[RunSpec], workers: Workers, told: Told
) -> list[dict[str, Any]]:
    """Does the winner still win over stock with each rate at 0.3 and 3 times its value?

    It wins if no objective's mean is worse than stock's, one is better, and no constraint is broken.
    """
    algorithm = plan.config.zram.algorithm if plan.config.zram else None
    names = rate_names(plan.calibration, algorithm=algorithm, has_storage=plan.config.storage is not None)
    cases = [(name, factor) for name in names for factor in RATE_FACTORS]
    jobs: list[Job] = []
    for name, factor in cases:
        rates = scaled(plan.calibration, name, factor, algorithm)
        for params in ({}, winner.params):
            jobs += [attrs.evolve(plan.job(dict(params), run), calibration=rates) for run in runs]
    outcomes = simulate_all(workers, jobs, lambda done: told(done, len(jobs)))
    found = []
    for index, (name, factor) in enumerate(cases):
        own = outcomes[index * 2 * len(runs) : (index + 1) * 2 * len(runs)]
        found.append({"rate": name, "factor": factor, **_wins(plan.goals, own[: len(runs)], own[len(runs) :])})
    return found


def _wins(goals: Goals, stock: Sequence[Outcome], tuned: Sequence[Outcome]) -> dict[str, Any]:
    if any(outcome.error for outcome in (*stock, *tuned)):
        return {"wins": False, "differences": None, "broken": [], "error": "a run could not be made"}
    before, after = [outcome.figures for outcome in stock], [outcome.figures for outcome in tuned]
    changes = {metric.name: _mean_change(metric, after, before) for metric in goals.objectives}
    broken = [
        constraint.text
        for constraint in goals.constraints
        if constraint.excess(mean(after, constraint.metric), mean(before, constraint.metric)) > 1e-9
    ]
    wins = not broken and all(change <= 0 for change in changes.values()) and any(changes.values())
    signs = {metric.name: 1 if metric.less_is_better else -1 for metric in goals.objectives}
    differences = {name: round(signs[name] * change, 3) for name, change in changes.items()}
    return {"wins": wins, "differences": differences, "broken": broken, "error": None}


def _mean_change(metric: Metric, after: Sequence[Measured], before: Sequence[Measured]) -> float:
    changes = paired(metric, after, before)
    return sum(changes) / len(changes) if changes else 0.0
