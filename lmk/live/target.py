"""A device under a policy, over the helper's stream: the policy's requests become messages, messages become events.

Requests the policy does not depend on (logs, queued kills, replies to clients) are posted and not waited for, so a
normal kill costs one message each way: the event brings the sample and the likely victims, the kill goes back.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from lmk.device import helper_messages as m
from lmk.device import helper_requests as r
from lmk.device.helper_types import (
    CallState,
    Capability,
    ControlPid,
    FileOp,
    KillFlag,
    SettingItem,
    SettingsFlag,
    TableRow,
    TableWhich,
    TriggerKind,
    WatchItem,
)
from lmk.engine.observer import LOG_TAG
from lmk.engine.target import RunOver
from lmk.live.clock import DeviceClock
from lmk.live.files import SAMPLE_MASK, VICTIM_FIELDS, Asker, SampledFiles
from lmk.live.intake import Intake, KillPath, Listener
from lmk.live.log_wire import EVENTS_LOG, MAIN_LOG, event_payload, main_payload
from lmk.live.takeover import CONNECTION as TAKEN_OVER
from lmk.live.takeover import TakenTable
from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.policy.lmkd.memcg import resolve_attribute
from lmk.units import MS_PER_S, NS_PER_MS

_OPS = {FileOp.NONE: "write", FileOp.OPEN: "open", FileOp.IO: "write", FileOp.REFUSED: "open"}
_TGID = re.compile(r"^Tgid:\s*(\d+)", re.MULTILINE)
#: How often the counters are sampled while nothing else does.
SAMPLE_INTERVAL_MS = 250
HOUSEKEEPING_INTERVAL_MS = 100
#: Dry run: how old the table may be that a decision is made on. Looking through /proc takes some milliseconds.
FOLLOW_INTERVAL_MS = 200
LET_ADB_RUN_S = 0.0003
#: Never the id of a request that is answered as an event.
NO_KILL = 0
#: A helper names its clients right after its hello; those not named by then are gone.
CLIENTS_NAMED_MS = 500
KILLINFO_TAG = 10195355


class Stream(Asker, Protocol):
    """What the target needs of lmk.device.helper.HelperStream."""

    @property
    def hello(self) -> m.Hello:
        """What the helper said of itself."""

    @property
    def settings(self) -> r.Settings | None:
        """What the helper was last told to do."""

    @property
    def lost(self) -> int:
        """How often the stream was lost and came back."""

    def send(self, message: r.Request) -> None:
        """Send without wanting an answer."""

    def post(self, message: r.Request, *, as_event: bool = False) -> int:
        """Send; the answer comes as an event under the id returned."""

    def done(self, message: r.Request) -> m.Done:
        """Send and wait for Done."""

    def table(self, which: TableWhich) -> tuple[TableRow, ...]:
        """All registered processes, or all of /proc."""

    def next_event(self, timeout_s: float | None) -> tuple[int, m.Message] | None:
        """The next message that answers no ``request``: (id, message), or None at the time-out."""


class LiveTarget:
    """See ``lmk.engine.target.Target``. ``properties`` asks the device for all its properties.

    ``kill_delay_ms`` is a fault put in on purpose: every SIGKILL is held back for so long.
    """

    def __init__(
        self,
        stream: Stream,
        clock: DeviceClock,
        listener: Listener,
        properties: Callable[[], Mapping[str, str]],
        *,
        memcg: api.Memcg,
        candidate_fields: int = VICTIM_FIELDS,
        dry_run: bool = False,
        kill_delay_ms: int = 0,
    ) -> None:
        self._kill_delay_ms = kill_delay_ms
        self._stream = stream
        self._clock = clock
        self._listener = listener
        self._properties = properties
        self._memcg = memcg
        self._dry_run = dry_run
        self._files = SampledFiles(stream, candidate_fields)
        self._intake = Intake(clock, self._files, listener, dry_run=dry_run)
        self._taken: TakenTable | None = None
        self._followed_at_ns = 0
        self._kept_house_ns = 0
        self._written_adj: dict[int, int] = {}
        self._cgroups: dict[int, str] = {}
        self._stat_paths: dict[str, int] = {}
        self._sampled_at_ns = 0
        self._losses = 0
        self._came_back_ns = 0
        self._handlers = self._request_handlers()

    # ---- Target

    def now_ns(self) -> int:
        """See ``Target.now_ns``."""
        return self._clock.now_ns()

    def answer(self, request: api.Request) -> object:
        """See ``Target.answer``."""
        return self._handlers[type(request)](request)

    def close(self) -> None:
        """Nothing to undo here: the session hands the device back."""

    def woke_ns(self) -> int | None:
        """Device time at which the helper woke for what is being decided (a poll: took its sample)."""
        return self._intake.woke_ns or self._files.sampled_ns or None

    def inject(self, event: api.Event) -> None:
        """See ``Intake.inject``."""
        self._intake.inject(event)

    def follow(self, taken: TakenTable) -> None:
        """Nobody registers processes here: read the table again and again, and before every decision."""
        self._taken = taken

    # ---- waiting

    def _wait(self, request: api.Wait) -> api.Wakeup | RunOver:
        deadline_ns = None if request.timeout_ms is None else self.now_ns() + request.timeout_ms * NS_PER_MS
        self._files.begin(None)
        self._intake.woke_ns = 0
        self._drain(0)
        while True:
            self._follow()
            wakeup = self._intake.pop()
            if wakeup is not None:
                return wakeup
            now_ns = self.now_ns()
            if deadline_ns is not None and now_ns >= deadline_ns:
                return api.Wakeup()
            self._sample_sometimes(now_ns)
            until_ns = now_ns + SAMPLE_INTERVAL_MS * NS_PER_MS
            if deadline_ns is not None:
                until_ns = min(until_ns, deadline_ns)
            self._listener.idle()
            self._drain((until_ns - now_ns) / 1e9)
            self._listener.busy()
            why = self._keep_house()
            if why is not None:
                return RunOver(why)

    def _follow(self) -> None:
        if self._taken is None:
            return
        spared, self._intake.spared = self._intake.spared, []
        for pid in spared:
            self._taken.again(pid)
        now_ns = self.now_ns()
        if spared or now_ns - self._followed_at_ns >= FOLLOW_INTERVAL_MS * NS_PER_MS:
            self._taken.refresh()
            self._followed_at_ns = self.now_ns()

    def _keep_house(self) -> str | None:
        """Also while one event follows the other: a run must be able to end."""
        now_ns = self.now_ns()
        if now_ns - self._kept_house_ns < HOUSEKEEPING_INTERVAL_MS * NS_PER_MS:
            return None
        self._kept_house_ns = now_ns
        return self._listener.housekeeping()

    def _drain(self, timeout_s: float) -> bool:
        """Take what has arrived, waiting at most so long for the first message; whether anything came."""
        came = False
        while (found := self._stream.next_event(0 if came else timeout_s)) is not None:
            self._listener.busy()
            came = True
            self._notice_loss()
            self._intake.take(*found)
        self._notice_loss()
        return came

    def _notice_loss(self) -> None:
        """The stream was lost and came back: say so, and sort out whose clients are still there."""
        now_ns = self.now_ns()
        if self._stream.lost != self._losses:
            self._losses = self._stream.lost
            self._came_back_ns = now_ns
            self._intake.stream_came_back()
            self._listener.device_event(now_ns, "reconnected", {"losses": self._losses})
        elif self._came_back_ns and now_ns - self._came_back_ns > CLIENTS_NAMED_MS * NS_PER_MS:
            self._came_back_ns = 0
            self._intake.drop_unconfirmed()

    def _sample_sometimes(self, now_ns: int) -> None:
        if now_ns - self._sampled_at_ns >= SAMPLE_INTERVAL_MS * NS_PER_MS:
            self._sampled_at_ns = now_ns
            self._stream.post(r.GetSample(files=SAMPLE_MASK), as_event=True)

    # ---- requests

    def _request_handlers(self) -> dict[type[Any], Callable[[Any], object]]:
        return {
            api.Wait: self._wait,
            api.DescribeMachine: lambda _: api.Machine(self._stream.hello.page_bytes, self._stream.hello.ticks_per_s),
            api.DescribeMemcg: lambda _: self._memcg,
            api.CgroupAttributePath: self._cgroup_path,
            api.ReadFile: self._read_file,
            api.ReadProcess: lambda q: self._files.read_process(q.pid, q.file),
            api.ListProcesses: self._list_processes,
            api.ReadSizes: lambda q: self._files.read_sizes(q.pids),
            api.ProcessExists: lambda q: not isinstance(self._files.read_process(q.pid, "stat"), api.FileError),
            api.CheckWritable: lambda _: False,  # asked only of the in-kernel killer, gone since Linux 4.12
            api.ReadGpuTotal: lambda _: None,
            api.WriteFile: self._write_file,
            api.SetOomScoreAdj: self._set_oom_score_adj,
            api.GetProperties: self._get_properties,
            api.SetProperty: lambda q: self._stream.send(r.Run(argv=("setprop", q.name, q.text))),
            api.ProbePidfd: lambda _: self._stream.hello.pidfd_open == CallState.PRESENT,
            api.OpenPidfd: self._open_pidfd,
            api.ClosePidfd: self._close_pidfd,
            api.WatchExit: self._watch_exit,
            api.UnwatchExit: lambda q: self._intake.watched.discard(q.handle),
            api.StartReaper: lambda _: reap_method(self._stream.hello) != "none",
            api.Kill: self._kill,
            api.ArmPsi: lambda q: self._arm(r.Arm(slot=q.level, text=q.text)),
            api.ArmVmpressure: self._arm_vmpressure,
            api.Disarm: lambda q: self._stream.send(r.Arm(slot=q.level, text="")),
            api.TakeVmpressure: lambda _: self._intake.take_vmpressure(),
            api.TakeMemoryEvents: lambda _: self._intake.take_memory_events(),
            api.OpenMemoryEvents: self._open_memory_events,
            api.OpenKernelKills: lambda _: errno.ENOENT,
            api.Send: self._send,
            api.CloseConnection: self._close_connection,
            api.Log: self._log,
            api.EventLog: self._event_log,
            api.HandlerBegin: lambda _: None,
            api.HandlerEnd: lambda _: None,
            Decision: lambda _: None,
        }

    def _read_file(self, request: api.ReadFile) -> str | api.FileError:
        if request.path in self._stat_paths:
            brought = self._files.memcg_stat(self._stat_paths[request.path])
            if brought is not None:
                return brought
        had_sample = bool(self._files.sampled_ns)
        answer = self._files.read(request.path)
        if self._files.sampled_ns and not had_sample:
            self._sampled_at_ns = self._files.sampled_ns
            self._intake.arrived_ns = self.now_ns()
            self._listener.sampled(self._files.sampled_ns, self._files)
        return answer

    def _list_processes(self, _: api.ListProcesses) -> tuple[int, ...]:
        # Kernel threads have no memory of their own, nor has who is all but gone.
        return tuple(sorted(row.pid for row in self._stream.table(TableWhich.ALL) if row.rss_pages > 0))

    def _cgroup_path(self, request: api.CgroupAttributePath) -> str | None:
        """A process stays in the group it was put into, though it may be registered before: its file is read once."""
        version = self._memcg.version
        if request.pid is None:
            return resolve_attribute(request.attribute, version, None)
        if request.pid not in self._cgroups:
            answer = self._files.read_process(request.pid, "cgroup")
            if isinstance(answer, api.FileError):
                return None
            if answer.rstrip("\n").endswith(":/"):  # not yet in a group of its own
                return resolve_attribute(request.attribute, version, answer)
            self._cgroups[request.pid] = answer
        path = resolve_attribute(request.attribute, version, self._cgroups[request.pid])
        if request.attribute == "MemStats" and path is not None:
            self._stat_paths = {path: request.pid}
        return path

    def _write_file(self, request: api.WriteFile) -> api.FileError | None:
        if "/memory." in request.path:
            # A soft limit: lmkd only logs its failure, and a decision must not wait behind a dozen of them.
            self._stream.send(r.WriteFile(path=request.path, data=request.text.encode()))
            return None
        done = self._stream.done(r.WriteFile(path=request.path, data=request.text.encode()))
        return api.FileError(_OPS[FileOp(done.op)], done.error) if done.error else None

    def _set_oom_score_adj(self, request: api.SetOomScoreAdj) -> api.AdjWritten:
        self._written_adj[request.pid] = request.adj
        if self._dry_run:  # it has this score already: that is where the packet came from
            self._intake.handles.pop(request.pid, None)
            return api.AdjWritten(request.pid)
        waiting = self._intake.registered.get(request.pid)
        if waiting:
            return self._written_by_helper(waiting.popleft())
        self._intake.handles.pop(request.pid, None)  # who has the pid now is for OpenPidfd to find out
        done = self._stream.done(r.WriteAdj(pid=request.pid, oom_score_adj=request.adj))
        return api.AdjWritten(None, api.FileError(_OPS[FileOp(done.op)], done.error) if done.error else None)

    def _written_by_helper(self, process: ControlPid) -> api.AdjWritten:
        """The helper did as lmkd does when the packet came (WRITE_ADJ); nobody has to wait for a round trip."""
        if self._intake.handles.get(process.pid, (0, 0, 0))[0] != process.handle:
            self._cgroups.pop(process.pid, None)  # another process has this pid now
        self._intake.handles[process.pid] = process.handle, process.start_ticks, process.error
        found = None if process.status_error else _TGID.search(process.status.decode(errors="surrogateescape"))
        failed = process.adj_error and process.adj_op != FileOp.REFUSED
        error = api.FileError(_OPS[FileOp(process.adj_op)], process.adj_error) if failed else None
        return api.AdjWritten(int(found[1]) if found else None, error)

    def _get_properties(self, request: api.GetProperties) -> Mapping[str, str]:
        known = self._properties()
        return {name: known[name] for name in request.names if name in known}

    def _open_pidfd(self, request: api.OpenPidfd) -> api.Opened:
        handle, _, error = self._intake.handles.get(request.pid, (0, 0, 0))
        if not handle and not error:
            adj = self._written_adj.get(request.pid, 0)
            item = WatchItem(pid=request.pid, uid=-1, oom_score_adj=adj)
            result = self._stream.request(r.Watch(items=(item,)), m.Watched).results[0]
            handle, error = result.handle, result.error
            self._intake.handles[request.pid] = handle, result.start_ticks, error
        return api.Opened(handle, 0) if handle else api.Opened(-1, error or errno.ESRCH)

    def _close_pidfd(self, request: api.ClosePidfd) -> None:
        # The helper drops its own pidfd when the process is dead or unregistered; ours is only its name.
        self._intake.forget(request.handle)

    def _watch_exit(self, request: api.WatchExit) -> int:
        self._intake.watched.add(request.handle)
        return 0

    def _kill(self, request: api.Kill) -> api.Killed:
        handle, start_ticks, _ = self._intake.handles.get(request.pid, (0, 0, 0))
        handle = request.handle if request.handle is not None else handle
        adj = self._written_adj.get(request.pid)
        kill = r.Kill(
            handle=handle,
            pid=request.pid,
            start_ticks=start_ticks or self._files.start_ticks(request.pid) or 0,
            signal=0 if self._dry_run else request.signal,
            flags=KillFlag.BOOST
            | (KillFlag.CHECK_ADJ if adj is not None else 0)
            | (KillFlag.GROUP if request.group else 0),
            oom_score_adj=adj or 0,
        )
        if not kill.handle and not kill.start_ticks:
            # It was gone before anybody could take hold of it: whoever has the pid by now is somebody else.
            gone_ns = self.now_ns()
            gone = m.Signalled(
                error=errno.ESRCH, pid=request.pid, handle=0, start_ticks=0, received_ns=gone_ns, signal_ns=0
            )
            self._intake.take(NO_KILL, gone)
            return api.Killed(0, queued=True)
        if self._dry_run:
            # Waited for: whether he would have been killed decides what the table is from here on.
            self._intake.sent_kill(NO_KILL, self._kill_path())
            self._intake.take(NO_KILL, self._stream.request(kill, m.Signalled))
            return api.Killed(0, queued=True)
        if self._kill_delay_ms:
            time.sleep(self._kill_delay_ms / MS_PER_S)
        request_id = self._stream.post(kill, as_event=True)
        self._intake.sent_kill(request_id, self._kill_path())
        # adb may have been woken on this CPU, and what is left to do here would go first (a tick of 4 ms at worst).
        time.sleep(LET_ADB_RUN_S)
        # Whether it worked comes with Signalled: lmkd does not wait for its reaper threads either.
        return api.Killed(0, queued=True)

    def _kill_path(self) -> KillPath:
        return KillPath(
            woke_ns=self.woke_ns() or 0,
            sampled_ns=self._files.complete_ns,
            arrived_ns=self._intake.arrived_ns,
            sent_ns=self.now_ns(),
        )

    def _arm(self, arm: r.Arm) -> api.FileError | None:
        error = self._stream.request(arm, m.Armed).error
        return api.FileError("write", error) if error else None

    def _arm_vmpressure(self, request: api.ArmVmpressure) -> api.FileError | None:
        self._intake.vmpressure = True
        path = request.pressure_level_path
        return self._arm(r.Arm(slot=request.level, kind=TriggerKind.VMPRESSURE, path=path, text=request.level_name))

    def _open_memory_events(self, _: api.OpenMemoryEvents) -> api.MemoryEventSupport:
        if not self._stream.hello.capabilities & Capability.TRACE_MEMEVENTS or not self._stream.settings:
            return api.MemoryEventSupport()
        # Only now: reclaim makes 200 messages a second, and what the policy waits for would wait behind them.
        wanted = self._stream.settings.flags | SettingsFlag.MEMEVENTS
        done = self._stream.request(attrs.evolve(self._stream.settings, flags=wanted), m.SettingsDone)
        if any(result.error for result in done.results if result.item == SettingItem.MEMEVENTS):
            return api.MemoryEventSupport()
        self._intake.memory_events = True
        return api.MemoryEventSupport(created=True, direct_reclaim=True, kswapd=True, fd=0)

    def _send(self, request: api.Send) -> int:
        if request.connection == TAKEN_OVER:
            return 0
        self._stream.send(r.ControlReply(connection=request.connection, data=request.data))
        return 0

    def _close_connection(self, request: api.CloseConnection) -> None:
        if request.connection != TAKEN_OVER:
            self._stream.send(r.CloseConnection(connection=request.connection))

    def _log(self, request: api.Log) -> None:
        if self._dry_run:
            return  # the device's log tells of kills that happened
        self._stream.send(r.Log(log_id=MAIN_LOG, payload=main_payload(request.level, LOG_TAG, request.text)))

    def _event_log(self, request: api.EventLog) -> None:
        if self._dry_run:
            return
        self._stream.send(r.Log(log_id=EVENTS_LOG, payload=event_payload(KILLINFO_TAG, request.fields)))


def reap_method(hello: m.Hello) -> str:
    """The best way this device has to take a dying process's memory, as the record names it."""
    if hello.process_reap == CallState.PRESENT:
        return "process_reap"
    return "process_mrelease" if hello.process_mrelease == CallState.PRESENT else "none"
