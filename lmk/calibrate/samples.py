"""What lmk-calibrate prints, and estimates made of it: means with their 95 % intervals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

import attrs

from lmk.errors import TargetError
from lmk.statistics import half_interval_95, mean


@attrs.frozen
class Estimate:
    """A mean and how far its 95 % interval goes, of ``n`` samples (the fewest, where it is made of several)."""

    value: float
    half: float
    n: int

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, sqrt(self.half**2 + other.half**2), min(self.n, other.n))

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, sqrt(self.half**2 + other.half**2), min(self.n, other.n))

    def scaled(self, factor: float) -> Estimate:
        """Times a number that is known."""
        return Estimate(self.value * factor, self.half * abs(factor), self.n)

    def at_least(self, lowest: float) -> Estimate:
        """A difference that noise made smaller than what is possible."""
        return self if self.value >= lowest else Estimate(lowest, self.half, self.n)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean with Student's interval. Not the median: what takes long now and then (a host in a slow spell, an
    interrupt) does so in a run as well, and a run's time is the sum."""
    return Estimate(mean(values), half_interval_95(values), len(values))


def average(estimates: Iterable[Estimate]) -> Estimate:
    """The mean of several estimates."""
    them = list(estimates)
    total = them[0]
    for one in them[1:]:
        total = total + one
    return total.scaled(1 / len(them))


@attrs.frozen
class Samples:
    """Everything measured on one device, by name, and why the rest is missing."""

    values: Mapping[str, Sequence[float]]
    absent: Mapping[str, str]

    def get(self, name: str) -> Estimate | None:
        """The estimate of a name; None if it was measured less than twice."""
        found = self.values.get(name, ())
        return estimate(found) if len(found) > 1 else None

    def __or__(self, other: Samples) -> Samples:
        names = dict.fromkeys((*self.values, *other.values))
        values = {name: [*self.values.get(name, ()), *other.values.get(name, ())] for name in names}
        return Samples(values, {**self.absent, **other.absent})


def parse_samples(text: str) -> Samples:
    """One group's output. TargetError unless it came to its end."""
    values: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    ended = False
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        name, _, body = rest.partition(" ")
        if kind == "sample" and _is_number(body):
            values.setdefault(name, []).append(float(body))
        elif kind == "absent":
            absent[name] = body
        elif line == "end":
            ended = True
        else:
            raise TargetError(f"lmk-calibrate printed {line[:80]!r}", "its version and ours do not fit")
    if not ended:
        raise TargetError("lmk-calibrate stopped half-way", "see the device's log: it may have been killed")
    return Samples(values, absent)


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal()
