"""Several variants on the same scenarios and seeds: every figure with its difference, an interval and a verdict.

Pure: JSON objects of runs in, one JSON object out (docs/json.md). Runs are compared in pairs of equal scenario and
seed, so what a scenario does to all variants alike does not blur the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from lmk.policy.lmkd.kill_reason import KillReason
from lmk.report.summary import nearest_rank
from lmk.statistics import half_interval_95, mean
from lmk.units import US_PER_MS

COMPARE_SCHEMA: Final = 1

#: With fewer pairs an interval says next to nothing.
_PAIRS_MIN: Final = 3


@attrs.frozen(kw_only=True)
class Metric:
    """A figure of a run, and whether less of it is better."""

    name: str
    observe: Callable[[Mapping[str, Any]], float | None]
    less_is_better: bool = True


def _summary(key: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda run: run["summary"].get(key)


def _launch(kind: str, key: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda run: (run["summary"]["launch_ms"][kind] or {}).get(key)


def _event_to_signal_p50_ms(run: Mapping[str, Any]) -> float | None:
    p50_us = run["summary"]["event_to_signal_us"]["p50"]
    return None if p50_us is None else p50_us / US_PER_MS


def _reaped_p95_ms(run: Mapping[str, Any]) -> float | None:
    spans_us = [kill["signal_to_reaped_us"] for kill in run["kills"] if kill["signal_to_reaped_us"] is not None]
    p95_us = nearest_rank(sorted(spans_us), 95)
    return None if p95_us is None else p95_us / US_PER_MS


def _killed_for(*reasons: KillReason) -> Callable[[Mapping[str, Any]], float | None]:
    codes = {str(reason.value) for reason in reasons}
    return lambda run: sum(n for code, n in run["summary"]["kills_by_reason"].items() if code in codes)


#: What lmkd says of a kill tells which of its thresholds decided.
_THRASHING: Final = (
    KillReason.LOW_SWAP_AND_THRASHING,
    KillReason.LOW_MEM_AND_THRASHING,
    KillReason.DIRECT_RECL_AND_THRASHING,
)
_LOW_SWAP: Final = (KillReason.LOW_MEM_AND_SWAP, KillReason.LOW_MEM_AND_SWAP_UTIL)

METRICS: Final = (
    Metric(name="kills", observe=_summary("kills")),
    Metric(name="foreground_kills", observe=_summary("foreground_kills")),
    Metric(name="perceptible_kills", observe=_summary("perceptible_kills")),
    Metric(name="kernel_oom_kills", observe=_summary("kernel_oom_kills")),
    Metric(name="thrashing_kills", observe=_killed_for(*_THRASHING)),
    Metric(name="low_swap_kills", observe=_killed_for(*_LOW_SWAP)),
    Metric(name="cold_starts", observe=_summary("cold_starts")),
    Metric(name="launch_cold_p50_ms", observe=_launch("cold", "p50")),
    Metric(name="launch_warm_p95_ms", observe=_launch("warm", "p95")),
    Metric(name="psi_some_ms", observe=_summary("psi_some_ms")),
    Metric(name="psi_full_ms", observe=_summary("psi_full_ms")),
    Metric(name="min_mem_available_kib", observe=_summary("min_mem_available_kib"), less_is_better=False),
    Metric(name="event_to_signal_p50_ms", observe=_event_to_signal_p50_ms),
    Metric(name="reaped_p95_ms", observe=_reaped_p95_ms),
)
#: Only where it was counted, which takes as many runs again as there are kills (lmk.sim.overkill).
UNNECESSARY: Final = Metric(name="unnecessary_kills", observe=_summary("unnecessary_kills"))


@attrs.frozen(kw_only=True)
class Variant:
    """What is compared: its name and its runs."""

    name: str
    runs: Sequence[Mapping[str, Any]]


def compare(variants: Sequence[Variant], metrics: Sequence[Metric] = METRICS) -> dict[str, Any]:
    """The whole object; the first variant is what the others are compared with."""
    base = variants[0]
    return {
        "schema": COMPARE_SCHEMA,
        "baseline": base.name,
        "variants": [variant.name for variant in variants],
        "runs": {variant.name: len(variant.runs) for variant in variants},
        "calibration": sorted({_class(run) for variant in variants for run in variant.runs}),
        "metrics": [_row(metric, base, variants[1:]) for metric in metrics],
    }


def _class(run: Mapping[str, Any]) -> str:
    """The class of rates a run was simulated with, or that it was not."""
    calibration = run.get("calibration")
    return str(calibration["class"]) if calibration else "real"


def _row(metric: Metric, base: Variant, others: Sequence[Variant]) -> dict[str, Any]:
    return {
        "name": metric.name,
        "less_is_better": metric.less_is_better,
        "baseline_mean": _mean(list(_values(metric, base).values())),
        "others": [_difference(metric, base, other) for other in others],
    }


def _difference(metric: Metric, base: Variant, other: Variant) -> dict[str, Any]:
    before, after = _values(metric, base), _values(metric, other)
    pairs = [(before[key], after[key]) for key in before if key in after]
    changes = [new - old for old, new in pairs]
    interval = interval95(changes)
    return {
        "variant": other.name,
        "mean": _mean(list(after.values())),
        "pairs": len(changes),
        "difference": _mean(changes),
        "ci95": interval,
        "verdict": _verdict(metric, changes, interval),
    }


def _values(metric: Metric, variant: Variant) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for run in variant.runs:
        value = metric.observe(run)
        if value is not None:
            found[run["scenario"], run["seed"]] = value
    return found


def interval95(changes: Sequence[float]) -> list[float] | None:
    """Student's 95 % interval for the mean of paired differences; None below three of them."""
    if len(changes) < _PAIRS_MIN:
        return None
    middle, half = mean(changes), half_interval_95(changes)
    return [round(middle - half, 3), round(middle + half, 3)]


def _verdict(metric: Metric, changes: Sequence[float], interval: Sequence[float] | None) -> str:
    if not changes:
        return "nothing to compare"
    if not any(changes):
        return "the same in every pair"
    if interval is None:
        return f"too few pairs ({len(changes)}) for a verdict"
    low, high = interval
    if low <= 0 <= high:
        return "no difference shown"
    better = (high < 0) == metric.less_is_better
    return "better" if better else "worse"


def _mean(values: Sequence[float]) -> float | None:
    return round(mean(values), 3) if values else None
