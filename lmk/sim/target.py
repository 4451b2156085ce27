"""A simulated device as the engine's target: every request of a policy, answered from the simulated kernel."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.config.timeline import Timeline
from lmk.engine.target import RunOver
from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.policy.lmkd.memcg import resolve_attribute
from lmk.procfs.psi import Pressure
from lmk.sim import cgroupfs, procfs
from lmk.sim.activity import Activity
from lmk.sim.deaths import Deaths
from lmk.sim.listener import SimListener
from lmk.sim.machine import Machine
from lmk.sim.process import SimProcess
from lmk.sim.timing import PRIORITY_KERNEL, PRIORITY_OBSERVER
from lmk.units import NS_PER_MS, NS_PER_US

_CONNECTION: Final = 1
#: system_server as it talks to lmkd.
_CLIENT: Final = (200, 1000)
_TICKS_PER_S: Final = 100
_MEMORY_FILES: Final = ("/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo")
_PRESSURE_PREFIX: Final = "/proc/pressure/"


class SimTarget:
    """See ``lmk.engine.target.Target``. ``text``: answer with /proc text instead of parsed values."""

    def __init__(
        self,
        config: DeviceConfig,
        calibration: Calibration,
        timeline: Timeline,
        listener: SimListener,
        *,
        events_max: int,
        sample_ms: int,
        details: bool,
        text: bool = False,
    ) -> None:
        self._config = config
        self._listener = listener
        self._text = text
        self._sample_ns = sample_ms * NS_PER_MS
        self._event_ns = calibration.event_us * NS_PER_US
        draw = Random(timeline.seed).getrandbits
        self.machine = Machine(config, calibration, events_max=events_max, draw=draw)
        self.machine.psi_event = self._psi_event
        self.deaths = Deaths(self.machine, self._living, self)
        self._cgroups = cgroupfs.Cgroups(self.machine, self._living)
        self.activity = Activity(self.machine, timeline, self, details=details)
        self._properties: dict[str, str] = dict(config.properties)
        self._ready: list[api.Event] = []
        self._apart: deque[api.Event] = deque()
        self._deadline_ns: int | None = None
        self._waiting_for: api.Wait | None = None
        self._started = False
        self._processes: dict[int, SimProcess] = {}
        self._handles: dict[int, SimProcess] = {}
        self._next_handle = 1
        self._watched: list[int] = []
        self._memory_events: deque[api.MemoryEvent] = deque(maxlen=1024)
        self._memory_events_ready = False
        self._memcg = api.Memcg(2 if config.kernel.memcg == "v2" else 1)
        self._sampled_revision = -1
        self._looked = False
        self._read_revision = -1
        self._read_files: dict[str, object] = {}
        self._handlers = self._request_handlers()

    # ---- Target

    def now_ns(self) -> int:
        """See ``Target``."""
        return self.machine.now_ns

    def answer(self, request: api.Request) -> object:
        """See ``Target``."""
        return self._handlers[type(request)](request)

    def close(self) -> None:
        """See ``Target``: nothing to let go of."""

    @property
    def over(self) -> bool:
        """Whether the scenario has ended."""
        return self.activity.done

    # ---- World, Listener of the parts of the device

    def app_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        """See ``lmk.sim.activity.World``."""
        if kind == "started":
            self._listener.started(t_ns)
            self._sample()
        self._listener.app_event(t_ns, kind, body)
        if kind == "done":
            self.machine.interrupted = True
        if kind == "spawned":
            process = self.activity.apps_process(int(body["pid"]))
            self._processes[process.pid] = process

    def send_packet(self, data: bytes) -> None:
        """See ``World``."""
        self._deliver(api.PacketEvent(_CONNECTION, data, _CLIENT), 0)

    def end_process(self, process: SimProcess) -> None:
        """See ``World``."""
        self.deaths.end(process)

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        """See ``lmk.sim.deaths.Listener``."""
        self._listener.kill_outcome(pid, **values)

    def reaped(self, pid: int, release_errno: int, took_ms: int) -> None:
        """See ``lmk.sim.deaths.Listener``."""
        self._apart.append(api.ReapedEvent(pid, 0, release_errno, took_ms))
        self.machine.interrupted = True

    def kernel_oom_kill(self, process: SimProcess, t_ns: int) -> None:
        """See ``lmk.sim.deaths.Listener``."""
        self._listener.kernel_oom_kill(process, t_ns)

    def process_died(self, process: SimProcess, signal: int) -> None:
        """See ``lmk.sim.deaths.Listener``."""
        del self._processes[process.pid]
        self.machine.interrupted = True
        self.activity.died(process, signal)

    def _living(self) -> list[SimProcess]:
        return list(self._processes.values())

    # ---- waiting

    def _wait(self, request: api.Wait) -> api.Wakeup | RunOver:
        machine = self.machine
        if not self._started:
            self._started = True
            self._begin()
        if self._waiting_for is not request or self._deadline_ns is None:
            timeout = request.timeout_ms
            self._deadline_ns = None if timeout is None else machine.now_ns + timeout * NS_PER_MS
        machine.interrupted = self._has_news()
        machine.advance(self._deadline_ns)
        if self._apart:
            # Such an event does not end the wait: the first deadline holds when the same request comes again.
            self._waiting_for = request
            return api.Wakeup((self._apart.popleft(),))
        self._waiting_for = None
        if self.activity.done and not self._ready:
            self._sample()
            return RunOver("the scenario ended")
        self._looked = False
        events = self._ready
        self._ready = []
        events.extend(api.ExitEvent(handle) for handle in self._watched if self._handles[handle].dead)
        return api.Wakeup(tuple(events))

    def _has_news(self) -> bool:
        if self._ready or self._apart or self.activity.done:
            return True
        return any(self._handles[handle].dead for handle in self._watched)

    def _news(self, event: api.Event) -> None:
        self._ready.append(event)
        self.machine.interrupted = True

    def _begin(self) -> None:
        self._ready.append(api.ConnectEvent(_CONNECTION))
        self.machine.at(self.machine.now_ns, self.activity.connected)
        self.machine.at(self.machine.now_ns, self.activity.prepare)
        self._sample_later()

    def _deliver(self, event: api.Event, delay_ns: int) -> None:
        if delay_ns:
            self.machine.at(self.machine.now_ns + delay_ns, lambda: self._news(event), PRIORITY_KERNEL)
        else:
            self._news(event)

    def _psi_event(self, level: int) -> None:
        self._deliver(api.PressureEvent(level), self._event_ns)

    def _memory_event(self, kind: int) -> None:
        self._memory_events.append(api.MemoryEvent(kind))
        if not self._memory_events_ready:
            self._memory_events_ready = True
            self._deliver(api.MemoryEventsReady(), self._event_ns)

    # ---- samples

    def _sample_later(self) -> None:
        def sample() -> None:
            if self.machine.memory.revision != self._sampled_revision:
                self._sample()
            self._sample_later()

        self.machine.at(self.machine.now_ns + self._sample_ns, sample, PRIORITY_OBSERVER)

    def _sample(self) -> None:
        machine = self.machine
        self._sampled_revision = machine.memory.revision
        self._listener.sampled(machine.now_ns, machine.memory, machine.psi.memory_totals_us(machine.now_ns))

    # ---- requests

    def _request_handlers(self) -> dict[type[Any], Callable[[Any], object]]:
        return {
            api.Wait: self._wait,
            api.DescribeMachine: lambda _: api.Machine(4096, _TICKS_PER_S),
            api.DescribeMemcg: lambda _: self._memcg,
            api.CgroupAttributePath: self._cgroup_path,
            api.ReadFile: self._read_file,
            api.ReadProcess: self._read_process,
            api.ListProcesses: lambda _: tuple(sorted(self._processes)),
            api.ListGroups: lambda q: self._cgroups.children(q.group),
            api.ReadSizes: self._read_sizes,
            api.ProcessExists: lambda q: q.pid in self._processes,
            api.CheckWritable: lambda _: False,
            api.ReadGpuTotal: lambda _: None,
            api.WriteFile: self._write_file,
            api.SetOomScoreAdj: self._set_oom_score_adj,
            api.GetProperties: self._get_properties,
            api.SetProperty: self._set_property,
            api.ProbePidfd: lambda _: True,
            api.OpenPidfd: self._open_pidfd,
            api.ClosePidfd: self._close_pidfd,
            api.WatchExit: self._watch_exit,
            api.UnwatchExit: self._unwatch_exit,
            api.StartReaper: self._start_reaper,
            api.Kill: self._kill,
            api.ArmPsi: self._arm_psi,
            api.ArmVmpressure: self._arm_vmpressure,
            api.Disarm: self._disarm,
            api.TakeVmpressure: lambda _: self.machine.vmpressure.take(),
            api.TakeMemoryEvents: self._take_memory_events,
            api.OpenMemoryEvents: self._open_memory_events,
            api.OpenKernelKills: lambda _: errno.ENOENT,
            api.Send: lambda _: 0,
            api.CloseConnection: lambda _: None,
            api.Log: lambda _: None,
            api.EventLog: lambda _: None,
            api.HandlerBegin: lambda _: None,
            api.HandlerEnd: lambda _: None,
            Decision: lambda _: None,
        }

    def _read_file(self, request: api.ReadFile) -> object:
        path = request.path
        if not self._looked:
            # The helper's sample has all files that are read in one wake-up.
            self._looked = True
            self.machine.look()
        if path in _MEMORY_FILES:
            memory = self.machine.memory
            if self._read_revision != memory.revision:
                self._read_revision = memory.revision
                self._read_files.clear()
            # Polls come faster than memory changes: what has not changed is not put together again.
            if path not in self._read_files:
                self._read_files[path] = self._memory_file(path)
            return self._read_files[path]
        if path == "/proc/swaps":
            return procfs.swaps_text(self.machine.memory)
        if path.startswith(_PRESSURE_PREFIX):
            resource = path.removeprefix(_PRESSURE_PREFIX)
            if resource in ("memory", "io", "cpu"):
                pressure = self.machine.psi.pressure(resource, self.machine.now_ns)
                return procfs.pressure_text(pressure) if self._text else pressure
        if path in cgroupfs.V1_USAGE and self._memcg.version == 1:
            return cgroupfs.v1_usage(self.machine.memory, path)
        if path.startswith(cgroupfs.ROOT):
            answer = self._cgroups.read(path)
            return procfs.pressure_text(answer) if self._text and isinstance(answer, Pressure) else answer
        return api.FileError("open", errno.ENOENT)

    def _memory_file(self, path: str) -> object:
        memory, base = self.machine.memory, self._config.kernel.base
        if path == "/proc/vmstat":
            vmstat = procfs.vmstat(memory, base)
            return procfs.vmstat_text(vmstat) if self._text else vmstat
        if path == "/proc/meminfo":
            meminfo = procfs.meminfo(memory)
            return procfs.meminfo_text(meminfo) if self._text else meminfo
        zoneinfo = procfs.zoneinfo(memory, base)
        return procfs.zoneinfo_text(zoneinfo, procfs.zones_free(memory)) if self._text else zoneinfo

    def _read_process(self, request: api.ReadProcess) -> str | api.FileError:
        process = self._processes.get(request.pid)
        if process is None:
            return api.FileError("open", errno.ENOENT)
        if request.file == "status":
            return procfs.status_text(process)
        if request.file == "cmdline":
            return process.plan.process_name + "\0"
        if request.file == "stat":
            return procfs.stat_text(process, _TICKS_PER_S)
        if request.file == "statm":
            return procfs.statm_text(process)
        if request.file == "cgroup":
            controller = "0:" if self._memcg.version == 2 else "1:memory"
            return f"{controller}:{cgroupfs.group_of(process)}\n"
        if request.file == "oom_score":
            return f"{self.deaths.oom_score(process)}\n"
        if request.file == "oom_score_adj":
            return f"{process.adj}\n"
        return api.FileError("open", errno.ENOENT)

    def _read_sizes(self, request: api.ReadSizes) -> list[int | api.FileError]:
        found: list[int | api.FileError] = []
        for pid in request.pids:
            process = self._processes.get(pid)
            found.append(api.FileError("open", errno.ENOENT) if process is None else process.rss_pages)
        return found

    def _cgroup_path(self, request: api.CgroupAttributePath) -> str | None:
        if request.pid is None:
            return resolve_attribute(request.attribute, self._memcg.version, None)
        text = self._read_process(api.ReadProcess(request.pid, "cgroup"))
        return resolve_attribute(request.attribute, self._memcg.version, text) if isinstance(text, str) else None

    def _write_file(self, request: api.WriteFile) -> api.FileError | None:
        # Soft limits of cgroups are accepted; reclaim here does not look at them.
        return None if "/memory." in request.path else api.FileError("open", errno.ENOENT)

    def _set_oom_score_adj(self, request: api.SetOomScoreAdj) -> api.AdjWritten:
        process = self._processes.get(request.pid)
        if process is None:
            return api.AdjWritten(None, api.FileError("open", errno.ENOENT))
        process.adj = request.adj
        return api.AdjWritten(request.pid)

    def _get_properties(self, request: api.GetProperties) -> Mapping[str, str]:
        return {name: self._properties[name] for name in request.names if name in self._properties}

    def _set_property(self, request: api.SetProperty) -> None:
        self._properties[request.name] = request.text

    def _open_pidfd(self, request: api.OpenPidfd) -> api.Opened:
        process = self._processes.get(request.pid)
        if process is None:
            return api.Opened(-1, errno.ESRCH)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[handle] = process
        return api.Opened(handle)

    def _close_pidfd(self, request: api.ClosePidfd) -> None:
        self._unwatch_exit(request)
        self._handles.pop(request.handle, None)

    def _watch_exit(self, request: api.WatchExit) -> int:
        if request.handle not in self._handles:
            return errno.EBADF
        self._watched.append(request.handle)
        return 0

    def _unwatch_exit(self, request: api.UnwatchExit | api.ClosePidfd) -> None:
        if request.handle in self._watched:
            self._watched.remove(request.handle)

    def _start_reaper(self, request: api.StartReaper) -> bool:
        self.deaths.start_reaper(request.threads)
        return True

    def _kill(self, request: api.Kill) -> api.Killed:
        handles, processes = self._handles, self._processes
        process = processes.get(request.pid) if request.handle is None else handles.get(request.handle)
        if process is None or process.dead:
            return api.Killed(errno.ESRCH)
        # A release by the caller itself (Android 13.0) takes no time here either: it counts as queued.
        queue = request.queue or request.release
        return api.Killed(0, queued=self.deaths.kill(process, queue=queue, signal=request.signal))

    def _arm_psi(self, request: api.ArmPsi) -> api.FileError | None:
        error = self.machine.psi.arm(request.level, request.text, self.machine.now_ns)
        return api.FileError("write", error) if error else None

    def _arm_vmpressure(self, request: api.ArmVmpressure) -> api.FileError | None:
        if self._memcg.version != 1:
            return api.FileError("pressure_level", errno.ENOENT)
        self.machine.vmpressure.listen(request.level)
        return None

    def _disarm(self, request: api.Disarm) -> None:
        self.machine.psi.disarm(request.level)
        self.machine.vmpressure.stop(request.level)

    def _take_memory_events(self, _: api.TakeMemoryEvents) -> api.MemoryEvents:
        entries = tuple(self._memory_events)
        self._memory_events.clear()
        self._memory_events_ready = False
        return api.MemoryEvents(entries)

    def _open_memory_events(self, _: api.OpenMemoryEvents) -> api.MemoryEventSupport:
        self.machine.memory_event = self._memory_event
        return api.MemoryEventSupport(created=True, direct_reclaim=True, kswapd=True, fd=0)
