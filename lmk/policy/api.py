"""The policy protocol: sans-I/O, stepwise, one request at a time.

A policy is started once and then fed the answer to its last request, always with the time
of the device's coarse monotonic clock in nanoseconds (lmkd reads CLOCK_MONOTONIC_COARSE)::

    request = policy.start(now_ns)
    while not isinstance(request, Exit):
        request = policy.step(answer_to(request), clock())

The whole daemon is inside: its main loop, polling, kill time-out and control socket. The only
request during which time passes on a recorded or simulated device is ``Wait``; on a live one
the clock moves as it likes. The policy opens nothing, reads no clock and draws no random
number, so a simulator, a live device and a recording run the same code.

Order is part of the protocol. A target carries requests out in the order in which it gets
them; requests answered with ``None`` may be buffered and sent along with the next one that
needs an answer (a live target does). Reads have no effect on the device: a target may answer
them from a sample that came with the event, and may prefetch. In particular
``ReadProcess(pid, "status")`` after ``ReadSizes`` or at the start of a kill is followed by
``cmdline`` and perhaps ``stat`` of the same pid: fetch all three in one round trip.

Text: files are ``str``; a target decodes bytes as UTF-8 with ``surrogateescape``.
Identity: a *connection* is any integer of the target's choice that it never uses twice; a
*handle* is an open pidfd, likewise never used twice, and survives re-use of the pid.
Requests and events take their few fields by position too: they are made thousands of times a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from lmk.policy.decision import Decision
from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure
from lmk.procfs.vmstat import Vmstat
from lmk.procfs.zoneinfo import Zoneinfo

SIGKILL = 9

# ---- events, delivered by Wakeup


@attrs.frozen
class PressureEvent:
    """The monitor of this level fired (0 low, 1 medium, 2 critical): PSI trigger or vmpressure eventfd."""

    level: int


@attrs.frozen
class PacketEvent:
    """One message on a client's connection, as ``recvmsg`` gives it.

    ``data`` may be longer than the daemon reads (it cuts); empty is end of file. ``credentials``
    is (pid, uid) of the sender, None when the message carried none. ``errno`` is not 0 when
    the read itself failed. An event for a connection that is closed meanwhile may be delivered:
    the policy then sees EBADF, as the daemon does.
    """

    connection: int
    data: bytes
    credentials: tuple[int, int] | None
    errno: int = 0


@attrs.frozen
class ConnectEvent:
    """A client connected to the control socket; the target has accepted it."""

    connection: int


@attrs.frozen
class HangUpEvent:
    """A client hung up (EPOLLHUP). The connection stays until ``CloseConnection``."""

    connection: int


@attrs.frozen
class ExitEvent:
    """The pidfd that is being watched is readable: the process has exited. Level-triggered: delivered
    by every wait until ``UnwatchExit``. ``hang_up``: EPOLLHUP, which newer kernels raise once the parent
    has reaped the process."""

    handle: int
    hang_up: bool = False


@attrs.frozen
class ReaperFailureEvent:
    """A reaper thread could not signal this pid (the pipe is readable); one event per failure."""

    pid: int


@attrs.frozen
class MemoryEvent:
    """One entry of the memory event ring: 1/2 direct reclaim begins/ends, 3/4 kswapd wakes/sleeps,
    5 vendor kill (``reason``, ``min_adj``), 6 zoneinfo changed."""

    kind: int
    reason: int = 0
    min_adj: int = 0


@attrs.frozen
class MemoryEvents:
    """What the memory event listener's ring held; None when fetching failed."""

    entries: tuple[MemoryEvent, ...] | None


@attrs.frozen
class MemoryEventsReady:
    """The memory event listener is readable. The policy fetches the entries with ``TakeMemoryEvents``,
    unless a poll that comes first has fetched them. A target that cannot keep a ring delivers
    ``MemoryEvents`` itself as the event instead."""


@attrs.frozen
class KernelKillEvent:
    """In-kernel killer only: a chunk of text that ``/proc/lowmemorykiller`` gave."""

    text: str


@attrs.frozen
class WatchdogEvent:
    """A handler was still running two seconds after it began; see ``HandlerBegin``."""


@attrs.frozen
class ReapedEvent:
    """What a reaper thread did with an asynchronous kill; for the log, delivered before other events.

    ``kill_errno`` and ``release_errno`` are 0 on success; ``took_ms`` covers signal and release.
    A target that gives ``kill_errno`` delivers a ReaperFailureEvent as well.
    """

    pid: int
    kill_errno: int
    release_errno: int
    took_ms: int


Event = (
    PressureEvent
    | PacketEvent
    | ConnectEvent
    | HangUpEvent
    | ExitEvent
    | ReaperFailureEvent
    | MemoryEvents
    | MemoryEventsReady
    | KernelKillEvent
    | WatchdogEvent
    | ReapedEvent
)


# ---- answers


@attrs.frozen
class FileError:
    """A file operation failed; ``op`` is "open", "read" or "write"."""

    op: str
    errno: int


@attrs.frozen
class Wakeup:
    """Events that one ``epoll_wait`` returned together, in its order; none: time-out (or EINTR)."""

    events: tuple[Event, ...] = ()


@attrs.frozen
class Machine:
    """Facts that never change while the daemon runs."""

    page_size: int = 4096
    ticks_per_s: int = 100


@attrs.frozen
class Memcg:
    """Where the memory controller is: ``version`` 0 (not mounted), 1 or 2."""

    version: int


@attrs.frozen
class MemoryEventSupport:
    """What creating the memory event listener achieved; ``fd`` is -1 when its descriptor is invalid."""

    created: bool = False
    direct_reclaim: bool = False
    kswapd: bool = False
    vendor_kill: bool = False
    update_zoneinfo: bool = False
    fd: int = -1


@attrs.frozen
class AdjWritten:
    """What ``SetOomScoreAdj`` found: the Tgid of the pid's status (None: unreadable or no such line),
    and the failure of the write, if any. When the Tgid differs from the pid nothing was written."""

    tgid: int | None = None
    error: FileError | None = None


@attrs.frozen
class Killed:
    """``errno`` 0: signal sent, or queued for a reaper thread (``queued``)."""

    errno: int = 0
    queued: bool = False


@attrs.frozen
class Opened:
    """A new pidfd, or the reason why there is none (``handle`` -1)."""

    handle: int
    errno: int = 0


# ---- requests


@attrs.frozen
class Wait:
    """Wait for events, at most ``timeout_ms`` (None: for ever). Answer: ``Wakeup``.

    A Wakeup that holds only ``WatchdogEvent`` or ``ReapedEvent`` does not end the wait (in lmkd other
    threads do that work): the policy deals with it and asks the same ``Wait`` again, and the target
    goes on towards the first deadline. Such events never share a Wakeup with others.
    """

    timeout_ms: int | None


@attrs.frozen
class DescribeMachine:
    """Answer: ``Machine``. Asked once, first."""


@attrs.frozen
class DescribeMemcg:
    """Answer: ``Memcg``. Asked whenever the daemon asks libprocessgroup for the controller."""


@attrs.frozen
class CgroupAttributePath:
    """libprocessgroup's path of an attribute (``MemSoftLimit``, ``MemStats``, ``MemUsage`` …) of the group a
    task is in, or (``pid`` None) of the controller's root. A device's cgroups.json and task_profiles.json
    decide; ``lmk.policy.lmkd.memcg`` knows AOSP's. Answer: ``str``, or None when it cannot be resolved."""

    attribute: str
    pid: int | None


@attrs.frozen
class ReadFile:
    """Whole text of a file. Answer: ``str`` or ``FileError``; for the four memory files also the parsed
    ``Meminfo``, ``Vmstat``, ``Zoneinfo`` or ``Pressure``, with identical results.

    ``keep``: the daemon keeps the descriptor and re-reads from the start. It is opened only when it
    is not open yet (failure: "open"); a failed read closes it.
    """

    path: str
    keep: bool = True


@attrs.frozen
class ReadProcess:
    """Text of ``/proc/<pid>/<file>`` (status, cmdline, stat). Answer: ``str`` or ``FileError``."""

    pid: int
    file: str


@attrs.frozen
class ListProcesses:
    """Every process that /proc shows, kernel threads left out. Answer: pids, ascending. lmkd never asks."""


@attrs.frozen
class ListGroups:
    """The cgroups directly below one of cgroup v2 ("" is the root). Answer: a tuple of their paths, sorted, or
    ``FileError``. lmkd never asks."""

    group: str


@attrs.frozen
class ReadSizes:
    """Resident pages of each pid, in order: second number of ``/proc/<pid>/statm``. Answer: a sequence
    with one element per pid, each an ``int``, the text of statm (``str``), or ``FileError``."""

    pids: Sequence[int]


@attrs.frozen
class ProcessExists:
    """Does ``/proc/<pid>/`` exist? Answer: ``bool``. Asked only where pidfds are not supported."""

    pid: int


@attrs.frozen
class CheckWritable:
    """``access(path, W_OK)``. Answer: ``bool``."""

    path: str


@attrs.frozen
class TakeMemoryEvents:
    """Empty the memory event listener's ring, without waiting. Answer: ``MemoryEvents``."""


@attrs.frozen
class ReadGpuTotal:
    """Bytes of GPU memory in use (the BPF map). Answer: ``int``, or None when there is no such map."""


@attrs.frozen
class WriteFile:
    """Replace a file's content. Answer: None or ``FileError`` (op "open" or "write")."""

    path: str
    text: str


@attrs.frozen
class SetOomScoreAdj:
    """Write ``adj`` to ``/proc/<pid>/oom_score_adj`` unless the pid is a thread: first read the pid's status;
    write unless it says a Tgid other than the pid. Answer: ``AdjWritten``."""

    pid: int
    adj: int


@attrs.frozen
class GetProperties:
    """Answer: a mapping with the value of each of these Android properties that is set."""

    names: tuple[str, ...]


@attrs.frozen
class SetProperty:
    """Set an Android property. Answer: None."""

    name: str
    text: str


@attrs.frozen
class ProbePidfd:
    """Can this kernel open pidfds? (lmkd opens one on itself.) Answer: ``bool``, False only for ENOSYS."""


@attrs.frozen
class OpenPidfd:
    """Answer: ``Opened``."""

    pid: int


@attrs.frozen
class ClosePidfd:
    """Forget a handle. Answer: None."""

    handle: int


@attrs.frozen
class WatchExit:
    """Deliver ``ExitEvent`` from now on while the process is dead. Answer: errno, 0 when watched."""

    handle: int


@attrs.frozen
class UnwatchExit:
    """Stop watching. Answer: None."""

    handle: int


@attrs.frozen
class StartReaper:
    """Probe process_mrelease and start ``threads`` reaper threads that take requests newest first
    (``order`` "lifo") or oldest first ("fifo"). Answer: ``bool``, whether reaping is supported."""

    threads: int
    order: str


@attrs.frozen
class Kill:
    """Send ``signal``, SIGKILL unless said otherwise. Answer: ``Killed``.

    ``handle`` None: by pid (``kill``), else through the pidfd. ``queue``: hand it to a reaper thread;
    when as many kills are active as there are threads, the target sends the signal at once
    instead (``queued`` False). A queued kill always answers errno 0; what became of it comes as
    ``ReapedEvent`` and, if the signal failed, ``ReaperFailureEvent``. The reaper duplicates the handle.
    ``group``: everybody in the cgroup of the process with it, if that cgroup is its own (Android's uid_N/pid_M).
    """

    pid: int
    handle: int | None
    queue: bool
    #: Android 13.0: sent at once, it also releases the memory, and a failure of that is the answer's errno.
    release: bool = False
    signal: int = SIGKILL
    group: bool = False


@attrs.frozen
class ArmPsi:
    """Arm a PSI trigger: ``text`` (without its NUL) is written to /proc/pressure/memory.
    Answer: None or ``FileError``."""

    level: int
    text: str


@attrs.frozen
class ArmVmpressure:
    """Register an eventfd with memory cgroup v1. Answer: None or ``FileError`` whose op says what failed:
    "pressure_level" (open), "event_control" (open), "eventfd", "write"."""

    level: int
    level_name: str
    pressure_level_path: str
    event_control_path: str


@attrs.frozen
class Disarm:
    """Close the monitor of this level. Answer: None."""

    level: int


@attrs.frozen
class TakeVmpressure:
    """Read and clear the eventfds of low, medium and critical. Answer: three counts (0: nothing)."""


@attrs.frozen
class OpenMemoryEvents:
    """Create the memory event listener and register its kinds. Answer: ``MemoryEventSupport``."""


@attrs.frozen
class OpenKernelKills:
    """In-kernel killer only: open /proc/lowmemorykiller. Answer: errno, 0 when open."""


@attrs.frozen
class Send:
    """One message to a client. Answer: errno, 0 when sent."""

    connection: int
    data: bytes


@attrs.frozen
class CloseConnection:
    """Answer: None."""

    connection: int


@attrs.frozen
class Log:
    """A line of the main log, tag ``lowmemorykiller``; level "D", "I", "W" or "E". Answer: None."""

    level: str
    text: str


@attrs.frozen
class EventLog:
    """A ``killinfo`` event (events log, tag 10195355): its fields in order. Answer: None."""

    fields: tuple[int | float, ...]


@attrs.frozen
class HandlerBegin:
    """A handler starts; ends with ``HandlerEnd``. A live target arms its watchdog. Answer: None.

    ``name``: psi, mp, ctrl, connect, kill_done, kill_fail, kernel, memevent, watchdog.
    ``data``: level or connection slot. ``by_event`` False: called by polling.
    """

    name: str
    data: int
    by_event: bool


@attrs.frozen
class HandlerEnd:
    """State after a handler: level of the handler being polled and of the paused one (-1: none), the
    polling interval, and the pid whose death is awaited (-1: none). Answer: None."""

    polling: int
    paused: int
    interval_ms: int
    waiting_pid: int


@attrs.frozen
class Exit:
    """The daemon ends. There is no answer and no further step.

    ``returned``: main() returned (start-up failed) instead of calling exit.
    """

    code: int
    returned: bool = False


Effect = Log | EventLog | Send | WriteFile | SetOomScoreAdj | SetProperty | CloseConnection | Kill | Exit

Request = (
    Wait
    | DescribeMachine
    | DescribeMemcg
    | CgroupAttributePath
    | ReadFile
    | ReadProcess
    | ListProcesses
    | ListGroups
    | ReadSizes
    | ProcessExists
    | CheckWritable
    | ReadGpuTotal
    | WriteFile
    | SetOomScoreAdj
    | GetProperties
    | SetProperty
    | ProbePidfd
    | OpenPidfd
    | ClosePidfd
    | WatchExit
    | UnwatchExit
    | StartReaper
    | Kill
    | ArmPsi
    | ArmVmpressure
    | Disarm
    | TakeVmpressure
    | TakeMemoryEvents
    | OpenMemoryEvents
    | OpenKernelKills
    | Send
    | CloseConnection
    | Log
    | EventLog
    | HandlerBegin
    | HandlerEnd
    | Decision
    | Exit
)
FileAnswer = str | FileError | Meminfo | Vmstat | Zoneinfo | Pressure


@attrs.frozen
class ProcessRow:
    """One registered process: ``owner_pid`` is the client that registered it (0: nobody), ``valid`` is
    False once the watchdog killed it."""

    pid: int
    uid: int
    adj: int
    owner_pid: int
    valid: bool


class Policy(Protocol):
    """What every policy offers; see the module's docstring."""

    @property
    def name(self) -> str:
        """The word by which a user selects it."""

    def start(self, now_ns: int) -> Request:
        """Begin; returns the first request. Called exactly once."""

    def step(self, answer: object, now_ns: int) -> Request:
        """Answer the last request; returns the next one. ``now_ns`` never goes backwards."""

    def processes(self) -> Sequence[ProcessRow]:
        """The process table as the policy sees it now, oom_score_adj descending, newest first within one."""
