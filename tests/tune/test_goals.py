"""Objectives and constraints, and the rules that end a trial early."""

from __future__ import annotations

import pytest

from lmk.errors import UserError
from lmk.tune.goals import METRIC_BY_NAME, Measured, make_goals
from lmk.tune.verdict import COMPLETE, Rules, Trial, choose, front_of


def run(**figures: float | None) -> Measured:
    return {**dict.fromkeys(METRIC_BY_NAME, 0.0), **figures}


def trial(number: int, *runs: Measured, broken: tuple[str, ...] = ()) -> Trial:
    return Trial(number=number, params={"x": number}, state=COMPLETE, runs=runs, broken=broken)


@pytest.mark.parametrize(
    ("objective", "constraint", "words"),
    [
        ("cold_start", "", "did you mean cold_starts"),
        ("", "foreground_kills<0", "not a comparison"),
        ("", "frontground_kills<=0", "did you mean foreground_kills"),
        ("", "psi_full_ms<=stocks", "not a comparison"),
    ],
)
def test_mistakes_are_named(objective: str, constraint: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_goals([objective] if objective else [], [constraint] if constraint else [])
    assert words in str(caught.value)


def test_limits_are_numbers_or_multiples_of_stock() -> None:
    fixed, share, least = make_goals(
        [], ["kills <= 3", "psi_full_ms<=1.5*stock", "min_mem_available_kib>=stock"]
    ).constraints
    assert fixed.excess(4, 100) == 1
    assert share.excess(160, 100) == 10
    assert share.excess(150, 100) == 0
    assert least.excess(90, 100) == 10
    assert least.excess(None, 100) == 0


def test_visible_kills_are_those_the_user_sees() -> None:
    kills = [{"oom_score_adj": adj} for adj in (-800, 0, 100, 199, 200, 900, None)]
    assert METRIC_BY_NAME["visible_kills"].observe({"kills": kills}) == 4


def rules(
    *front: Trial, stock: tuple[Measured, ...], constraints: tuple[str, ...] = ("foreground_kills<=stock",)
) -> Rules:
    return Rules(
        goals=make_goals(["cold_starts", "psi_full_ms"], constraints), stock=stock, front=front, count=len(stock)
    )


def test_a_broken_constraint_ends_a_trial_as_soon_as_nothing_can_mend_it() -> None:
    stock = (run(foreground_kills=1),) + (run(),) * 5
    judge = rules(stock=stock)
    assert judge.stop([run(foreground_kills=1)]) == ""
    assert "breaks foreground_kills<=stock" in judge.stop([run(foreground_kills=1), run(foreground_kills=1)])


def test_domination_needs_confidence() -> None:
    good = trial(4, *(run(cold_starts=10 + i, psi_full_ms=100) for i in range(6)))
    judge = rules(good, stock=good.runs)
    worse = [run(cold_starts=12 + i + i % 2 * 0.1, psi_full_ms=100) for i in range(6)]
    assert judge.stop(worse[:3]) == ""
    assert "dominated by trial 4" in judge.stop(worse[:4])
    unsure = [run(cold_starts=10 + i + (5 if i % 2 else -4), psi_full_ms=100) for i in range(6)]
    assert judge.stop(unsure) == ""
    traded = [run(cold_starts=12 + i, psi_full_ms=90) for i in range(6)]
    assert judge.stop(traded) == ""


def test_what_is_missing_is_estimated_from_the_pairs() -> None:
    stock = tuple(run(cold_starts=value) for value in (10, 20, 30, 40))
    judge = rules(stock=stock)
    assert judge.estimate([run(cold_starts=12), run(cold_starts=22)], "cold_starts") == 27


def test_the_front_and_the_choice() -> None:
    goals = make_goals(["cold_starts", "psi_full_ms"], ["kills<=9"])
    stock = trial(0, run(cold_starts=20, psi_full_ms=100))
    trials = [
        stock,
        trial(1, run(cold_starts=10, psi_full_ms=140)),
        trial(2, run(cold_starts=12, psi_full_ms=90)),
        trial(3, run(cold_starts=12, psi_full_ms=95)),
        trial(4, run(cold_starts=5, psi_full_ms=5), broken=("kills<=9",)),
        trial(5, run(cold_starts=12, psi_full_ms=90)),
    ]
    front = front_of(trials, goals)
    assert [one.number for one in front] == [1, 2]
    best = choose(front, stock, goals)
    assert best is not None
    assert best.number == 2
