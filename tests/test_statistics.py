"""Statistics by their properties, and by values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.statistics import (
    affected_by_chance,
    deviation,
    half_interval_95,
    median,
    quantile,
    ranks,
    rmse,
    separated_95,
    spearman,
    t_95,
)

numbers = st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=30)


def test_values_worked_out_by_hand() -> None:
    assert deviation([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx((32 / 7) ** 0.5)
    assert half_interval_95([1, 2, 3]) == pytest.approx(4.303 / 3**0.5)
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert median([3, 1, 2]) == 2
    assert rmse([0, 0], [3, 4]) == pytest.approx((25 / 2) ** 0.5)
    assert ranks([10, 30, 20, 20]) == [1, 4, 2.5, 2.5]
    assert spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.8207826817)
    assert t_95(2) == 4.303 and t_95(1000) == 1.96


@given(numbers)
def test_a_curve_agrees_with_itself(values: list[float]) -> None:
    assert rmse(values, values) == 0
    together = spearman(values, values)
    assert together is None if len(set(values)) == 1 else together == pytest.approx(1)
    backwards = spearman(values, [-value for value in values])
    assert backwards is None or backwards == pytest.approx(-1)
    assert not separated_95(values, values)


@given(numbers, st.randoms(use_true_random=False))
def test_order_of_pairs_does_not_matter(values: list[float], random: object) -> None:
    others = [value * value for value in values]
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first = spearman(values, others)
    second = spearman([values[i] for i in order], [others[i] for i in order])
    assert (first is None) == (second is None)
    assert first is None or first == pytest.approx(second)


@given(numbers, st.floats(0, 1))
def test_quantiles_lie_between_the_extremes(values: list[float], share: float) -> None:
    assert min(values) <= quantile(values, share) <= max(values)
    assert quantile(values, 0) == min(values) and quantile(values, 1) == max(values)


@given(numbers)
def test_ranks_are_a_permutation_up_to_ties(values: list[float]) -> None:
    assert sum(ranks(values)) == pytest.approx(len(values) * (len(values) + 1) / 2)


def test_means_far_apart_are_separated_and_near_ones_are_not() -> None:
    assert separated_95([1.0, 1.1, 0.9], [5.0, 5.1, 4.9])
    assert not separated_95([1.0, 3.0, 2.0], [2.0, 4.0, 3.0])
    assert separated_95([1.0, 1.0], [2.0, 2.0])


def test_affected_runs_against_chance() -> None:
    assert affected_by_chance(0, 16, 4, 4) == pytest.approx(1 / 4845)  # one way of choosing four of twenty
    assert affected_by_chance(0, 16, 0, 4) == 1
    assert affected_by_chance(1, 64, 3, 4) == pytest.approx((4 * 64 + 1) / 814385)
