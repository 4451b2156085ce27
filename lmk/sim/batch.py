"""Many simulated runs at once, on all cores. Each is a process of its own, so none can disturb another."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from lmk.config.calibration import load_calibration
from lmk.config.device import load_device_config
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.policy.registry import make_policy
from lmk.sim.check import check_plan
from lmk.sim.run import EVENTS_MAX, SimPlan, run_sim


@attrs.frozen(kw_only=True)
class SimJob:
    """One run: files by path, ``release`` of lmkd where it is not the config's, ``seed`` None for the scenario's."""

    config: Path
    scenario: Path
    calibration: Path
    policy: str
    release: str | None = None
    seed: int | None = None
    events_max: int = EVENTS_MAX


def run_job(job: SimJob) -> dict[str, Any]:
    """The JSON object of one run; its record is not kept. Raises LmkError."""
    config, scenario = load_device_config(job.config), load_scenario(job.scenario)
    calibration = load_calibration(job.calibration)
    check_plan(config, calibration)
    release = job.release or config.android
    with tempfile.TemporaryDirectory(prefix="lmk-sim-") as folder:
        result = run_sim(
            SimPlan(
                config=config,
                calibration=calibration,
                scenario=scenario,
                timeline=compile_timeline(scenario, config, job.seed),
                policy_name=job.policy,
                make_policy=lambda: make_policy(job.policy, release),
                run_dir=Path(folder) / "run",
                events_max=job.events_max,
            )
        )
    return {**result, "record": None}


def run_jobs(
    jobs: Sequence[SimJob], workers: int | None = None, done: Callable[[int], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Results in the order of the jobs; ``done`` is told how many are finished. Raises the first LmkError."""
    workers = min(len(jobs), workers or os.cpu_count() or 1)
    if workers <= 1:
        results = []
        for job in jobs:
            results.append(run_job(job))
            done(len(results))
        return results
    with ProcessPoolExecutor(workers) as pool:
        results = []
        for result in pool.map(run_job, jobs):
            results.append(result)
            done(len(results))
        return results
