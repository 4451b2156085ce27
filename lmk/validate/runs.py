"""Runs of a validation: undisturbed ones of the emulator, kept under the key of their input, and simulated ones."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from lmk.config.calibration import Calibration
from lmk.config.timeline import Timeline, jittered
from lmk.errors import TargetError, UserError
from lmk.live.devices import TargetName
from lmk.live.session import Plan, run_live
from lmk.live.watcher import Watcher
from lmk.policy.api import Policy
from lmk.policy.scheduled import Schedule, ScheduledKill, ScheduledPolicy
from lmk.record.reader import RecordReader
from lmk.record.schema import EventRow
from lmk.resources import state_dir
from lmk.sim.run import SimPlan, run_sim
from lmk.validate.inputs import Input, read_simulated
from lmk.validate.view import RunView, view_run

#: After so many disturbed runs in a row there is no point in going on.
_DISTURBED_MAX = 3
#: How far apart the emulator carries out the same step in two runs, at most, while its CPUs are busy.
STEP_JITTER_MS = 20
QEMU = TargetName(kind="qemu", name="")

#: Makes one emulator run in a directory.
MakeRun = Callable[[Input, Path, Watcher], None]


def run_on_emulator(given: Input, run_dir: Path, watcher: Watcher) -> None:
    """The usual ``MakeRun``."""
    policy = given.make_policy()
    run_live(
        Plan(
            config=given.config,
            scenario=given.scenario,
            timeline=given.timeline,
            target=QEMU,
            policy_name=policy.name,
            make_policy=lambda: policy,
            dry_run=False,
            run_dir=run_dir,
            on_started=_begin(policy),
        ),
        watcher,
    )


def kept_runs(given: Input) -> list[Path]:
    """Complete, undisturbed runs of this input, the oldest first."""
    folder = state_dir("validate", given.key)
    found = []
    for path in sorted(folder.glob("run-*")):
        try:
            with RecordReader(path) as record:
                if record.meta.get("complete") and record.meta.get("disturbed") is False:
                    found.append(path)
        except UserError:
            continue
    return found


def make_runs(
    given: Input,
    count: int,
    watcher: Watcher,
    *,
    until_s: float,
    make_run: MakeRun = run_on_emulator,
    clock: Callable[[], float] = time.monotonic,
) -> list[Path]:
    """Make what is missing of ``count`` runs, beginning none after ``until_s``; all that there are then, ``count`` at
    most. TargetError when the host is too busy for an undisturbed one."""
    disturbed = 0
    while len(done := kept_runs(given)) < count and clock() < until_s:
        watcher.progress(f"{given.timeline.scenario}, {given.setting}: emulator run {len(done) + 1} of {count}", None)
        run_dir = state_dir("validate", given.key) / f"run-{time.time_ns():020d}"
        make_run(given, run_dir, watcher)
        if len(kept_runs(given)) > len(done):
            disturbed = 0
            continue
        shutil.rmtree(run_dir, ignore_errors=True)
        disturbed += 1
        if disturbed >= _DISTURBED_MAX:
            raise TargetError(
                f"{disturbed} emulator runs in a row were disturbed: others used more than 10 % of this host",
                "run it again when nothing else runs; what is done is kept",
            )
    return done[:count]


def view(path: Path, from_ms: int) -> RunView:
    """A kept run."""
    with RecordReader(path) as record:
        return view_run(record, from_ms)


def closed_loop(given: Input, calibration: Calibration, count: int) -> list[RunView]:
    """Simulated runs in which lmkd decides, each with its steps moved as the emulator moves them."""
    views = []
    for index in range(count):
        timeline = jittered(given.timeline, index, STEP_JITTER_MS)
        with tempfile.TemporaryDirectory(prefix="lmk-validate-") as folder:
            plan = _plan(given, calibration, timeline, Path(folder) / "run")
            views.append(read_simulated(plan, lambda record: view_run(record, given.from_ms)))
    return views


def open_loop(given: Input, calibration: Calibration, path: Path) -> tuple[RunView, int]:
    """The simulator with the launches and kills of a real run; how many kills had nobody to kill."""
    again = repeating(given, path)
    assert again.again is not None
    policy = ScheduledPolicy(again.again)
    with tempfile.TemporaryDirectory(prefix="lmk-validate-") as folder:
        plan = attrs.evolve(
            _plan(again, calibration, again.timeline, Path(folder) / "run"),
            policy_name=policy.name,
            make_policy=lambda: policy,
            on_started=_begin(policy),
        )
        run_sim(plan)
        return view(plan.run_dir, given.from_ms), policy.missed


def repeating(given: Input, path: Path) -> Input:
    """The input with a run's own launches, kills and looks, at the moments at which it carried them out."""
    with RecordReader(path) as record:
        zero_ns = record.zero_ns
        kills = [ScheduledKill(t_ms=(kill.t_ns - zero_ns) / 1e6, name=kill.name or "") for kill in record.kills()]
        looks_ms = [(row.t_ns - zero_ns) / 1e6 for row in record.counters() if row.t_ns > zero_ns]
        timeline = with_recorded_times(given.timeline, record.app_events("step"))
    return attrs.evolve(
        given,
        timeline=timeline,
        again=Schedule(kills=tuple(kills), looks_ms=tuple(looks_ms)),
        setting=f"the kills of {path.name}",
    )


def _begin(policy: Policy) -> Callable[[int], None]:
    return policy.begin if isinstance(policy, ScheduledPolicy) else lambda _: None


def with_recorded_times(timeline: Timeline, steps: Sequence[EventRow]) -> Timeline:
    """The steps at the moments at which a run carried them out; as planned where its record has others."""
    taken = [(str(event.body["action"]), str(event.body["app"]), float(event.body["t_ms"])) for event in steps]
    planned = [(step.action, timeline.processes[step.process].process_name) for step in timeline.steps]
    if [(action, app) for action, app, _ in taken] != planned:
        return timeline
    moved = tuple(
        attrs.evolve(step, t_ms=min(round(t_ms), timeline.duration_ms))
        for step, (_, _, t_ms) in zip(timeline.steps, taken, strict=True)
    )
    return attrs.evolve(timeline, steps=moved)


def _plan(given: Input, calibration: Calibration, timeline: Timeline, run_dir: Path) -> SimPlan:
    return SimPlan(
        config=given.config,
        calibration=calibration,
        scenario=given.scenario,
        timeline=timeline,
        policy_name="lmkd",
        make_policy=given.make_policy,
        run_dir=run_dir,
    )
