"""What both sides of a validation are given, and the name under which its runs are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs

from lmk.backends.qemu_args import guest_cpus
from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.config.override import override
from lmk.config.scenario import Scenario
from lmk.config.timeline import Timeline, compile_timeline, timeline_text
from lmk.device.native import content_key
from lmk.errors import UserError
from lmk.guest.datadisk import POOL_BYTES
from lmk.policy.api import Policy
from lmk.policy.registry import make_policy
from lmk.policy.scheduled import Schedule, ScheduledPolicy
from lmk.record.reader import RecordReader
from lmk.sim.check import check_plan
from lmk.sim.run import SimPlan, run_sim
from lmk.validate.window import LONGEST_MS, Window, cut, starting_table

_Read = TypeVar("_Read")


@attrs.frozen(kw_only=True)
class Input:
    """One config, as the emulator has it, with one timeline. What lies before ``from_ms`` is the way to its start.

    With ``again`` a schedule is carried out, and lmkd is not asked.
    """

    config: DeviceConfig
    scenario: Scenario
    timeline: Timeline
    from_ms: int
    setting: str = "stock"
    again: Schedule | None = None

    @property
    def key(self) -> str:
        """A name that changes with everything that a run on the emulator depends on, kernel and host apart."""
        device = attrs.evolve(self.config, sources=(), description="")
        parts = [repr(device), timeline_text(self.timeline), str(self.from_ms)]
        parts += [repr(self.again)] if self.again is not None else []
        parts += [str(POOL_BYTES)]
        parts += [content_key(name, self.config.arch) for name in ("lmk-helper", "lmk-apprunner", "lmk-guest")]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def make_policy(self) -> Policy:
        """lmkd, as the config's Android has it, or what carries ``again`` out."""
        return make_policy("lmkd", self.config.android) if self.again is None else ScheduledPolicy(self.again)


def make_input(
    config: DeviceConfig,
    scenario: Scenario,
    calibration: Calibration,
    *,
    seed: int | None = None,
    window: Window | None = None,
    setting: str = "stock",
    settings: Mapping[str, str] | None = None,
) -> Input:
    """The input, with as many CPUs as a guest gets here. UserError for what the emulator does not run."""
    changed = override(attrs.evolve(config, cpus=guest_cpus(config.cpus)), settings or {})
    check_plan(changed, calibration)
    timeline = compile_timeline(scenario, config, seed)
    if window is None:
        if scenario.sim_only or timeline.duration_ms > LONGEST_MS:
            raise UserError(
                f"{scenario.name} is too long for the emulator", "validate a piece of it: --window START+LEN"
            )
        return Input(config=changed, scenario=scenario, timeline=timeline, from_ms=0, setting=setting)
    alive = starting_table(timeline, config.memory_bytes, window.start_ms)
    piece, from_ms = cut(timeline, window, alive)
    return Input(config=changed, scenario=scenario, timeline=piece, from_ms=from_ms, setting=setting)


def read_simulated(plan: SimPlan, read: Callable[[RecordReader], _Read]) -> _Read:
    """Simulate and read the record; it is not kept."""
    run_sim(plan)
    with RecordReader(plan.run_dir) as record:
        return read(record)
