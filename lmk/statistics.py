"""The few statistics that comparisons and calibrations stand on. Pure; sequences of numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from typing import Final

#: Student's t for a two-sided 95 % interval, by degrees of freedom 1 to 30; beyond, the normal distribution's.
_T_95: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_Z_95: Final = 1.96
#: The same one-sided, for 1 - 1e-4 and 2 to 30 degrees of freedom.
_T_ONE_IN_10000: Final = (
    *(70.700, 22.204, 13.034, 9.678, 8.025, 7.063, 6.442, 6.010, 5.694, 5.453, 5.263, 5.111, 4.985, 4.880, 4.791),
    *(4.714, 4.648, 4.590, 4.539, 4.493, 4.452, 4.415, 4.382, 4.352, 4.324, 4.299, 4.275, 4.254, 4.234),
)
_Z_ONE_IN_10000: Final = 3.719


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def t_95(degrees: int) -> float:
    """Student's t of a two-sided 95 % interval."""
    if degrees < 1:
        raise ValueError("at least one degree of freedom")
    return _T_95[degrees - 1] if degrees <= len(_T_95) else _Z_95


def t_one_in_10000(degrees: int) -> float:
    """Student's t that is passed, on one side, once in ten thousand times."""
    if degrees < 2:
        raise ValueError("at least two degrees of freedom")
    return _T_ONE_IN_10000[degrees - 2] if degrees - 2 < len(_T_ONE_IN_10000) else _Z_ONE_IN_10000


def affected_by_chance(before: int, before_runs: int, after: int, after_runs: int) -> float:
    """Fisher's exact test, one-sided: as many of the later runs affected, if the affected ones were dealt at random."""
    affected, runs = before + after, before_runs + after_runs
    dealt = range(after, min(affected, after_runs) + 1)
    ways = sum(comb(affected, count) * comb(runs - affected, after_runs - count) for count in dealt)
    return ways / comb(runs, after_runs)


def half_interval_95(values: Sequence[float]) -> float:
    """Half the width of the mean's 95 % interval; of at least two values."""
    return t_95(len(values) - 1) * deviation(values) / sqrt(len(values))


def separated_95(first: Sequence[float], second: Sequence[float]) -> bool:
    """Welch's test: whether the means differ at 95 %. Two values a side at least; without any spread: differ at all."""
    errors = [deviation(values) ** 2 / len(values) for values in (first, second)]
    difference = abs(mean(first) - mean(second))
    if not any(errors):
        return difference > 0
    degrees = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (first, second), strict=True)
    )
    return difference > t_95(max(1, int(degrees))) * sqrt(sum(errors))


def quantile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between the ordered values; ``share`` 0 to 1."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def median(values: Sequence[float]) -> float:
    """Of at least one value."""
    return quantile(values, 0.5)


def rmse(first: Sequence[float], second: Sequence[float]) -> float:
    """Root of the mean squared difference of two curves of equal, positive length."""
    return sqrt(mean([(a - b) ** 2 for a, b in zip(first, second, strict=True)]))


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            found[index] = (start + end) / 2 + 1
        start = end + 1
    return found


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation, ties included; None where one side has no order at all."""
    a, b = ranks(first), ranks(second)
    middle = (len(a) + 1) / 2
    spread = sqrt(sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b))
    if not spread:
        return None
    return sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True)) / spread
