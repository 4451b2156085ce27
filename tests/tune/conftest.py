"""A study small enough for a test: a device whose figures follow from its settings, and a tiny real scenario."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from lmk.config.calibration import find_calibration, load_calibration
from lmk.config.change import value_of
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.tune.goals import METRIC_BY_NAME, make_goals
from lmk.tune.jobs import Job, Outcome, RunSpec
from lmk.tune.journal import Journal
from lmk.tune.search import Search, StudyPlan
from lmk.tune.space import make_space

TINY = """\
name: tiny
seed: 7
apps:
  launcher: {role: home, process: com.android.launcher3, anon: 3%, file: 2%, hot: 0.5, cold_start: 200ms}
  one: {process: com.example.one, anon: 25%, file: 5%, hot: 0.4, cold_start: 300ms}
  two: {process: com.example.two, anon: 30%, file: 8%, hot: 0.4, compressibility: 1.5, cold_start: 300ms}
  three: {process: com.example.three, anon: 35%, file: 8%, hot: 0.4, cold_start: 300ms}
generate: {duration: 12s, apps: [one, two, three], stay: {min: 2s, max: 3s}}
"""
SPACE = ("swap_free_low_percentage=0..30", "vm.swappiness=20..200:5", "kill_heaviest_task")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A scenario that takes a few hundredths of a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def invented(job: Job) -> Outcome:
    """Cold starts fall and stalls rise with the swap limit; swappiness 100 is best; each seed adds its own noise."""
    low = int(value_of(job.config, "swap_free_low_percentage") or 0)
    swappiness = int(value_of(job.config, "vm.swappiness") or 0)
    if swappiness == 20:
        return Outcome(figures={}, error="too little swap")
    noise = job.run.seed * 7 % 5 / 10
    figures: dict[str, float | None] = dict.fromkeys(METRIC_BY_NAME, 0.0)
    figures["cold_starts"] = 40 - low + abs(swappiness - 100) / 10 + noise
    figures["psi_full_ms"] = 100.0 + 20 * low + noise
    figures["foreground_kills"] = 1.0 if low > 25 else 0.0
    return Outcome(figures=figures)


class ThreadWorkers:
    """Workers that answer out of order: an even seed takes longer. ``limit`` runs, then Ctrl-C."""

    def __init__(self, count: int, answer: Callable[[Job], Outcome] = invented, limit: int = 10**9) -> None:
        self.slots = count
        self.jobs: list[Job] = []
        self._answer = answer
        self._limit = limit
        self._pool: Executor = ThreadPoolExecutor(count)

    @property
    def given_up(self) -> tuple[type[BaseException], ...]:
        return ()

    def submit(self, job: Job) -> Future[Outcome]:
        if len(self.jobs) >= self._limit:
            raise KeyboardInterrupt
        self.jobs.append(job)
        return self._pool.submit(self._run, job)

    def _run(self, job: Job) -> Outcome:
        time.sleep(0.001 * (job.run.seed % 2))
        return self._answer(job)

    def restart(self) -> bool:
        return False

    def close(self) -> None:
        self._pool.shutdown()


Study = Callable[..., Search]


@pytest.fixture
def plan() -> StudyPlan:
    config = load_device_config(find_config("phone-2gb"))
    return StudyPlan(
        config=config,
        calibration=load_calibration(find_calibration("published")),
        space=make_space(SPACE, config),
        goals=make_goals(["cold_starts", "psi_full_ms"], ["foreground_kills<=0"]),
        runs=tuple(RunSpec(scenario="invented", seed=seed, text="") for seed in range(6)),
        trials=24,
        batch=8,
        sampler="tpe",
        seed=3,
    )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Runs a plan to its end, or to the workers' limit, on a file in the test's directory."""

    def run(plan: StudyPlan, workers: ThreadWorkers, name: str = "study.sqlite", *, resume: bool = False) -> Search:
        journal = Journal(tmp_path / name, plan.facts(), resume=resume)
        try:
            search = Search(plan, journal, workers)
            search.run()
            return search
        finally:
            workers.close()
            journal.close()

    return run
