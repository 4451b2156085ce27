"""A grid or a list of settings, each on the same runs: what ``lmk sweep`` evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import attrs

from lmk.config.change import check_changed, value_of, with_settings
from lmk.config.convert import one_of, scalar_text, string
from lmk.config.device import DeviceConfig
from lmk.config.find import SUFFIXES
from lmk.config.load import Section, Value, known_list, open_document, suggest
from lmk.config.quantity import InvalidValue
from lmk.errors import ConfigError, UserError
from lmk.policy.registry import SIM_POLICIES
from lmk.resources import sweeps_dir
from lmk.tune.analysis import Told, compare_figures
from lmk.tune.goals import Measured, means
from lmk.tune.jobs import Job, RunSpec
from lmk.tune.result import rounded
from lmk.tune.space import Axis, Setting, Space, make_space
from lmk.tune.verdict import Trial
from lmk.tune.workers import Workers, simulate_all

POINTS_MAX: Final = 1000


@attrs.frozen(kw_only=True)
class Point:
    """One setting with its name; ``params`` empty and no other policy: stock."""

    name: str
    params: Mapping[str, Setting]
    policy: str = "lmkd"
    source: str = ""


@attrs.frozen(kw_only=True)
class Sweep:
    """What is to be evaluated; ``axes`` of a grid, none of a list."""

    points: tuple[Point, ...]
    axes: tuple[Axis, ...] = ()
    grid: tuple[tuple[Setting, ...], ...] = ()
    dead: Mapping[str, str] = attrs.field(factory=dict)


def grid_sweep(texts: Sequence[str], config: DeviceConfig, steps: int) -> Sweep:
    """Every combination of one or two settings' values; a range goes in about ``steps``. Raises UserError."""
    if not 1 <= len(texts) <= 2:
        raise UserError(f"--space: {len(texts)} settings", "a sweep goes over one or two; lmk tune over any number")
    space: Space = make_space(texts, config)
    grid = tuple(axis.grid(steps) for axis in space.axes)
    points = tuple(
        Point(
            name=", ".join(f"{axis.name}={_word(value)}" for axis, value in zip(space.axes, values, strict=True)),
            params={axis.name: value for axis, value in zip(space.axes, values, strict=True)},
        )
        for values in product(*grid)
    )
    if len(points) > POINTS_MAX:
        raise UserError(f"--space: {len(points)} points", f"at most {POINTS_MAX} are possible: take fewer --steps")
    return Sweep(points=points, axes=space.axes, grid=grid, dead=space.dead)


def shipped_lists() -> dict[str, Path]:
    """Shipped lists of settings by name, sorted."""
    return {path.stem: path for path in sorted(sweeps_dir().glob("*.yaml"))}


def find_list(name_or_path: str) -> Path:
    """The file a shipped name or a path stands for. Raises ConfigError."""
    shipped = shipped_lists()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    hint = suggest(path.stem, shipped) or known_list(shipped)
    where = "no such file" if path.suffix in SUFFIXES else "no shipped list of that name and no such file"
    raise ConfigError(name_or_path, None, "", where, hint)


def list_sweep(path: Path, config: DeviceConfig) -> Sweep:
    """The points of a list file, each checked against the config. Raises ConfigErrors and UserError."""
    document = open_document(path)
    with document.root.section() as top:
        top.need("name", string, "")
        top.take("description", string, "")
        points = _points(top)
    document.problems.raise_if_any()
    for point in points:
        for name in point.params:
            make_space([f"{name}={_word(point.params[name])}"], config)
        check_changed(with_settings(config, point.params), f"{path.name}: {point.name}")
    return Sweep(points=points)


def _points(top: Section) -> tuple[Point, ...]:
    value = top.get("points")
    if value is None:
        top.problems.error(top.value.line, "points", "is missing", "add `points:` with at least one")
        return ()
    found: list[Point] = []
    for item in value.convert(Value.items, list[Value]()):
        with item.section() as section:
            name = section.need("name", string, "")
            if name in (*(point.name for point in found), "stock"):
                item.error(f"{name!r} is there already", "give each point a name of its own")
            found.append(
                Point(
                    name=name,
                    source=section.take("source", string, ""),
                    policy=section.take("policy", one_of(*SIM_POLICIES), "lmkd"),
                    params=section.take("settings", _settings, dict[str, Setting]()),
                )
            )
    if not found and value.kind == "list":
        value.error("is empty", "give at least one point")
    return tuple(found)


def _settings(value: Value) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, entry in value.entries().items():
        text = scalar_text(entry)
        if text in ("true", "false"):
            found[name] = text == "true"
        elif text.lstrip("-").isdigit():
            found[name] = int(text)
        else:
            raise InvalidValue(f"found {entry.describe()}", "write a whole number, true or false")
    return found


def run_sweep(
    config: DeviceConfig, sweep: Sweep, runs: Sequence[RunSpec], base: Job, workers: Workers, told: Told
) -> tuple[list[Trial | None], dict[str, Any]]:
    """Stock first, then each point: its figures, None where a run failed; and ``lmk compare``'s object of all.

    ``base``: a job to take the rates and limits from.
    """
    points = [Point(name="stock", params={}), *sweep.points]
    jobs = [
        attrs.evolve(base, config=with_settings(config, point.params), run=run, policy=point.policy)
        for point in points
        for run in runs
    ]
    outcomes = simulate_all(workers, jobs, lambda done: told(done, len(jobs)))
    found: list[Trial | None] = []
    good: dict[str, Sequence[Measured]] = {}
    for index, point in enumerate(points):
        own = outcomes[index * len(runs) : (index + 1) * len(runs)]
        if any(outcome.error for outcome in own):
            found.append(None)
            continue
        good[point.name] = [outcome.figures for outcome in own]
        found.append(Trial(number=index, params=dict(point.params), state="complete", runs=tuple(good[point.name])))
    if found[0] is None:
        error = next(outcome.error for outcome in outcomes if outcome.error)
        raise UserError(f"{config.name} as it is cannot be run: {error}", "try another scenario")
    return found, compare_figures(good, runs, base.calibration.kind)


def point_json(point: Point, trial: Trial | None) -> dict[str, Any]:
    """One point of ``lmk sweep --json``."""
    return {
        "name": point.name,
        "params": dict(point.params),
        "policy": point.policy,
        "source": point.source or None,
        "figures": rounded(means(trial.runs)) if trial is not None else None,
    }


def stock_square(config: DeviceConfig, sweep: Sweep) -> tuple[int, int] | None:
    """Row and column of stock in a grid of two settings; None if it is not on it."""
    at = []
    for axis, values in zip(sweep.axes, sweep.grid, strict=True):
        value = value_of(config, axis.name)
        if value not in values:
            return None
        at.append(values.index(value))
    return (at[1], at[0]) if len(at) == 2 else None


def _word(value: Setting) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
