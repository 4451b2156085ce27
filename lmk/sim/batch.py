"""Many simulated runs at once, on all cores. Each is a process of its own, so none can disturb another."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from lmk.config.calibration import load_calibration, with_kill_delay
from lmk.config.device import load_device_config
from lmk.config.override import override
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline, jittered
from lmk.policy.registry import make_policy
from lmk.resources import scratch_parent
from lmk.sim.check import check_plan
from lmk.sim.overkill import check_kills, unnecessary_kills
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
    #: See lmk.config.timeline.jittered.
    jitter: int = 0
    #: In place of the config's own, by full name (lmk.config.override).
    settings: Mapping[str, str] = attrs.field(factory=dict)
    #: Added to the way from a decision to its SIGKILL: a fault put in on purpose.
    kill_delay_ms: int = 0
    events_max: int = EVENTS_MAX
    #: Count the kills that were unnecessary too, as summary.unnecessary_kills (lmk.sim.overkill).
    unnecessary: bool = False
    #: Where to leave the record; None: it is not kept.
    run_dir: Path | None = None


def run_job(job: SimJob) -> dict[str, Any]:
    """The JSON object of one run. Raises LmkError."""
    config, scenario = override(load_device_config(job.config), job.settings), load_scenario(job.scenario)
    calibration = with_kill_delay(load_calibration(job.calibration), job.kill_delay_ms)
    check_plan(config, calibration)
    release = job.release or config.android
    with tempfile.TemporaryDirectory(prefix="lmk-sim-", dir=scratch_parent()) as folder:
        plan = SimPlan(
            config=config,
            calibration=calibration,
            scenario=scenario,
            timeline=jittered(compile_timeline(scenario, config, job.seed), job.jitter),
            policy_name=job.policy,
            make_policy=lambda: make_policy(job.policy, release),
            run_dir=job.run_dir or Path(folder) / "run",
            events_max=job.events_max,
        )
        result = run_sim(plan)
    if job.unnecessary:
        result["summary"]["unnecessary_kills"] = unnecessary_kills(check_kills(plan))
    return result if job.run_dir is not None else {**result, "record": None}


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
