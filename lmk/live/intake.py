"""What the helper says, as the policy's events and the record's facts.

Owns everything that outlives one wake-up: events not delivered yet, which pidfds the policy watches and which
processes are dead, the helper's handles by pid, and kills whose story is not complete.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any, Protocol

import attrs

from lmk.device import helper_messages as m
from lmk.device.helper_types import ControlEvent, ControlFlag, ControlPid, ReapMethod
from lmk.errors import HelperError
from lmk.live.clock import DeviceClock
from lmk.live.files import SampledFiles
from lmk.policy import api
from lmk.units import NS_PER_MS

REAP_NAMES = {
    ReapMethod.PROCESS_REAP: "process_reap",
    ReapMethod.PROCESS_MRELEASE: "process_mrelease",
    ReapMethod.NONE: "none",
    ReapMethod.CGROUP: "cgroup.reap",
}


@attrs.frozen(kw_only=True)
class KillPath:
    """Where the time of one kill went before it was sent; device time, all but the first as the host estimates it.

    ``woke_ns``: the helper's wake-up (a poll: its sample begun), 0 if unknown; ``sampled_ns``: the sample was complete.
    """

    woke_ns: int
    sampled_ns: int
    arrived_ns: int
    sent_ns: int

    def legs_us(self, received_ns: int, signal_ns: int) -> dict[str, int]:
        """What each leg took; the helper had the Kill at ``received_ns``."""
        moments = (self.woke_ns, self.sampled_ns, self.arrived_ns, self.sent_ns, received_ns, signal_ns)
        names = ("sampling_us", "to_host_us", "deciding_us", "to_device_us", "signalling_us")
        return {name: (end - start) // 1000 for name, (start, end) in zip(names, pairwise(moments), strict=True)}


class Listener(Protocol):
    """What a run wants to know beside the policy's own exchanges."""

    def sampled(self, t_ns: int, files: SampledFiles) -> None:
        """A sample was taken (for the record's counters)."""

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        """Columns of the record's kill row became known."""

    def device_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        """The helper reported something: exit, oom, failsafe."""

    def busy(self) -> None:
        """Something came that may be decided on: leave the processor alone until ``idle``."""

    def idle(self) -> None:
        """Nothing is to be decided; the next thing is a wait."""

    def housekeeping(self) -> str | None:
        """Called while waiting, several times a second; a reason ends the run."""


class Intake:
    """Feed it messages with ``take``; collect events with ``pop``."""

    def __init__(self, clock: DeviceClock, files: SampledFiles, listener: Listener, *, dry_run: bool = False) -> None:
        self._clock = clock
        self._dry_run = dry_run
        self._files = files
        self._listener = listener
        self._events: deque[api.Event] = deque()
        self._injected: deque[api.Event] = deque()  # delivered before _events: they are older
        self._registered: deque[ControlPid] = deque()  # with the packets in _events
        self._alone: deque[api.Event] = deque()  # events that never share a Wakeup
        self._exited: set[int] = set()
        self._kills: dict[int, KillPath] = {}  # by request id
        self._open: set[int] = set()  # connections the policy knows
        self._unconfirmed: set[int] = set()  # of them, those not heard of since the stream came back
        self.watched: set[int] = set()
        #: dry run: processes that would have been killed and live on, until somebody takes note
        self.spared: list[int] = []
        #: what the helper did for each PROCPRIO of the packets just delivered, by pid and in order
        self.registered: dict[int, deque[ControlPid]] = {}
        #: pid -> (handle, start time in ticks, errno of opening it) in the helper's table
        self.handles: dict[int, tuple[int, int, int]] = {}
        #: set once the policy has asked for these kinds of events
        self.memory_events = False
        self.vmpressure = False
        self._levels = [0, 0, 0]
        #: device time at which the helper woke for the events being delivered; 0 for a poll
        self.woke_ns = 0
        #: when the sample of the present wake-up was here
        self.arrived_ns = 0

    def inject(self, event: api.Event) -> None:
        """Deliver an event that does not come from the helper (a process table taken over from /proc)."""
        self._injected.append(event)

    def pop(self) -> api.Wakeup | None:
        """What one epoll_wait would return now; None if it would block."""
        if self._alone:
            return api.Wakeup((self._alone.popleft(),))
        events: list[api.Event] = [api.ExitEvent(handle) for handle in sorted(self._exited & self.watched)]
        events.extend(self._injected)
        events.extend(self._events)
        self._injected.clear()
        self._events.clear()
        self.registered = {}
        for process in self._registered:
            self.registered.setdefault(process.pid, deque()).append(process)
        self._registered.clear()
        return api.Wakeup(tuple(events)) if events else None

    def stream_came_back(self) -> None:
        """After a loss the helper names every client that is still connected; see ``drop_unconfirmed``."""
        self._unconfirmed = set(self._open)

    def drop_unconfirmed(self) -> None:
        """Clients it did not name went while nobody looked."""
        for connection in sorted(self._unconfirmed):
            self._open.discard(connection)
            self._events.append(api.HangUpEvent(connection))
        self._unconfirmed.clear()

    def take_vmpressure(self) -> tuple[int, int, int]:
        """Read and clear the counts of the vmpressure eventfds."""
        low, medium, critical = self._levels
        self._levels = [0, 0, 0]
        return low, medium, critical

    def take_memory_events(self) -> api.MemoryEvents:
        """A poll of the listener: entries that have not been delivered as an event."""
        waiting = [event for event in self._events if isinstance(event, api.MemoryEvents)]
        for event in waiting:
            self._events.remove(event)
        return api.MemoryEvents(tuple(entry for event in waiting for entry in event.entries or ()))

    def sent_kill(self, request_id: int, path: KillPath) -> None:
        """A kill was requested under this id."""
        self._kills[request_id] = path

    def forget(self, handle: int) -> None:
        """The policy closed this handle."""
        self._exited.discard(handle)
        self.watched.discard(handle)

    def take(self, request_id: int, message: m.Message) -> None:
        match message:
            case m.Pressure():
                self._clock.reached(message.wake_ns)
                self.woke_ns = message.wake_ns
                self.arrived_ns = self._clock.now_ns()
                self._files.begin(message.snapshot)
                self._listener.sampled(message.begin_ns, self._files)
                # The kernel wakes the newest trigger first (psi_trigger_create, vmpressure_register_event), and lmkd
                # arms its critical one last: after a medium event a critical one would find nothing reclaimed.
                for level in (2, 1, 0):
                    if message.fired >> level & 1:
                        self._levels[level] += self.vmpressure
                        self._events.append(api.PressureEvent(level))
            case m.Control():
                self._take_packet(message)
            case m.ControlConnection(event=ControlEvent.CONNECT):
                self._unconfirmed.discard(message.connection)
                if message.connection not in self._open:
                    self._open.add(message.connection)
                    self._events.append(api.ConnectEvent(message.connection))
            case m.ControlConnection():
                self._open.discard(message.connection)
                self._events.append(api.HangUpEvent(message.connection))
            case m.Exited():
                self._exited.add(message.handle)
                self._listener.device_event(message.exit_ns, "exit", {"pid": message.pid, "ours": message.kill_id != 0})
            case m.Signalled():
                self._signalled(request_id, message)
            case m.Killed():
                self._killed(message)
            case m.MemEvents():
                if self.memory_events:
                    entries = tuple(api.MemoryEvent(item.event) for item in message.items)
                    self._events.append(api.MemoryEvents(entries))
            case m.Sample():  # the background sampler's
                self._listener.sampled(message.begin_ns, SampledFiles.of(message))
            case m.Oom():
                body = {"source": message.source, "pid": message.pid, "text": message.text}
                self._listener.device_event(message.t_ns, "oom", body)
            case m.Failsafe():
                self._listener.device_event(message.entered_ns, "failsafe", _failsafe_body(message))
            case m.ErrorReply():
                raise HelperError(f"the helper refused a request: {message.text} (errno {message.error})")
            case _:
                pass  # heartbeats; answers to posted requests that only say Done

    def _take_packet(self, message: m.Control) -> None:
        self._registered.extend(message.processes)
        credentials = (message.pid, message.uid) if message.flags & ControlFlag.CREDENTIALS else None
        self._events.append(api.PacketEvent(message.connection, message.packet, credentials))

    def _signalled(self, request_id: int, message: m.Signalled) -> None:
        if message.error:
            self._alone.append(api.ReapedEvent(message.pid, message.error, 0, 0))
            self._listener.device_event(
                message.received_ns, "kill_failed", {"pid": message.pid, "errno": message.error}
            )
            self._listener.kill_outcome(message.pid, signal_errno=message.error)
            self._events.append(api.ReaperFailureEvent(message.pid))
            self._kills.pop(request_id, None)
            return
        path = self._kills.pop(request_id, None)
        values: dict[str, int] = {"t_ns": message.signal_ns}
        if path is not None and path.woke_ns:
            values["event_to_signal_us"] = (message.signal_ns - path.woke_ns) // 1000
            body = {"pid": message.pid, **path.legs_us(message.received_ns, message.signal_ns)}
            self._listener.device_event(message.signal_ns, "kill_path", body)
        self._listener.kill_outcome(message.pid, **values)
        if self._dry_run:
            # To the policy the victim is dead at once; on the device nothing has happened to it.
            self._exited.add(message.handle)
            self.spared.append(message.pid)

    def _killed(self, message: m.Killed) -> None:
        method = ReapMethod(message.method)
        freed_kib = None
        if min(message.anon_kib_before, message.anon_kib_after, message.shmem_kib_before) >= 0:
            before = message.anon_kib_before + message.shmem_kib_before
            freed_kib = before - message.anon_kib_after - max(0, message.shmem_kib_after)
        took_ns = message.reap_end_ns - message.signal_ns
        self._listener.kill_outcome(
            message.pid,
            signal_to_reaped_us=took_ns // 1000 if message.reap_end_ns and not message.reap_error else None,
            signal_to_exit_us=(message.exit_ns - message.signal_ns) // 1000 if message.exit_ns else None,
            freed_kib=freed_kib,
            reap_method=REAP_NAMES[method],
            reap_errno=message.reap_error if method is not ReapMethod.NONE else None,
        )
        if method is not ReapMethod.NONE and message.reap_end_ns:
            self._alone.append(api.ReapedEvent(message.pid, 0, message.reap_error, took_ns // NS_PER_MS))


def _failsafe_body(message: m.Failsafe) -> dict[str, Any]:
    return {
        "reason": message.reason,
        "mode": message.mode,
        "silent_since_ns": message.silent_since_ns,
        "left_ns": message.left_ns,
        "packets_handled": message.packets_handled,
        "packets_lost": message.packets_lost,
        "handed_back": bool(message.handed_back),
        "kills": [{"pid": k.pid, "oom_score_adj": k.oom_score_adj, "name": k.name} for k in message.kills],
    }
