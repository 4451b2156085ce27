"""The coordinator: the same study with any number of workers, and through any interruption."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from lmk.errors import UserError
from lmk.tune.journal import Journal
from lmk.tune.search import StudyPlan
from lmk.tune.verdict import FAILED, STOPPED, choose
from tests.tune.conftest import Study, ThreadWorkers


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_study_does_not_depend_on_how_many_workers_there_are(study: Study, plan: StudyPlan, sampler: str) -> None:
    plan = attrs.evolve(plan, sampler=sampler)
    one = study(plan, ThreadWorkers(1), "one.sqlite")
    many = study(plan, ThreadWorkers(7), "many.sqlite")
    assert one.trials == many.trials
    assert len(one.trials) == plan.trials + 1
    assert one.importances() == many.importances()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_an_interrupted_study_ends_like_one_that_was_not(study: Study, plan: StudyPlan, sampler: str) -> None:
    plan = attrs.evolve(plan, sampler=sampler, trials=60)
    whole = study(plan, ThreadWorkers(2), "whole.sqlite")
    first = study(plan, ThreadWorkers(2, limit=37))
    assert first.interrupted
    second = study(plan, ThreadWorkers(3, limit=60), resume=True)
    assert second.interrupted
    third = study(plan, ThreadWorkers(2), resume=True)
    assert third.trials == whole.trials
    assert third.front == whole.front
    assert third.runs_found == first.runs_made + second.runs_made


def test_nothing_that_was_counted_is_run_again(study: Study, plan: StudyPlan) -> None:
    before = ThreadWorkers(2, limit=50)
    made = study(plan, before).runs_made
    after = ThreadWorkers(2)
    study(plan, after, resume=True)
    counted = [(job.config.own_properties, job.config.vm, job.run.seed) for job in before.jobs[:made]]
    again = [(job.config.own_properties, job.config.vm, job.run.seed) for job in after.jobs]
    # What was under way when the interrupt came (at most one run for each slot) may be made again, no more.
    assert sum(job in again for job in counted) <= before.slots


def test_a_finished_study_runs_nothing(study: Study, plan: StudyPlan) -> None:
    whole = study(plan, ThreadWorkers(2))
    idle = ThreadWorkers(2)
    assert study(plan, idle, resume=True).trials == whole.trials
    assert idle.jobs == []


def test_more_trials_may_be_added(study: Study, plan: StudyPlan) -> None:
    study(plan, ThreadWorkers(2))
    longer = study(attrs.evolve(plan, trials=32), ThreadWorkers(2), resume=True)
    assert len(longer.trials) == 33


def test_the_front_keeps_the_constraints_and_holds_no_setting_twice(study: Study, plan: StudyPlan) -> None:
    search = study(attrs.evolve(plan, trials=60), ThreadWorkers(2))
    values = [trial.values(plan.goals) for trial in search.front]
    assert len(set(values)) == len(values)
    assert all(int(trial.params["swap_free_low_percentage"]) <= 25 for trial in search.front)
    for a in values:
        assert not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in values)
    best = choose(search.front, search.stock, plan.goals)
    assert best is not None


def test_hopeless_trials_end_early_and_failed_ones_say_why(study: Study, plan: StudyPlan) -> None:
    search = study(attrs.evolve(plan, trials=60, sampler="random"), ThreadWorkers(2))
    stopped = [trial for trial in search.trials if trial.state == STOPPED]
    assert stopped
    assert all(len(trial.runs) < len(plan.runs) for trial in stopped)
    broken = [trial for trial in stopped if trial.why.startswith("breaks foreground_kills")]
    assert broken
    assert all(len(trial.runs) == 1 for trial in broken)
    failed = [trial for trial in search.trials if trial.state == FAILED]
    assert all(trial.why == "too little swap" and trial.params["vm.swappiness"] == 20 for trial in failed)


def test_another_question_is_another_study(study: Study, plan: StudyPlan, tmp_path: Path) -> None:
    study(plan, ThreadWorkers(2))
    with pytest.raises(UserError, match="another seed"):
        Journal(tmp_path / "study.sqlite", attrs.evolve(plan, seed=4).facts(), resume=True)
    with pytest.raises(UserError, match="--resume"):
        Journal(tmp_path / "study.sqlite", plan.facts(), resume=False)
    with pytest.raises(UserError, match="no such study"):
        Journal(tmp_path / "other.sqlite", plan.facts(), resume=True)


def test_one_coordinator_at_a_time(plan: StudyPlan, tmp_path: Path) -> None:
    first = Journal(tmp_path / "study.sqlite", plan.facts(), resume=False)
    with pytest.raises(UserError, match="at work on it"):
        Journal(tmp_path / "study.sqlite", plan.facts(), resume=True)
    first.close()
    Journal(tmp_path / "study.sqlite", plan.facts(), resume=True).close()


def test_a_file_of_somebody_else_is_left_alone(plan: StudyPlan, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("shopping list, long enough to be no database\n" * 20)
    with pytest.raises(UserError, match="is no study"):
        Journal(other, plan.facts(), resume=True)
    assert other.read_text().startswith("shopping")
