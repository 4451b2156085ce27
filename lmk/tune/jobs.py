"""One simulated run as a worker does it: values in, figures out, nothing kept and nothing else looked at.

A job carries the texts and values themselves, so a worker on another machine needs lmk and no file of ours.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.config.load import parse_document
from lmk.config.scenario import Scenario, load_scenario, read_scenario
from lmk.config.timeline import compile_timeline
from lmk.errors import LmkError
from lmk.policy.registry import make_policy
from lmk.resources import scratch_parent
from lmk.sim.check import check_plan
from lmk.sim.overkill import check_kills, unnecessary_kills
from lmk.sim.run import EVENTS_MAX, SimPlan, run_sim
from lmk.tune.goals import Measured, measured


@attrs.frozen(kw_only=True)
class RunSpec:
    """A scenario with one seed; every setting is tried on the same ones."""

    scenario: str
    seed: int
    #: The scenario file as written, and what it is called in messages.
    text: str = attrs.field(repr=False)
    file: str = ""

    @property
    def label(self) -> str:
        """For people: ``app-switching#3``."""
        return f"{self.scenario}#{self.seed}"


@attrs.frozen(kw_only=True)
class Job:
    """One run to be simulated."""

    config: DeviceConfig
    run: RunSpec
    calibration: Calibration
    policy: str = "lmkd"
    #: Count unnecessary kills as well (lmk.sim.overkill).
    unnecessary: bool = False
    events_max: int = EVENTS_MAX


@attrs.frozen(kw_only=True)
class Outcome:
    """Figures of a run, or why it could not be made."""

    figures: Measured
    error: str | None = None


def measure(job: Job) -> Outcome:
    """Simulate one run. A run that fails by its settings is an outcome, not an exception."""
    try:
        check_plan(job.config, job.calibration)
        scenario = _scenario(job.run.text, job.run.file)
        with tempfile.TemporaryDirectory(prefix="lmk-tune-", dir=scratch_parent()) as folder:
            plan = SimPlan(
                config=job.config,
                calibration=job.calibration,
                scenario=scenario,
                scenario_text=job.run.text,
                timeline=compile_timeline(scenario, job.config, job.run.seed),
                policy_name=job.policy,
                make_policy=lambda: make_policy(job.policy, job.config.android),
                run_dir=Path(folder) / "run",
                events_max=job.events_max,
            )
            result = run_sim(plan)
        if job.unnecessary:
            result["summary"]["unnecessary_kills"] = unnecessary_kills(check_kills(plan))
        return Outcome(figures=measured(result))
    except LmkError as error:
        return Outcome(figures={}, error=error.cause)


@functools.lru_cache(maxsize=32)
def _scenario(text: str, file: str) -> Scenario:
    document = parse_document(text, file)
    scenario = read_scenario(document)
    document.problems.raise_if_any()
    return scenario


def run_specs(scenarios: Sequence[Path], seeds: int, first: int = 0) -> tuple[RunSpec, ...]:
    """``seeds`` runs of each scenario, seed by seed; one only of a scenario that is the same with every seed.

    ``first``: how many seeds after the scenario's own the first one is. Raises ConfigErrors.
    """
    loaded = [(path, load_scenario(path), path.read_text(encoding="utf-8")) for path in scenarios]
    found = []
    for index in range(first, first + seeds):
        for path, scenario, text in loaded:
            if index == first or scenario.generate is not None:
                seed = scenario.seed + (index if scenario.generate is not None else 0)
                found.append(RunSpec(scenario=scenario.name, seed=seed, text=text, file=path.name))
    return tuple(found)
