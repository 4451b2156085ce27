"""What a scenario expects of a run (``expect:``), and whether a run's result meets it.

Each expectation is a row of one table: the name a user writes, where the number comes from in a result, and
which side a bare number bounds. Results are the JSON objects of ``lmk run`` and ``lmk sim``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from lmk.config.convert import integer
from lmk.config.load import Section, Value
from lmk.config.quantity import InvalidValue, parse_duration_ms

Result = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Expectation:
    """A bound on one number of the result; None: not bounded on that side."""

    name: str
    minimum: int | None = None
    maximum: int | None = None


@attrs.frozen(kw_only=True)
class Measure:
    """How a number is had from a result; None if the run does not say."""

    observe: Callable[[Result], float | None]
    #: What a bare number in the file bounds.
    bare: Literal["min", "max"] = "max"
    #: A number that nothing contributed to (no kill, no launch) is within any bound.
    empty_is_fine: bool = False
    lowest: int = 0


def _summary(key: str) -> Callable[[Result], float | None]:
    return lambda result: _number(result.get("summary", {}).get(key))


def _kills(result: Result) -> Sequence[Mapping[str, Any]]:
    kills: Sequence[Mapping[str, Any]] = result.get("kills") or ()
    return kills


def _kernel_oom_kills(result: Result) -> float:
    return sum(1 for kill in _kills(result) if kill.get("killer") == "kernel_oom")


def _min_kill_adj(result: Result) -> int | None:
    return min(
        (kill["oom_score_adj"] for kill in _kills(result) if kill.get("oom_score_adj") is not None), default=None
    )


def _kill_reasons(result: Result) -> float:
    return len({kill["reason_code"] for kill in _kills(result) if kill.get("reason_code") is not None})


def _freed_within_ms(result: Result) -> float | None:
    """The slowest kill: signal to reaped, or to exit where nothing reaped."""
    spans_us = [
        span
        for kill in _kills(result)
        if (span := kill.get("signal_to_reaped_us") or kill.get("signal_to_exit_us")) is not None
    ]
    return max(spans_us) / 1000 if spans_us else None


def _launch(kind: str, key: str) -> Callable[[Result], float | None]:
    def observe(result: Result) -> float | None:
        launches = (result.get("summary", {}).get("launch_ms") or {}).get(kind) or {}
        return _number(launches.get(key))

    return observe


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


MEASURES: Final[Mapping[str, Measure]] = {
    "kills": Measure(observe=lambda result: len(_kills(result))),
    "foreground_kills": Measure(observe=_summary("foreground_kills")),
    "perceptible_kills": Measure(observe=_summary("perceptible_kills")),
    "kernel_oom_kills": Measure(observe=_kernel_oom_kills),
    "kill_reasons": Measure(observe=_kill_reasons, bare="min"),
    "min_kill_adj": Measure(observe=_min_kill_adj, bare="min", empty_is_fine=True, lowest=-1000),
    "freed_within_ms": Measure(observe=_freed_within_ms, empty_is_fine=True),
    "psi_some_ms": Measure(observe=_summary("psi_some_ms")),
    "psi_full_ms": Measure(observe=_summary("psi_full_ms")),
    "min_mem_available_kib": Measure(observe=_summary("min_mem_available_kib"), bare="min"),
    "launches": Measure(observe=_summary("launches"), bare="min"),
    "cold_starts": Measure(observe=_summary("cold_starts")),
    "launch_cold_p95_ms": Measure(observe=_launch("cold", "p95"), empty_is_fine=True),
    "launch_warm_p95_ms": Measure(observe=_launch("warm", "p95"), empty_is_fine=True),
}


def read_expectations(top: Section) -> tuple[Expectation, ...]:
    """``expect:`` of a scenario, in the order of MEASURES."""
    found: list[Expectation] = []
    with top.subsection("expect") as section:
        for name, measure in MEASURES.items():
            value = section.get(name)
            if value is not None:
                found.append(_read(name, measure, value))
    return tuple(found)


def _read(name: str, measure: Measure, value: Value) -> Expectation:
    def bound(given: Value) -> int:
        if name.endswith("_ms") and given.kind == "string":
            return parse_duration_ms(given.text)
        if given.kind == "number":
            raise InvalidValue(f"found {given.describe()}, expected a whole number")
        return integer(minimum=measure.lowest)(given)

    if value.kind != "mapping":
        limit = value.convert(bound, 0)
        return Expectation(name=name, minimum=limit) if measure.bare == "min" else Expectation(name=name, maximum=limit)
    with value.section() as section:
        minimum = section.get("min")
        maximum = section.get("max")
        expectation = Expectation(
            name=name,
            minimum=minimum.convert(bound, 0) if minimum else None,
            maximum=maximum.convert(bound, 0) if maximum else None,
        )
    if minimum is None and maximum is None:
        value.error("bounds nothing", "add `min:` or `max:`")
    elif minimum and maximum and _crossed(expectation):
        value.error(f"found min {expectation.minimum} above max {expectation.maximum}")
    return expectation


def _crossed(expectation: Expectation) -> bool:
    low, high = expectation.minimum, expectation.maximum
    return low is not None and high is not None and low > high


def evaluate(expectations: Sequence[Expectation], result: Result) -> list[dict[str, Any]]:
    """``[{name, met, observed, limit}]`` for a result with ``kills`` and ``summary`` (design section 8).

    ``limit`` is ``{"min": …, "max": …}`` with null for an open side. A number that the run does not know is
    ``null`` in ``observed`` and not met, unless its absence means that nothing of the kind happened.
    """
    return [_evaluate(expectation, result) for expectation in expectations]


def _evaluate(expectation: Expectation, result: Result) -> dict[str, Any]:
    measure = MEASURES[expectation.name]
    observed = measure.observe(result)
    if observed is None:
        met = measure.empty_is_fine
    else:
        low, high = expectation.minimum, expectation.maximum
        met = (low is None or observed >= low) and (high is None or observed <= high)
    return {
        "name": expectation.name,
        "met": met,
        "observed": observed,
        "limit": {"min": expectation.minimum, "max": expectation.maximum},
    }
