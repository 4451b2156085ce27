"""What is said of a winner: unseen runs, one setting at a time, other rates."""

from __future__ import annotations

import attrs
import pytest

from lmk.config.change import value_of
from lmk.tune.analysis import at_other_rates, rate_names, scaled, sensitivity, unseen
from lmk.tune.jobs import Job, Outcome, RunSpec
from lmk.tune.search import StudyPlan
from lmk.tune.verdict import Trial, choose
from tests.tune.conftest import Study, ThreadWorkers, invented


def quiet(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def winner(study: Study, plan: StudyPlan) -> Trial:
    search = study(plan, ThreadWorkers(2))
    best = choose(search.front, search.stock, plan.goals)
    assert best is not None
    assert best.number
    return best


def test_a_setting_that_changes_no_run_is_dead(plan: StudyPlan, winner: Trial) -> None:
    sheets = {sheet["name"]: sheet for sheet in sensitivity(plan, winner, 4, ThreadWorkers(2), quiet)}
    assert sheets["kill_heaviest_task"]["dead"]
    assert not sheets["swap_free_low_percentage"]["dead"]
    values = [row["value"] for row in sheets["swap_free_low_percentage"]["values"]]
    assert values == sorted(values)
    assert winner.params["swap_free_low_percentage"] in values
    worst = sheets["swap_free_low_percentage"]["values"][-1]
    assert worst["broken"] == ["foreground_kills"]
    assert sheets["vm.swappiness"]["values"][0]["error"] == "too little swap"


def test_unseen_runs_are_paired(plan: StudyPlan, winner: Trial) -> None:
    runs = [RunSpec(scenario="invented", seed=seed, text="") for seed in range(100, 105)]
    compared = unseen(plan, winner.params, runs, ThreadWorkers(2), quiet)
    assert compared is not None
    cold = next(metric for metric in compared["metrics"] if metric["name"] == "cold_starts")
    assert cold["others"][0]["pairs"] == 5
    assert unseen(plan, {"vm.swappiness": 20}, runs, ThreadWorkers(2), quiet) is None


def test_each_rate_alone_is_moved_and_a_lost_win_is_named(plan: StudyPlan, winner: Trial) -> None:
    better = attrs.evolve(winner, params={"vm.swappiness": 100})
    plan = attrs.evolve(plan, config=attrs.evolve(plan.config, vm={**plan.config.vm, "swappiness": 60}))

    def answer(job: Job) -> Outcome:
        outcome = invented(job)
        slow = job.calibration.reap_ns > plan.calibration.reap_ns
        if slow and value_of(job.config, "vm.swappiness") == 100:
            return attrs.evolve(outcome, figures={**outcome.figures, "cold_starts": 99.0})
        return outcome

    rows = at_other_rates(plan, better, plan.runs[:2], ThreadWorkers(2, answer), quiet)
    assert {row["rate"] for row in rows} >= {"fault_ns", "zram.write_ns", "reap_ns", "event_us"}
    assert not any(row["rate"].startswith(("storage_iops", "kernel_")) for row in rows)
    lost = [row for row in rows if not row["wins"]]
    assert [(row["rate"], row["factor"]) for row in lost] == [("reap_ns", 3.0)]
    assert lost[0]["differences"]["cold_starts"] > 0


def test_scaling_moves_one_rate_only(plan: StudyPlan) -> None:
    rates = plan.calibration
    for name in rate_names(rates, algorithm="lz4", has_storage=False):
        moved = scaled(rates, name, 3.0, "lz4")
        changed = [key for key, value in attrs.asdict(moved).items() if value != attrs.asdict(rates)[key]]
        assert changed == ["zram" if name.startswith("zram.") else name]
    assert scaled(rates, "zram.read_ns", 0.3, "lz4").zram["zstd"] == rates.zram["zstd"]
    assert scaled(attrs.evolve(rates, touch_ns=1), "touch_ns", 0.3, None).touch_ns == 1
