"""Expectations against results."""

from __future__ import annotations

from typing import Any

import pytest

from lmk.config.expect import MEASURES, Expectation, evaluate

KILLS = [
    {"oom_score_adj": 950, "reason_code": 3, "killer": "lmk", "signal_to_reaped_us": 20_000, "signal_to_exit_us": 1},
    {"oom_score_adj": 700, "reason_code": 8, "killer": "lmk", "signal_to_reaped_us": None, "signal_to_exit_us": 91_500},
    {"oom_score_adj": None, "reason_code": None, "killer": "kernel_oom"},
]
SUMMARY = {
    "foreground_kills": 0,
    "perceptible_kills": 1,
    "launches": 30,
    "cold_starts": 4,
    "psi_some_ms": 900,
    "psi_full_ms": 300,
    "min_mem_available_kib": 51200,
    "launch_ms": {"cold": {"n": 4, "p50": 1, "p95": 2500.5, "max": 3}, "warm": {"n": 0, "p50": None, "p95": None}},
}
RESULT = {"kills": KILLS, "summary": SUMMARY}


@pytest.mark.parametrize(
    ("name", "observed"),
    [
        ("kills", 3),
        ("foreground_kills", 0),
        ("perceptible_kills", 1),
        ("kernel_oom_kills", 1),
        ("kill_reasons", 2),
        ("min_kill_adj", 700),
        ("freed_within_ms", 91.5),
        ("psi_some_ms", 900),
        ("psi_full_ms", 300),
        ("min_mem_available_kib", 51200),
        ("launches", 30),
        ("cold_starts", 4),
        ("launch_cold_p95_ms", 2500.5),
        ("launch_warm_p95_ms", None),
    ],
)
def test_what_is_observed(name: str, observed: float | None) -> None:
    assert evaluate([Expectation(name=name, maximum=10**9)], RESULT) == [
        {"name": name, "met": True, "observed": observed, "limit": {"min": None, "max": 10**9}}
    ]


def test_every_measure_is_tested_above() -> None:
    tested = test_what_is_observed.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert [name for name, _ in tested] == list(MEASURES)


@pytest.mark.parametrize(
    ("low", "high", "met"), [(3, 3, True), (4, None, False), (None, 2, False), (1, None, True), (None, 3, True)]
)
def test_bounds_include_their_ends(low: int | None, high: int | None, met: bool) -> None:
    assert evaluate([Expectation(name="kills", minimum=low, maximum=high)], RESULT)[0]["met"] is met


@pytest.mark.parametrize("result", [{}, {"kills": [], "summary": {}}, {"kills": None, "summary": {"launch_ms": None}}])
def test_what_did_not_happen(result: dict[str, Any]) -> None:
    def met(name: str, **bounds: int) -> bool:
        return bool(evaluate([Expectation(name=name, **bounds)], result)[0]["met"])

    assert met("min_kill_adj", minimum=200)
    assert met("freed_within_ms", maximum=5)
    assert met("launch_cold_p95_ms", maximum=5)
    assert met("kills", maximum=0)
    # A number that the run should know and does not is never taken for good.
    assert not met("psi_full_ms", maximum=5)
    assert not met("launches", minimum=0)
