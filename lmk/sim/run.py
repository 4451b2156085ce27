"""One simulated run from start to end: device, policy, record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from lmk import __version__
from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.config.dump import dump_device
from lmk.config.override import in_mode
from lmk.config.scenario import Scenario
from lmk.config.timeline import Timeline
from lmk.engine.kills import KillJournal
from lmk.engine.loop import Observer, run_policy
from lmk.engine.observer import RecordingObserver
from lmk.policy.api import (
    EventLog,
    HandlerBegin,
    HandlerEnd,
    Kill,
    Log,
    Policy,
    ReadFile,
    ReadProcess,
    Request,
    SetOomScoreAdj,
    Wait,
)
from lmk.policy.decision import Decision
from lmk.policy.registry import LMKD_MODES
from lmk.record.writer import RecordWriter
from lmk.recorded import record_run
from lmk.sim.listener import RecordingListener, SimListener
from lmk.sim.target import SimTarget

#: From here on a run's record holds what led to something, kills, samples and events, not each single exchange.
LONG_RUN_MS: Final = 30 * 60_000
#: Samples per run at most; never closer than a live run's.
_SAMPLES_MAX: Final = 2000
_SAMPLE_MS_MIN: Final = 250
#: Rows of a long run's record that are written together.
_HELD_MAX: Final = 500
#: Some fifty times what a day on a phone takes: minutes, not hours, until a run that never settles ends with a report.
EVENTS_MAX: Final = 2_000_000


@attrs.frozen(kw_only=True)
class SimPlan:
    """A run as asked for, checked."""

    config: DeviceConfig
    calibration: Calibration
    scenario: Scenario
    timeline: Timeline
    policy_name: str
    make_policy: Callable[[], Policy]
    run_dir: Path
    events_max: int = EVENTS_MAX
    #: The scenario as written, where its file is not on this machine; None: it is read from there.
    scenario_text: str | None = None
    #: Answer the policy with /proc text instead of values; slower, with the same result.
    text: bool = False
    #: Told when the scenario begins.
    on_started: Callable[[int], None] = lambda _: None


def run_sim(plan: SimPlan) -> dict[str, Any]:
    """Do it; returns the JSON object of the run. Raises LmkError, with the record complete up to then."""
    plan = attrs.evolve(plan, config=in_mode(plan.config, LMKD_MODES.get(plan.policy_name, {})))
    return record_run(plan.run_dir, _facts(plan), plan.scenario, lambda writer: _simulate(plan, writer))


def make_target(plan: SimPlan, listener: SimListener) -> SimTarget:
    """The simulated device of a plan, switched on."""
    return SimTarget(
        plan.config,
        plan.calibration,
        plan.timeline,
        listener,
        events_max=plan.events_max,
        sample_ms=max(_SAMPLE_MS_MIN, plan.timeline.duration_ms // _SAMPLES_MAX),
        details=plan.timeline.duration_ms < LONG_RUN_MS,
        text=plan.text,
    )


def _simulate(plan: SimPlan, writer: RecordWriter) -> str:
    journal = KillJournal(writer)
    long = plan.timeline.duration_ms >= LONG_RUN_MS
    target = make_target(plan, RecordingListener(writer, journal, plan.on_started))
    memory = target.machine.memory
    writer.meta(
        {
            "device": {
                "mem_total_kib": memory.total_kib,
                "swap_total_kib": plan.config.swap_bytes // 1024,
                "kernel": plan.config.kernel.base,
                "cpus": plan.config.cpus,
                "reap": "simulated",
                "page_size": 4096,
            }
        }
    )
    if long:
        writer.hold(_HELD_MAX)
    why = run_policy(plan.make_policy(), target, _Observers(RecordingObserver(writer), journal, reads=not long))
    if not target.over:
        # The daemon ended, the device did not: from here on the kernel is alone with its OOM killer.
        writer.meta({"policy_exit": why})
        while not target.over:
            target.answer(Wait(None))
    writer.meta({"duration_ms": plan.timeline.duration_ms, "sim_events": target.machine.events})
    return why


def _facts(plan: SimPlan) -> dict[str, Any]:
    return {
        "lmk_version": __version__,
        "config": plan.config.name,
        "config_text": dump_device(plan.config),
        "android": plan.config.android,
        "scenario": plan.scenario.name,
        "scenario_text": Path(plan.scenario.path).read_text() if plan.scenario_text is None else plan.scenario_text,
        "policy": plan.policy_name,
        "dry_run": False,
        "seed": plan.timeline.seed,
        "target": "sim",
        "calibration": {"name": plan.calibration.name, "class": plan.calibration.kind},
        "rates": attrs.asdict(plan.calibration),
        "properties": dict(plan.config.properties),
        "disturbed": None,
        "host_load": None,
    }


class _Observers:
    """The recorder and the journal of kills, each shown what it may want to see: most exchanges are neither's.

    ``reads`` False: the record gets logs, written oom_score_adj and decisions that had a reason; the rest can be had
    again from the seed.
    """

    def __init__(self, recording: Observer, journal: KillJournal, *, reads: bool) -> None:
        self._recording = recording
        self._journal = journal
        self._reads = reads

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        kind = type(request)
        if not self._reads and kind in _UNTOLD:
            return
        if self._reads or kind in _KEPT or (isinstance(request, Decision) and _led_to_something(request)):
            self._recording.exchanged(t_ns, request, answer)
        if kind in _JOURNALED:
            self._journal.exchanged(t_ns, request, answer)


def _led_to_something(decision: Decision) -> bool:
    return decision.reason >= 0 or bool(decision.killed_pids)


#: Recorded however long a run is: the log, and which process was in which tier.
_KEPT: Final = frozenset({EventLog, Log, SetOomScoreAdj})
#: Most of what a long run exchanges, and nothing that either wants to see then.
_UNTOLD: Final = frozenset({HandlerBegin, HandlerEnd, ReadFile})
#: What KillJournal looks at.
_JOURNALED: Final = frozenset({ReadProcess, Kill, EventLog, Decision, Wait})
