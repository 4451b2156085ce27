"""Against a baseline: no alarm among equals, an alarm for what is really worse, and never one for what is better."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.ci.judge import SLACK, judge
from lmk.report.compare import METRICS

COUNTS = st.lists(st.integers(0, 40), min_size=3, max_size=20)


def verdict_on(name: str, before: list[float], after: list[float]) -> tuple[bool, bool]:
    (verdict,) = judge({name: before}, {name: after})
    return verdict.worse, verdict.better


@given(values=COUNTS)
def test_a_baseline_is_not_worse_than_itself(values: list[int]) -> None:
    for metric in METRICS:
        if metric.name in SLACK:
            assert verdict_on(metric.name, list(values), list(values)) == (False, False)


def test_equal_noise_raises_no_alarm() -> None:
    rng = random.Random(3)
    alarms = 0
    for _ in range(500):
        before = [rng.gauss(100, 15) for _ in range(16)]
        after = [rng.gauss(100, 15) for _ in range(4)]
        alarms += verdict_on("psi_full_ms", before, after)[0]
    assert alarms == 0


def test_what_is_far_beyond_the_noise_is_worse() -> None:
    rng = random.Random(4)
    before = [rng.gauss(1000, 50) for _ in range(16)]
    assert verdict_on("psi_full_ms", before, [rng.gauss(1500, 50) for _ in range(4)]) == (True, False)
    assert verdict_on("psi_full_ms", before, [rng.gauss(500, 50) for _ in range(4)]) == (False, True)


def test_where_more_is_better_less_is_worse() -> None:
    assert verdict_on("min_mem_available_kib", [500_000.0] * 5, [400_000.0]) == (True, False)
    assert verdict_on("min_mem_available_kib", [500_000.0] * 5, [600_000.0]) == (False, True)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ([0] * 16, [0, 0, 0, 1], False),  # one run in twenty may just be the one
        ([0] * 64, [0, 0, 1, 1], False),
        ([0] * 64, [0, 1, 1, 1], True),
        ([0] * 5, [1, 1, 1, 1], True),
        ([0] * 5, [1], True),
        ([0] * 63 + [1], [0, 1, 1, 1], False),
        ([0] * 63 + [1], [1, 1, 1, 1], True),
        ([1] * 64, [2, 2, 2, 2], True),
        ([1] * 64, [1, 1, 1, 2], False),
    ],
)
def test_kills_of_what_the_user_sees_count_by_the_runs_that_had_them(
    before: list[float], after: list[float], worse: bool
) -> None:
    for name in ("foreground_kills", "perceptible_kills", "kernel_oom_kills"):
        assert verdict_on(name, before, after)[0] is worse


def test_a_rare_kill_raises_no_alarm() -> None:
    """One run in two hundred of a shipped cell kills a perceptible app, none of its baseline's sixteen did."""
    rng = random.Random(5)
    alarms = 0
    for _ in range(2000):
        runs = [float(rng.random() < 0.01) for _ in range(64 + 4)]
        alarms += verdict_on("perceptible_kills", runs[:64], runs[64:])[0]
    assert alarms == 0


def test_a_small_difference_is_nobodys_business() -> None:
    assert verdict_on("kills", [10.0] * 16, [11.0] * 4) == (False, False)


@pytest.mark.parametrize(("before", "after", "note"), [([], [1.0], "not in"), ([1.0], [], "not seen")])
def test_nothing_to_compare_says_so(before: list[float], after: list[float], note: str) -> None:
    (verdict,) = judge({"kills": before}, {"kills": after})
    assert note in verdict.note
    assert not verdict.worse
    assert verdict.limit is None
