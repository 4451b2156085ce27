"""A simulated device to be driven by hand: what a policy would ask, and what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from lmk.config.calibration import Calibration, find_calibration, load_calibration
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.engine.target import RunOver
from lmk.policy.api import (
    ConnectEvent,
    Event,
    ExitEvent,
    Kill,
    Killed,
    OpenPidfd,
    PacketEvent,
    ReapedEvent,
    StartReaper,
    UnwatchExit,
    Wait,
    WatchExit,
)
from lmk.policy.lmkd.control_packets import Command, Dialect, ProcPrio, decode_command
from lmk.sim.memory import Memory
from lmk.sim.process import SimProcess
from lmk.sim.target import SimTarget
from lmk.units import NS_PER_MS

APPS = """\
name: hand
description: driven by hand
apps:
  launcher: {role: home, process: com.android.launcher3, anon: 20MiB, file: 10MiB, hot: 0.5, cold_start: 100ms}
  big: {process: com.example.big, anon: 200MiB, file: 40MiB, hot: 0.5, cold_start: 200ms}
  other: {process: com.example.other, anon: 100MiB, file: 20MiB, hot: 0.5, cold_start: 200ms}
  third: {process: com.example.third, anon: 50MiB, file: 20MiB, hot: 0.5, cold_start: 100ms}
  worker: {role: service, process: com.example.worker, restart: true, anon: 30MiB, file: 10MiB, hot: 0.5}
"""


class Listener:
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.zero_ns: int | None = None
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.outcomes: dict[int, dict[str, Any]] = {}
        self.oom: list[str] = []

    def started(self, t_ns: int) -> None:
        self.zero_ns = t_ns

    def app_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        self.events.append((t_ns, kind, body))

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        self.outcomes.setdefault(pid, {}).update(values)

    def kernel_oom_kill(self, process: SimProcess, t_ns: int) -> None:
        self.oom.append(process.plan.name)

    def sampled(self, t_ns: int, memory: Memory, psi_us: tuple[int, int]) -> None:
        return None


def config(name: str = "phone-2gb", **changes: Any) -> DeviceConfig:
    return attrs.evolve(load_device_config(find_config(name)), **changes)


def published(**changes: Any) -> Calibration:
    return attrs.evolve(load_calibration(find_calibration("published")), **changes)


class Device:
    """``steps`` is the scenario's part from ``steps:`` on."""

    def __init__(
        self,
        folder: Path,
        steps: str,
        *,
        device: DeviceConfig | None = None,
        calibration: Calibration | None = None,
        apps: str = APPS,
    ) -> None:
        path = folder / "hand.yaml"
        path.write_text(apps + steps)
        device = device or config()
        self.listener = Listener()
        self.target = SimTarget(
            device,
            calibration or published(),
            compile_timeline(load_scenario(path), device),
            self.listener,
            events_max=2_000_000,
            sample_ms=1000,
            details=True,
        )
        self.events: list[Event] = []
        self.over = False

    @property
    def memory(self) -> Memory:
        return self.target.machine.memory

    def until_ms(self, t_ms: int) -> None:
        """Wait like a daemon until so long after the scenario began."""
        while not self.over:
            zero_ns = self.listener.zero_ns
            left_ns = NS_PER_MS if zero_ns is None else zero_ns + t_ms * NS_PER_MS - self.target.now_ns()
            if zero_ns is not None and left_ns <= 0:
                return
            answer = self.target.answer(Wait(max(1, left_ns // NS_PER_MS)))
            if isinstance(answer, RunOver):
                self.over = True
                return
            news: tuple[Event, ...] = getattr(answer, "events")  # noqa: B009
            self.events += news
            for event in news:
                if isinstance(event, ExitEvent):
                    self.target.answer(UnwatchExit(event.handle))

    def process(self, name: str) -> SimProcess | None:
        app = next(app for app in self.target.activity.apps if app.plan.name == name)
        return app.process

    def living(self, name: str) -> SimProcess:
        process = self.process(name)
        assert process is not None
        return process

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [body for _, found, body in self.listener.events if found == kind]

    def packets(self) -> list[Command]:
        return [decode_command(event.data, Dialect()) for event in self.events if isinstance(event, PacketEvent)]

    def registered(self, name: str) -> list[int]:
        """The adj values lmkd was told for one process name, in order."""
        pids = {body["pid"] for body in self.kinds("spawned") if body["app"] == name}
        return [packet.adj for packet in self.packets() if isinstance(packet, ProcPrio) and packet.pid in pids]

    def kill(self, name: str, *, queue: bool = True) -> int:
        """Kill as lmkd does; the handle that is watched."""
        process = self.living(name)
        self.target.answer(StartReaper(2, "lifo"))
        handle = getattr(self.target.answer(OpenPidfd(process.pid)), "handle")  # noqa: B009
        assert self.target.answer(WatchExit(handle)) == 0
        killed = self.target.answer(Kill(process.pid, handle, queue))
        assert isinstance(killed, Killed)
        assert killed.errno == 0
        assert isinstance(handle, int)
        return handle

    def exits(self) -> list[int]:
        return [event.handle for event in self.events if isinstance(event, ExitEvent)]

    def reaped(self) -> list[ReapedEvent]:
        return [event for event in self.events if isinstance(event, ReapedEvent)]

    def connected(self) -> bool:
        return any(isinstance(event, ConnectEvent) for event in self.events)
