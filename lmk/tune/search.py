"""The coordinator: asks for settings, has them simulated, judges them, and writes down what happened.

It works in batches: all settings of one are judged against what was known before it. So what is searched depends on
the study alone, not on how many workers there are or which is faster, and a resumed study ends like one that was
never interrupted.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from typing import Any

import attrs

from lmk.config.calibration import Calibration
from lmk.config.change import with_settings
from lmk.config.device import DeviceConfig
from lmk.sim.run import EVENTS_MAX
from lmk.tune.goals import Goals
from lmk.tune.jobs import Job, Outcome, RunSpec
from lmk.tune.journal import Journal, TrialRow
from lmk.tune.sampler import Sampler
from lmk.tune.space import Space
from lmk.tune.verdict import COMPLETE, FAILED, STOPPED, Rules, Trial, front_of
from lmk.tune.workers import Workers, drive


@attrs.frozen(kw_only=True)
class StudyPlan:
    """A search as asked for, checked."""

    config: DeviceConfig
    calibration: Calibration
    space: Space
    goals: Goals
    runs: tuple[RunSpec, ...]
    trials: int
    batch: int
    sampler: str
    seed: int
    events_max: int = EVENTS_MAX

    def facts(self) -> dict[str, Any]:
        """All that must be the same for a study to go on."""
        return {
            "config": attrs.asdict(self.config),
            "calibration": attrs.asdict(self.calibration),
            "space": [axis.words() for axis in self.space.axes],
            "objectives": list(self.goals.names),
            "constraints": [constraint.text for constraint in self.goals.constraints],
            "runs": [[run.scenario, run.seed, run.text] for run in self.runs],
            "batch": self.batch,
            "sampler": self.sampler,
            "seed": self.seed,
        }

    def job(self, params: dict[str, Any], run: RunSpec) -> Job:
        """One run with one setting."""
        return Job(
            config=with_settings(self.config, params),
            run=run,
            calibration=self.calibration,
            unnecessary=self.goals.unnecessary,
            events_max=self.events_max,
        )


@attrs.define
class _Open:
    """A trial of the batch under way."""

    row: TrialRow
    rules: Rules
    count: int
    done: dict[int, Outcome]
    #: How many runs from the first one on are done and count.
    prefix: int = 0
    state: str = ""
    why: str = ""

    def judge(self) -> bool:
        """Look at the runs that follow each other from the first; True once the trial has ended."""
        while not self.state and self.prefix < self.count and self.prefix in self.done:
            outcome = self.done[self.prefix]
            self.prefix += 1
            if outcome.error is not None:
                self.state, self.why = FAILED, outcome.error
            elif self.prefix == self.count:
                self.state = COMPLETE
            elif why := self.rules.stop([self.done[place].figures for place in range(self.prefix)]):
                self.state, self.why = STOPPED, why
        return bool(self.state)

    def trial(self) -> Trial:
        """The result, once it has ended."""
        good = self.prefix - (self.state == FAILED)
        runs = tuple(self.done[place].figures for place in range(good))
        complete = self.state == COMPLETE
        return Trial(
            number=self.row.number,
            params=dict(self.row.params),
            state=self.state,
            runs=runs,
            why=self.why,
            broken=self.rules.broken(runs) if complete else (),
        )


class Search:
    """One study from its first trial, or from where it stopped, to its last."""

    def __init__(self, plan: StudyPlan, journal: Journal, workers: Workers) -> None:
        self.plan = plan
        self.trials: list[Trial] = []
        self.interrupted = False
        #: Runs that were simulated by this process, and those the file had already.
        self.runs_made = 0
        self.runs_found = 0
        self._journal = journal
        self._workers = workers
        self._sampler = Sampler(plan.space, plan.goals, plan.sampler, plan.seed, plan.trials)

    @property
    def stock(self) -> Trial:
        """The config as it is: trial 0."""
        return self.trials[0]

    @property
    def front(self) -> tuple[Trial, ...]:
        """The best so far."""
        return front_of(self.trials, self.plan.goals)

    def importances(self) -> dict[str, dict[str, float]]:
        """See ``Sampler.importances``."""
        return self._sampler.importances()

    def run(self, told: Callable[[Search], None] = lambda _: None) -> None:
        """Search; ends early, with what is known, on KeyboardInterrupt. ``told`` is called after every run."""
        rows: dict[int, list[TrialRow]] = {}
        for row in self._journal.trials():
            rows.setdefault(row.batch, []).append(row)
        known = self._journal.runs()
        self.runs_found = sum(len(runs) for runs in known.values())
        batch = 0
        try:
            while batch in rows or len(self.trials) <= self.plan.trials:
                old = rows.get(batch)
                if not self._batch(old or self._ask(batch), known, told, restored=old is not None or batch == 0):
                    return
                batch += 1
        except KeyboardInterrupt:
            self.interrupted = True

    def _ask(self, batch: int) -> list[TrialRow]:
        """The next batch, written down before anything of it is run. Batch 0 is stock."""
        first = len(self.trials)
        if batch == 0:
            stock = self.plan.space.stock(self.plan.config)
            rows = [TrialRow(number=0, batch=0, params=stock, sampler={})]
        else:
            count = min(self.plan.batch, self.plan.trials + 1 - first)
            rows = [
                TrialRow(number=first + index, batch=batch, params=asked.params, sampler=_plain(asked.attributes))
                for index, asked in enumerate(self._sampler.ask(batch, count))
            ]
        self._journal.add_trials(rows)
        return rows

    def _batch(
        self,
        rows: list[TrialRow],
        known: dict[int, dict[int, Outcome]],
        told: Callable[[Search], None],
        *,
        restored: bool,
    ) -> bool:
        """Have a batch simulated and judged. False if stock itself failed, against which all is held."""
        front = self.front if self.trials else ()
        stock = self.stock.runs if self.trials else ()
        rules = Rules(goals=self.plan.goals, stock=stock, front=front, count=len(self.plan.runs))
        same = self._same(rows)
        opened = {
            row.number: _Open(row=row, rules=rules, count=rules.count, done=dict(known.get(row.number, {})))
            for row in rows
            if row.number not in same
        }
        try:
            self._simulate(opened, told)
        finally:
            for row in rows:
                self._close(row, opened, same, rules, restored=restored)
        told(self)
        return self.trials[0].state == COMPLETE

    def _same(self, rows: list[TrialRow]) -> dict[int, int]:
        """Which trials of a batch have the setting of an earlier one."""
        first = {json.dumps(trial.params, sort_keys=True): trial.number for trial in reversed(self.trials)}
        found = {}
        for row in rows:
            earlier = first.setdefault(json.dumps(dict(row.params), sort_keys=True), row.number)
            if earlier != row.number:
                found[row.number] = earlier
        return found

    def _simulate(self, opened: dict[int, _Open], told: Callable[[Search], None]) -> None:
        for one in opened.values():
            one.judge()
        # First runs first: most trials that are no good show it early.
        todo = [(0, number) for number in sorted(opened)]

        def next_job() -> tuple[tuple[int, int], Job] | None:
            while todo:
                place, number = heapq.heappop(todo)
                one = opened[number]
                if one.state:
                    continue
                if place + 1 < one.count:
                    heapq.heappush(todo, (place + 1, number))
                if place not in one.done:
                    return (number, place), self.plan.job(dict(one.row.params), self.plan.runs[place])
            return None

        def take(key: tuple[int, int], outcome: Outcome) -> None:
            number, place = key
            self._journal.add_run(number, place, outcome)
            self.runs_made += 1
            opened[number].done[place] = outcome
            opened[number].judge()
            told(self)

        drive(self._workers, next_job, take)

    def _close(
        self, row: TrialRow, opened: dict[int, _Open], same: dict[int, int], rules: Rules, *, restored: bool
    ) -> None:
        """Judge one trial for good, and tell the sampler. One that was interrupted is not judged."""
        if row.number in same:
            earlier = next((trial for trial in self.trials if trial.number == same[row.number]), None)
            if earlier is None:
                return
            trial = attrs.evolve(earlier, number=row.number, same_as=same[row.number])
        elif opened[row.number].state:
            trial = opened[row.number].trial()
        else:
            return
        if row.number == 0:
            rules = attrs.evolve(rules, stock=trial.runs)
            trial = attrs.evolve(trial, broken=rules.broken(trial.runs) if trial.state == COMPLETE else ())
        self.trials.append(trial)
        values = [rules.estimate(trial.runs, name) for name in self.plan.goals.names]
        excesses = rules.excesses(trial.runs)
        if restored:
            self._sampler.restore(trial, values, excesses, row.sampler)
        else:
            self._sampler.tell(trial, values, excesses)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of a sampler's notes; constraints are told anew."""
    return {key: value for key, value in attributes.items() if isinstance(value, int | float | str | bool)}
