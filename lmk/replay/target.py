"""A recorded world as a target: answers the policy's requests and writes down what the policy does.

The policy sees only this; what the recorded daemon did stays with the comparer, to which every finished
handler call goes at once.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from lmk.engine.target import RunOver
from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.policy.lmkd.memcg import resolve_attribute
from lmk.replay.events import FOREVER, Clock, EndOfRecording
from lmk.replay.world import Process, World

FIRST_DESCRIPTOR = 1002
_FLOAT32 = struct.Struct("f")

Effect = tuple[Any, ...]


class Observer(Protocol):
    """Gets everything that happened, in order."""

    def start_up(self, effects: list[Effect]) -> None:
        """Effects until the set-up and the registrations were handled."""

    def handler(
        self,
        t_us: int,
        begin: api.HandlerBegin,
        end: api.HandlerEnd | None,
        effects: list[Effect],
        decisions: list[Decision],
    ) -> None:
        """One call of a handler; ``end`` None: the daemon exited in it."""

    def loop(self, t_us: int, effects: list[Effect]) -> None:
        """Effects outside handlers."""

    def end(self, why: str, t_us: int) -> None:
        """The recording or the daemon stopped."""


class Override(Protocol):
    """Stands in for the world's answer to one kind of request."""

    def __call__(self, request: Any, answer: Callable[[Any], object]) -> object:
        """``answer`` gives the world's own."""


class VectorTarget:
    """One scenario's world for one policy.

    ``from_text``: files are always answered as text. ``overrides``: what a recording cannot express.
    """

    def __init__(
        self,
        script: dict[str, Any],
        observer: Observer,
        *,
        from_text: bool,
        overrides: Mapping[type, Override] | None = None,
    ) -> None:
        cfg = script["cfg"]
        self._world = World(script)
        self._clock = Clock(script, self._world)
        self._observer = observer
        self._parsed = not from_text
        self._pidfds = bool(cfg["pidfd"])
        self._mrelease = bool(cfg["mrelease"])
        self._memcg = {"none": 0, "v1": 1, "v2": 2}[cfg["memcg"]]
        self._listener = [flag == "1" for flag in cfg.get("mem", "000000")]
        self._handles: dict[int, Process] = {}
        self._next_handle = 1
        self._next_descriptor = FIRST_DESCRIPTOR
        self._reapers = 0
        self._reaper_order = "lifo"
        self._queued: list[tuple[int, Process | None]] = []
        self._deadline_us: float | None = None
        #: Start-up of the control conversations is part of their trace.
        self._start_up: list[Effect] | None = None if script["kind"] == "ctrl" else []
        self._effects: list[Effect] = []
        self._effects_us = 0
        self._begin: api.HandlerBegin | None = None
        self._decisions: list[Decision] = []
        self._answer: dict[type, Callable[[Any], object]] = {
            api.Wait: self._wait,
            api.DescribeMachine: lambda _: api.Machine(page_size=self._world.page_bytes),
            api.DescribeMemcg: lambda _: api.Memcg(self._memcg),
            api.CgroupAttributePath: self._attribute_path,
            api.ReadFile: self._read_file,
            api.ReadProcess: self._read_process,
            api.ReadSizes: self._read_sizes,
            api.ProcessExists: lambda request: request.pid in self._world.processes,
            api.CheckWritable: lambda request: self._world.exists(request.path),
            api.ReadGpuTotal: lambda _: self._world.gpu_bytes,
            api.WriteFile: self._write_file,
            api.SetOomScoreAdj: self._set_oom_score_adj,
            api.GetProperties: self._get_properties,
            api.SetProperty: self._set_property,
            api.ProbePidfd: lambda _: self._pidfds,
            api.OpenPidfd: self._open_pidfd,
            api.ClosePidfd: self._close_pidfd,
            api.WatchExit: self._watch_exit,
            api.UnwatchExit: self._unwatch_exit,
            api.StartReaper: self._start_reaper,
            api.Kill: self._kill,
            api.ArmPsi: self._arm_psi,
            api.ArmVmpressure: self._arm_vmpressure,
            api.Disarm: self._disarm,
            api.TakeVmpressure: self._take_vmpressure,
            api.TakeMemoryEvents: lambda _: self._clock.take_memory_events(),
            api.OpenMemoryEvents: self._open_memory_events,
            api.OpenKernelKills: self._open_kernel_kills,
            api.Send: self._send,
            api.CloseConnection: self._close_connection,
            api.Log: lambda request: self._effect("log", request.level, request.text),
            api.EventLog: self._event_log,
            api.HandlerBegin: self._handler_begin,
            api.HandlerEnd: self._handler_end,
            Decision: self._decided,
        }
        for kind, override in (overrides or {}).items():
            self._answer[kind] = partial(override, answer=self._answer[kind])

    # ---- lmk.engine.target.Target -----------------------------------------------------------

    def now_ns(self) -> int:
        """The virtual clock."""
        return self._clock.now_us * 1000

    def answer(self, request: api.Request) -> object:
        """See ``lmk.engine.target.Target``."""
        return self._answer[type(request)](request)

    def close(self) -> None:
        """Nothing is held."""

    def run(self, policy: api.Policy) -> None:
        """The engine's loop without a record: until the recording ends or the policy exits."""
        answers, clock, step = self._answer, self._clock, policy.step
        request = policy.start(clock.now_us * 1000)
        while type(request) is not api.Exit:
            answer = answers[type(request)](request)
            if type(answer) is RunOver:
                return
            request = step(answer, clock.now_us * 1000)
        self._exit(request)

    # ---- time -------------------------------------------------------------------------------

    def _wait(self, request: api.Wait) -> api.Wakeup | RunOver:
        clock = self._clock
        if self._deadline_us is None:
            timeout_ms = request.timeout_ms
            self._deadline_us = FOREVER if timeout_ms is None else clock.now_us + timeout_ms * 1000
        while self._queued:
            failure = self._reap()
            if failure is not None:
                return api.Wakeup((failure,))
        try:
            events = clock.wait(self._deadline_us)
        except EndOfRecording:
            self._flush()
            if self._start_up is not None:
                self._finish_start_up()
            self._observer.end("done", clock.now_us)
            return RunOver("end of the recording")
        self._flush()
        if self._start_up is not None and not clock.starting:
            self._finish_start_up()
        if not (events and type(events[0]) is api.WatchdogEvent):
            self._deadline_us = None
        return api.Wakeup(events)

    def _reap(self) -> api.ReapedEvent | None:
        """One queued kill: the signal is sent as soon as the main thread waits."""
        pid, process = self._queued.pop(-1 if self._reaper_order == "lifo" else 0)
        error = self._world.signal(process, self._clock.now_us)
        self._effect("kill", "pidfd", pid, error)
        if not error:
            return None
        self._clock.reaper_failures.append(pid)
        return api.ReapedEvent(pid, error, 0, 0)

    def _exit(self, request: api.Exit) -> None:
        if not request.returned:
            self._effect("exit", request.code)
        if self._begin is not None and self._start_up is None:
            self._observer.handler(self._clock.now_us, self._begin, None, self._effects, self._decisions)
            self._effects = []
        self._flush()
        if self._start_up is not None:
            self._finish_start_up()
        self._observer.end("main_returned" if request.returned else "exit", self._clock.now_us)

    # ---- what the policy does ---------------------------------------------------------------

    def _effect(self, *effect: Any) -> None:
        if not self._effects:
            self._effects_us = self._clock.now_us
        self._effects.append(effect)

    def _flush(self) -> None:
        if self._effects:
            if self._start_up is not None:
                self._start_up += self._effects
            else:
                self._observer.loop(self._effects_us, self._effects)
            self._effects = []

    def _finish_start_up(self) -> None:
        assert self._start_up is not None
        effects = self._start_up + self._effects
        self._effects = []
        self._start_up = None
        self._observer.start_up([e for e in effects if e[0] != "write" or not e[1].endswith("/oom_score_adj")])

    def _handler_begin(self, request: api.HandlerBegin) -> None:
        self._flush()
        self._begin = request
        self._decisions = []

    def _handler_end(self, request: api.HandlerEnd) -> None:
        assert self._begin is not None
        if self._start_up is not None:
            self._start_up += self._effects
        else:
            self._observer.handler(self._clock.now_us, self._begin, request, self._effects, self._decisions)
        self._begin = None
        self._effects = []

    def _decided(self, request: Decision) -> None:
        self._decisions.append(request)

    def _event_log(self, request: api.EventLog) -> None:
        fields = [
            _FLOAT32.unpack(_FLOAT32.pack(field))[0] if type(field) is float else field for field in request.fields
        ]
        self._effect("evlog", *fields)

    def _send(self, request: api.Send) -> int:
        if not self._clock.can_send(request.connection):
            return errno.EPIPE
        self._effect("send", self._clock.connection_number(request.connection), request.data.hex())
        return 0

    def _close_connection(self, request: api.CloseConnection) -> None:
        self._effect("close", self._clock.close_connection(request.connection))

    # ---- files and properties ---------------------------------------------------------------

    def _read_file(self, request: api.ReadFile) -> object:
        answer = self._world.read(request.path, request.keep, self._parsed)
        return api.FileError(*answer) if type(answer) is tuple else answer

    def _read_process(self, request: api.ReadProcess) -> object:
        answer = self._world.read_process(request.pid, request.file)
        return api.FileError(*answer) if type(answer) is tuple else answer

    def _read_sizes(self, request: api.ReadSizes) -> list[object]:
        sizes: list[object] = []
        for pid in request.pids:
            answer: object = self._world.resident_pages(pid) if self._parsed else self._world.read_process(pid, "statm")
            sizes.append(api.FileError(*answer) if isinstance(answer, tuple) else answer)
        return sizes

    def _attribute_path(self, request: api.CgroupAttributePath) -> str | None:
        """The recorder resolves against the v1 hierarchy wherever the controller is said to be."""
        if request.pid is None:
            return resolve_attribute(request.attribute, 1, None)
        cgroup = self._world.read_process(request.pid, "cgroup")
        return resolve_attribute(request.attribute, 1, cgroup) if isinstance(cgroup, str) else None

    def _write_file(self, request: api.WriteFile) -> api.FileError | None:
        error = self._world.write(request.path, request.text)
        if error:
            return api.FileError("open", error)
        self._effect("write", request.path, request.text)
        return None

    def _set_oom_score_adj(self, request: api.SetOomScoreAdj) -> api.AdjWritten:
        process = self._world.processes.get(request.pid)
        tgid: int | None = None
        if process is not None and "status" not in process.hidden and not process.fields.get("notgid"):
            tgid = int(process.fields.get("tgid") or request.pid)
            if tgid != request.pid:
                return api.AdjWritten(tgid)
        if process is None or "oom_score_adj" in process.hidden:
            return api.AdjWritten(tgid, api.FileError("open", errno.ENOENT))
        self._effect("write", f"/proc/{request.pid}/oom_score_adj", str(request.adj))
        return api.AdjWritten(tgid)

    def _get_properties(self, request: api.GetProperties) -> dict[str, str]:
        props = self._world.props
        return {name: props[name] for name in request.names if name in props}

    def _set_property(self, request: api.SetProperty) -> None:
        self._world.props[request.name] = request.text
        self._effect("prop", request.name, request.text)

    # ---- processes --------------------------------------------------------------------------

    def _open_pidfd(self, request: api.OpenPidfd) -> api.Opened:
        if not self._pidfds:
            return api.Opened(-1, errno.ENOSYS)
        if request.pid <= 0:
            return api.Opened(-1, errno.EINVAL)
        process = self._world.processes.get(request.pid)
        if process is None or process.dead:
            return api.Opened(-1, errno.ESRCH)
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = process
        return api.Opened(handle)

    def _close_pidfd(self, request: api.ClosePidfd) -> None:
        self._handles.pop(request.handle, None)
        self._clock.watched.pop(request.handle, None)

    def _watch_exit(self, request: api.WatchExit) -> int:
        process = self._handles.get(request.handle)
        if process is None:
            return errno.EBADF
        self._clock.watched[request.handle] = process
        return 0

    def _unwatch_exit(self, request: api.UnwatchExit) -> None:
        self._clock.watched.pop(request.handle, None)

    def _start_reaper(self, request: api.StartReaper) -> bool:
        if self._mrelease:
            self._reapers = request.threads
            self._reaper_order = request.order
        return self._mrelease

    def _kill(self, request: api.Kill) -> api.Killed:
        by_pidfd = request.handle is not None
        process = (
            self._handles.get(request.handle) if request.handle is not None else self._world.processes.get(request.pid)
        )
        if request.queue and len(self._queued) < self._reapers:
            self._queued.append((request.pid, process))
            return api.Killed(0, queued=True)
        error = self._world.signal(process, self._clock.now_us)
        self._effect("kill", "pidfd" if by_pidfd else "kill", request.pid, error)
        return api.Killed(error)

    # ---- monitors ---------------------------------------------------------------------------

    def _arm_psi(self, request: api.ArmPsi) -> api.FileError | None:
        if not self._world.exists("/proc/pressure/memory"):
            return api.FileError("open", errno.ENOENT)
        self._effect("write", "/proc/pressure/memory", request.text)
        self._clock.psi_levels.add(request.level)
        return None

    def _arm_vmpressure(self, request: api.ArmVmpressure) -> api.FileError | None:
        pressure_level = self._next_descriptor
        if not self._world.exists(request.pressure_level_path):
            return api.FileError("pressure_level", errno.ENOENT)
        if not self._world.exists(request.event_control_path):
            return api.FileError("event_control", errno.ENOENT)
        self._next_descriptor += 3
        text = f"{pressure_level + 2} {pressure_level} {request.level_name}"
        self._effect("write", request.event_control_path, text)
        self._clock.vmpressure_levels.add(request.level)
        return None

    def _disarm(self, request: api.Disarm) -> None:
        self._clock.psi_levels.discard(request.level)
        self._clock.vmpressure_levels.discard(request.level)
        self._clock.vmpressure[request.level] = 0

    def _take_vmpressure(self, _: api.TakeVmpressure) -> tuple[int, ...]:
        counts = tuple(self._clock.vmpressure)
        self._clock.vmpressure[:] = [0, 0, 0]
        return counts

    def _open_memory_events(self, _: api.OpenMemoryEvents) -> api.MemoryEventSupport:
        created, direct, kswapd, vendor, zoneinfo, valid = self._listener
        self._clock.memory_events = created and direct and kswapd and valid
        return api.MemoryEventSupport(
            created=created,
            direct_reclaim=direct,
            kswapd=kswapd,
            vendor_kill=vendor,
            update_zoneinfo=zoneinfo,
            fd=100 if valid else -1,
        )

    def _open_kernel_kills(self, _: api.OpenKernelKills) -> int:
        self._clock.kernel_kills = self._world.exists("/proc/lowmemorykiller")
        return 0 if self._clock.kernel_kills else errno.ENOENT
