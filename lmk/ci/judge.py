"""When is a cell worse than its baseline? Thresholds learned from repeated runs, never chosen by hand for a scenario.

Pure. A figure is worse when the mean of the new runs leaves, on the bad side, the interval in which the mean of so
many runs of the baseline would lie but once in ten thousand times (Student's t with the baseline's own spread), and
the difference is also large enough for anybody to care about (``SLACK``). Kills of what a user sees or hears are too
rare for a spread: there the number of runs that had more of them than the baseline's median run must be beyond chance
as well (Fisher's exact test), or none of the baseline's runs had them and every new one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from lmk.report.compare import METRICS, Metric
from lmk.statistics import affected_by_chance, deviation, mean, median, t_one_in_10000
from lmk.units import MIB

#: Chance of an alarm among equals that is taken.
_ALARM: Final = 1e-4
#: With fewer runs a baseline knows nothing of its own spread.
BASELINE_RUNS_MIN: Final = 3


@attrs.frozen(kw_only=True)
class Slack:
    """A difference nobody minds: the larger of an absolute one and a share of the baseline's mean."""

    absolute: float = 0.0
    percent: float = 0.0

    def of(self, middle: float) -> float:
        """The slack around a baseline's mean."""
        return max(self.absolute, abs(middle) * self.percent / 100)


#: What a single kill is too much of; it is rare where all is well.
_NONE: Final = Slack()
#: By metric of lmk.report.compare.
SLACK: Final[Mapping[str, Slack]] = {
    "kills": Slack(absolute=2, percent=20),
    "foreground_kills": _NONE,
    "perceptible_kills": _NONE,
    "kernel_oom_kills": _NONE,
    "thrashing_kills": Slack(absolute=2, percent=20),
    "low_swap_kills": Slack(absolute=2, percent=20),
    "cold_starts": Slack(absolute=2, percent=10),
    "launch_cold_p50_ms": Slack(absolute=50, percent=20),
    "launch_warm_p95_ms": Slack(absolute=50, percent=25),
    "psi_some_ms": Slack(absolute=200, percent=20),
    "psi_full_ms": Slack(absolute=200, percent=20),
    "min_mem_available_kib": Slack(absolute=16 * MIB // 1024, percent=10),
    "event_to_signal_p50_ms": Slack(absolute=20, percent=50),
    "reaped_p95_ms": Slack(absolute=50, percent=50),
}


def metric_values(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Every metric of these runs (JSON objects of ``lmk run`` or ``sim``); runs without the figure are left out."""
    return {
        metric.name: [value for run in runs if (value := metric.observe(run)) is not None]
        for metric in METRICS
        if metric.name in SLACK
    }


@attrs.frozen(kw_only=True)
class Verdict:
    """One metric against its baseline. ``limit``: what the new mean must not pass; None if there is no baseline."""

    metric: str
    baseline: float | None
    observed: float | None
    limit: float | None
    worse: bool
    better: bool
    #: Why nothing was judged; empty if it was.
    note: str = ""


def judge(baseline: Mapping[str, Sequence[float]], new: Mapping[str, Sequence[float]]) -> list[Verdict]:
    """A verdict on every metric that the baseline or the new runs have."""
    return [
        _judge(metric, baseline.get(metric.name, ()), new.get(metric.name, ()))
        for metric in METRICS
        if metric.name in SLACK and (baseline.get(metric.name) or new.get(metric.name))
    ]


def _judge(metric: Metric, before: Sequence[float], after: Sequence[float]) -> Verdict:
    if not before or not after:
        return Verdict(
            metric=metric.name,
            baseline=mean(before) if before else None,
            observed=mean(after) if after else None,
            limit=None,
            worse=False,
            better=False,
            note="not in the baseline" if not before else "not seen in these runs",
        )
    middle, observed = mean(before), mean(after)
    room = SLACK[metric.name].of(middle) + _spread(before, len(after))
    sign = 1 if metric.less_is_better else -1
    worse = sign * (observed - middle) > room
    if worse and SLACK[metric.name] is _NONE:
        worse = _beyond_chance(before, after)
    return Verdict(
        metric=metric.name,
        baseline=middle,
        observed=observed,
        limit=middle + sign * room,
        worse=worse,
        better=sign * (middle - observed) > room,
        note="" if len(before) >= BASELINE_RUNS_MIN else f"the baseline has {len(before)} runs and no spread",
    )


def _beyond_chance(before: Sequence[float], after: Sequence[float]) -> bool:
    usual = median(before)
    affected, now = (sum(value > usual for value in values) for values in (before, after))
    if now == len(after) and not affected:
        return True
    return affected_by_chance(affected, len(before), now, len(after)) < _ALARM


def _spread(before: Sequence[float], new_runs: int) -> float:
    count = len(before)
    if count < BASELINE_RUNS_MIN:
        return 0.0
    return t_one_in_10000(count - 1) * deviation(before) * math.sqrt(1 / count + 1 / new_runs)
