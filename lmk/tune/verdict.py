"""Whether a trial is worth going on with, and what it is worth in the end. Pure: figures in, a judgement out.

Only the runs from the first one up to some place are looked at, never those that happen to be finished: so a search
comes to the same end with one worker and with a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from lmk.report.compare import Metric, interval95
from lmk.tune.goals import Goals, Measured, mean, means

#: Fewer paired runs say nothing with confidence.
_RUNS_MIN: Final = 4

COMPLETE, STOPPED, FAILED = "complete", "stopped", "failed"


@attrs.frozen(kw_only=True)
class Trial:
    """A setting and what came of it; ``runs`` are those that count, in the study's order."""

    number: int
    params: dict[str, Any]
    #: COMPLETE, STOPPED (before all runs were made) or FAILED.
    state: str
    runs: tuple[Measured, ...]
    #: Why it was stopped or failed.
    why: str = ""
    #: Broken constraints, as written.
    broken: tuple[str, ...] = ()
    #: The trial that had the same setting and whose runs these are.
    same_as: int | None = None

    @property
    def feasible(self) -> bool:
        """Whether all was run and no constraint is broken."""
        return self.state == COMPLETE and not self.broken

    def figures(self) -> dict[str, float | None]:
        """Means over its runs."""
        return means(self.runs)

    def values(self, goals: Goals) -> tuple[float, ...]:
        """Its means by objective; only of a trial of which all were measured."""
        return tuple(float(mean(self.runs, name) or 0.0) for name in goals.names)


@attrs.frozen(kw_only=True)
class Rules:
    """What trials are judged by: the goals, all of stock's runs, and the front they have to beat."""

    goals: Goals
    stock: tuple[Measured, ...]
    front: tuple[Trial, ...]
    #: How many runs a trial has.
    count: int

    def stop(self, runs: Sequence[Measured]) -> str:
        """Why a trial with these first runs can end here; empty if it must go on."""
        for constraint in self.goals.constraints:
            limit = constraint.limit_with(mean(self.stock, constraint.metric))
            if constraint.at_most and limit is not None:
                # No figure is below zero, so the sum over all runs is at least this one.
                seen = sum(run.get(constraint.metric) or 0.0 for run in runs)
                if seen > limit * self.count + 1e-9:
                    return f"breaks {constraint.text} whatever comes"
        if len(runs) >= _RUNS_MIN:
            for member in self.front:
                if self._dominated(runs, member):
                    return f"dominated by trial {member.number} with confidence"
        return ""

    def _dominated(self, runs: Sequence[Measured], member: Trial) -> bool:
        """Worse than ``member`` in some objective and better in none, with 95 % intervals of the paired differences."""
        worse = False
        for metric in self.goals.objectives:
            differences = paired(metric, runs, member.runs[: len(runs)])
            interval = interval95(differences)
            if interval is None or interval[0] < 0:
                return False
            worse = worse or interval[0] > 0
        return worse

    def broken(self, runs: Sequence[Measured]) -> tuple[str, ...]:
        """The constraints that the means of all runs break."""
        return tuple(text for text, excess in self.excesses(runs).items() if excess > 1e-9)

    def excesses(self, runs: Sequence[Measured]) -> dict[str, float]:
        """By constraint: how far the mean is on the wrong side, estimated from stock's where runs are missing."""
        found = {}
        for constraint in self.goals.constraints:
            stock = mean(self.stock, constraint.metric)
            found[constraint.text] = constraint.excess(self.estimate(runs, constraint.metric), stock)
        return found

    def estimate(self, runs: Sequence[Measured], metric: str) -> float | None:
        """The mean over all runs: stock's plus the mean difference over the pairs there are."""
        if len(runs) == self.count:
            return mean(runs, metric)
        pairs = [
            (own, other)
            for run, stock in zip(runs, self.stock, strict=False)
            if (own := run.get(metric)) is not None and (other := stock.get(metric)) is not None
        ]
        base = mean(self.stock, metric)
        if base is None or not pairs:
            return mean(runs, metric)
        return base + sum(own - other for own, other in pairs) / len(pairs)


def paired(metric: Metric, runs: Sequence[Measured], others: Sequence[Measured]) -> list[float]:
    """How much worse each run is than its pair; negative: better. Pairs without the figure are left out."""
    sign = 1 if metric.less_is_better else -1
    return [
        sign * (own - other)
        for run, pair in zip(runs, others, strict=True)
        if (own := run.get(metric.name)) is not None and (other := pair.get(metric.name)) is not None
    ]


def front_of(trials: Sequence[Trial], goals: Goals) -> tuple[Trial, ...]:
    """The feasible trials that no other feasible one is better than, in their order; the first of equals."""
    signs = [1 if metric.less_is_better else -1 for metric in goals.objectives]
    points = [
        (trial, tuple(sign * value for sign, value in zip(signs, trial.values(goals), strict=True)))
        for trial in trials
        if trial.feasible and trial.same_as is None
    ]
    found = []
    for trial, own in points:
        beaten = any(
            other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True)) for _, other in points
        )
        twin = any(other == own and rival.number < trial.number for rival, other in points)
        if not beaten and not twin:
            found.append(trial)
    return tuple(found)


def choose(front: Sequence[Trial], stock: Trial, goals: Goals) -> Trial | None:
    """The front's point with the largest mean relative gain over stock; None of an empty front."""
    return max(front, key=lambda trial: gain(trial, stock, goals), default=None)


def gain(trial: Trial, stock: Trial, goals: Goals) -> float:
    """Mean over the objectives of what is saved, as a share of what stock has."""
    shares = []
    for metric, own, base in zip(goals.objectives, trial.values(goals), stock.values(goals), strict=True):
        saved = base - own if metric.less_is_better else own - base
        shares.append(saved / max(abs(base), 1e-9) if saved else 0.0)
    return sum(shares) / len(shares)
