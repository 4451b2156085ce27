"""What a search is after: objectives, and constraints that a setting must not break. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from lmk.config.load import suggest
from lmk.errors import UserError
from lmk.policy.oom_adj import OomAdj
from lmk.report.compare import METRICS, UNNECESSARY, Metric

#: What a run is worth: value by metric, None where the run has none.
Measured = Mapping[str, float | None]


def _visible(run: Mapping[str, Any]) -> float:
    """Victims the user sees: foreground and visible apps."""
    adjs = [kill["oom_score_adj"] for kill in run["kills"]]
    return float(sum(1 for adj in adjs if adj is not None and adj < OomAdj.PERCEPTIBLE))


GOAL_METRICS: Final = (*METRICS, Metric(name="visible_kills", observe=_visible), UNNECESSARY)
METRIC_BY_NAME: Final = {metric.name: metric for metric in GOAL_METRICS}
DEFAULT_OBJECTIVES: Final = ("cold_starts", "psi_full_ms")
DEFAULT_CONSTRAINTS: Final = ("foreground_kills<=stock", "perceptible_kills<=stock", "kernel_oom_kills<=stock")
_CONSTRAINT: Final = re.compile(
    r"\s*(\w+)\s*(<=|>=)\s*(?:([0-9]+(?:\.[0-9]+)?)|(?:([0-9]+(?:\.[0-9]+)?)\s*\*\s*)?(stock))\s*", re.ASCII
)
_OBJECTIVES_MAX: Final = 4


@attrs.frozen(kw_only=True)
class Constraint:
    """A metric's mean over all runs against a limit: a number, or ``factor`` times what stock has."""

    text: str
    metric: str
    at_most: bool
    limit: float | None
    factor: float

    def limit_with(self, stock: float | None) -> float | None:
        """The limit, once stock's mean is known; None where stock has none."""
        if self.limit is not None:
            return self.limit
        return None if stock is None else stock * self.factor

    def excess(self, value: float | None, stock: float | None) -> float:
        """How far a mean lies on the wrong side of the limit; nothing or less: the constraint holds."""
        limit = self.limit_with(stock)
        if value is None or limit is None:
            return 0.0
        return value - limit if self.at_most else limit - value


@attrs.frozen(kw_only=True)
class Goals:
    """Objectives in the order given, and constraints."""

    objectives: tuple[Metric, ...]
    constraints: tuple[Constraint, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives by name."""
        return tuple(metric.name for metric in self.objectives)

    @property
    def unnecessary(self) -> bool:
        """Whether unnecessary kills have to be counted, which takes some ten times as long."""
        return UNNECESSARY.name in (*self.names, *(constraint.metric for constraint in self.constraints))


def make_goals(objectives: Iterable[str], constraints: Iterable[str]) -> Goals:
    """From the command line's texts. Raises UserError."""
    names = list(objectives) or list(DEFAULT_OBJECTIVES)
    if len(set(names)) < len(names) or len(names) > _OBJECTIVES_MAX:
        raise UserError(f"--objective: {len(names)} objectives", f"give each once, and at most {_OBJECTIVES_MAX}")
    return Goals(
        objectives=tuple(metric_named("--objective", name) for name in names),
        constraints=tuple(_constraint(text) for text in list(constraints) or DEFAULT_CONSTRAINTS),
    )


def metric_named(option: str, name: str) -> Metric:
    if name not in METRIC_BY_NAME:
        hint = suggest(name, METRIC_BY_NAME) or f"one of {', '.join(METRIC_BY_NAME)}"
        raise UserError(f"{option} {name}: no such figure of a run", hint)
    return METRIC_BY_NAME[name]


def _constraint(text: str) -> Constraint:
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise UserError(
            f"--constraint {text}: is not a comparison", "write e.g. 'visible_kills<=0' or 'psi_full_ms<=1.1*stock'"
        )
    name, sign, number, factor, _ = match.groups()
    return Constraint(
        text=re.sub(r"\s", "", text),
        metric=metric_named("--constraint", name).name,
        at_most=sign == "<=",
        limit=None if number is None else float(number),
        factor=float(factor or 1),
    )


def measured(run: Mapping[str, Any]) -> dict[str, float | None]:
    """A run's JSON object as figures."""
    return {metric.name: metric.observe(run) for metric in GOAL_METRICS}


def mean(runs: Sequence[Measured], metric: str) -> float | None:
    """Over the runs that have the figure; None if none has."""
    values = [value for run in runs if (value := run.get(metric)) is not None]
    return sum(values) / len(values) if values else None


def means(runs: Sequence[Measured]) -> dict[str, float | None]:
    """Every figure's mean."""
    return {name: mean(runs, name) for name in METRIC_BY_NAME}
