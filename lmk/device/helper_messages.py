"""Device to host: answers and events of the helper protocol.

Names end in their unit. Times are nanoseconds on the device's CLOCK_MONOTONIC, 0 where a thing did not happen;
sizes are KiB or pages as the kernel gave them, -1 where they could not be read. ``error`` is a positive errno,
0 for success. docs/helper-protocol.md is the specification.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from lmk.device.helper_codec import BLOB, I32, I64, TEXT, U8, U16, U32, U64, Layout, list_of
from lmk.device.helper_types import (
    ControlPid,
    FailsafeKill,
    FileText,
    MemEventItem,
    PidEntry,
    SettingResult,
    SizeEntry,
    Snapshot,
    TableRow,
    WatchResult,
)


@attrs.frozen(kw_only=True)
class Hello:
    """What the device is and can do."""

    code: ClassVar[int] = 64
    layout: ClassVar[Layout] = (
        *(("version", U16), ("process_reap", U8), ("process_mrelease", U8), ("pidfd_open", U8)),
        *(("capabilities", U32), ("page_bytes", U32), ("ticks_per_s", U32), ("cpus", U32), ("uid", I32)),
        *(("pid", I32), ("guardian_pid", I32), ("worker_starts", U32), ("mem_total_kib", U64)),
        *(("now_ns", I64), ("realtime_ns", I64), ("sysname", TEXT), ("release", TEXT)),
        *(("kernel_version", TEXT), ("machine", TEXT)),
    )
    version: int
    process_reap: int
    process_mrelease: int
    pidfd_open: int
    capabilities: int
    page_bytes: int
    ticks_per_s: int
    cpus: int
    uid: int
    pid: int
    guardian_pid: int
    worker_starts: int
    mem_total_kib: int
    now_ns: int
    realtime_ns: int
    sysname: str
    release: str
    kernel_version: str
    machine: str


@attrs.frozen(kw_only=True)
class Done:
    """Answer of requests that only succeed or fail; ``op`` says which step failed (FileOp)."""

    code: ClassVar[int] = 65
    layout: ClassVar[Layout] = (("op", U8), ("error", I32))
    op: int
    error: int


@attrs.frozen(kw_only=True)
class SettingsDone:
    """Answer to Settings: each part's errno, so that the host can say what it has to do without."""

    code: ClassVar[int] = 66
    layout: ClassVar[Layout] = (("results", list_of(SettingResult)),)
    results: tuple[SettingResult, ...]


@attrs.frozen(kw_only=True)
class Armed:
    """Answer to Arm."""

    code: ClassVar[int] = 67
    layout: ClassVar[Layout] = (("slot", U8), ("error", I32))
    slot: int
    error: int


@attrs.frozen(kw_only=True)
class Pressure:
    """Triggers fired (bit ``1 << slot``); ``wake_ns`` is when the helper woke."""

    code: ClassVar[int] = 68
    layout: ClassVar[Layout] = (("fired", U32), ("wake_ns", I64), *Snapshot.layout)
    fired: int
    wake_ns: int
    begin_ns: int
    end_ns: int
    direct_start_ns: int
    kswapd_start_ns: int
    files: tuple[FileText, ...]
    candidates: tuple[PidEntry, ...]

    @property
    def snapshot(self) -> Snapshot:
        """The sample that came with the event."""
        return Snapshot(**{name: getattr(self, name) for name, _ in Snapshot.layout})


@attrs.frozen(kw_only=True)
class Sample(Snapshot):
    """Answer to GetSample."""

    code: ClassVar[int] = 69


@attrs.frozen(kw_only=True)
class Files:
    """Answer to GetFiles, in the order asked; ``file`` is the index."""

    code: ClassVar[int] = 70
    layout: ClassVar[Layout] = (("files", list_of(FileText)),)
    files: tuple[FileText, ...]


@attrs.frozen(kw_only=True)
class Proc:
    """Answer to GetProc, in the order asked."""

    code: ClassVar[int] = 71
    layout: ClassVar[Layout] = (("entries", list_of(PidEntry)),)
    entries: tuple[PidEntry, ...]


@attrs.frozen(kw_only=True)
class Sizes:
    """Answer to GetSizes, in the order asked."""

    code: ClassVar[int] = 72
    layout: ClassVar[Layout] = (("entries", list_of(SizeEntry)),)
    entries: tuple[SizeEntry, ...]


@attrs.frozen(kw_only=True)
class ProcTable:
    """One part of the answer to GetTable."""

    code: ClassVar[int] = 73
    layout: ClassVar[Layout] = (("last", U8), ("rows", list_of(TableRow)))
    last: int
    rows: tuple[TableRow, ...]


@attrs.frozen(kw_only=True)
class Watched:
    """Answer to Watch."""

    code: ClassVar[int] = 74
    layout: ClassVar[Layout] = (("results", list_of(WatchResult)),)
    results: tuple[WatchResult, ...]


@attrs.frozen(kw_only=True)
class Signalled:
    """Answer to Kill, right after the signal. ESRCH gone, ESTALE pid reused, ECANCELED adj changed, EPERM refused."""

    code: ClassVar[int] = 75
    layout: ClassVar[Layout] = (
        *(("error", I32), ("pid", I32), ("handle", U32), ("start_ticks", U64)),
        *(("received_ns", I64), ("signal_ns", I64)),
    )
    error: int
    pid: int
    handle: int
    start_ticks: int
    received_ns: int
    signal_ns: int


@attrs.frozen(kw_only=True)
class Exited:
    """A registered or killed process is dead (pidfd readable). ``kill_id``: the Kill's request id, or 0."""

    code: ClassVar[int] = 76
    layout: ClassVar[Layout] = (
        *(("kill_id", U32), ("pid", I32), ("handle", U32), ("start_ticks", U64), ("exit_ns", I64)),
    )
    kill_id: int
    pid: int
    handle: int
    start_ticks: int
    exit_ns: int


@attrs.frozen(kw_only=True)
class Killed:
    """The whole story of one Kill, under its request id: after reap and exit, or when one of them timed out."""

    code: ClassVar[int] = 77
    layout: ClassVar[Layout] = (
        *(("pid", I32), ("handle", U32), ("start_ticks", U64), ("oom_score_adj", I32), ("signal", I32)),
        *(("method", U8), ("reap_error", I32), ("reap_calls", U32), ("flags", U32), ("received_ns", I64)),
        *(("signal_ns", I64), ("reap_begin_ns", I64), ("reap_end_ns", I64), ("exit_ns", I64)),
        *(("back_ns", I64), ("anon_kib_before", I64), ("shmem_kib_before", I64)),
        *(("swap_kib_before", I64), ("rss_kib_before", I64), ("anon_kib_after", I64)),
        *(("shmem_kib_after", I64), ("free_pages_before", I64), ("free_pages_after_reap", I64)),
        *(("free_pages_after_exit", I64), ("back_allocatable_ns", I64)),
        *(("group_members", U32), ("group_lost", U32)),
    )
    pid: int
    handle: int
    start_ticks: int
    oom_score_adj: int
    signal: int
    method: int
    reap_error: int
    reap_calls: int
    flags: int
    received_ns: int
    signal_ns: int
    reap_begin_ns: int
    reap_end_ns: int
    exit_ns: int
    back_ns: int
    anon_kib_before: int
    shmem_kib_before: int
    swap_kib_before: int
    rss_kib_before: int
    anon_kib_after: int
    shmem_kib_after: int
    free_pages_before: int
    free_pages_after_reap: int
    free_pages_after_exit: int
    #: As back_ns, pages on the CPUs' own free lists counted too (MEASURE): those are usable, but not in nr_free_pages.
    back_allocatable_ns: int
    #: A cgroup killed from userspace (GROUP without cgroup.reap): processes found, and those whose reap said ESRCH.
    group_members: int
    group_lost: int


@attrs.frozen(kw_only=True)
class Control:
    """One packet from /dev/socket/lmkd, at most 52 bytes of it; ``length`` is what the client sent."""

    code: ClassVar[int] = 78
    layout: ClassVar[Layout] = (
        *(("connection", U32), ("flags", U32), ("pid", I32), ("uid", I32), ("gid", I32)),
        *(("t_ns", I64), ("length", U32), ("packet", BLOB), ("processes", list_of(ControlPid))),
    )
    connection: int
    flags: int
    pid: int
    uid: int
    gid: int
    t_ns: int
    length: int
    packet: bytes
    processes: tuple[ControlPid, ...]


@attrs.frozen(kw_only=True)
class ControlConnection:
    """A client came or went; pid, uid, gid are those of the connecting process (SO_PEERCRED)."""

    code: ClassVar[int] = 79
    layout: ClassVar[Layout] = (
        *(("connection", U32), ("event", U8), ("pid", I32), ("uid", I32), ("gid", I32), ("t_ns", I64)),
    )
    connection: int
    event: int
    pid: int
    uid: int
    gid: int
    t_ns: int


@attrs.frozen(kw_only=True)
class Oom:
    """A kernel OOM kill: the event's pid and its text as the kernel wrote it."""

    code: ClassVar[int] = 80
    layout: ClassVar[Layout] = (("source", U8), ("t_ns", I64), ("pid", I32), ("text", TEXT))
    source: int
    t_ns: int
    pid: int
    text: str


@attrs.frozen(kw_only=True)
class MemEvents:
    """vmscan events since the last such message; ``dropped`` were too many to carry (the newest are kept)."""

    code: ClassVar[int] = 81
    layout: ClassVar[Layout] = (("dropped", U32), ("items", list_of(MemEventItem)))
    dropped: int
    items: tuple[MemEventItem, ...]


@attrs.frozen(kw_only=True)
class Heartbeat:
    """The helper lives; counters since its start."""

    code: ClassVar[int] = 82
    layout: ClassVar[Layout] = (
        *(("t_ns", I64), ("registered", U32), ("kills", U32), ("messages_dropped", U32)),
        *(("worker_starts", U32), ("guardian_pid", I32), ("failsafe_active", U8)),
    )
    t_ns: int
    registered: int
    kills: int
    messages_dropped: int
    worker_starts: int
    guardian_pid: int
    failsafe_active: int


@attrs.frozen(kw_only=True)
class Failsafe:
    """What the helper did while the host was silent; sent when the host is back."""

    code: ClassVar[int] = 83
    layout: ClassVar[Layout] = (
        *(("reason", U8), ("mode", U8), ("silent_since_ns", I64), ("entered_ns", I64), ("left_ns", I64)),
        *(("packets_handled", U32), ("packets_lost", U32), ("handed_back", U8), ("handback_error", I32)),
        *(("reregistered", U32), ("kills_lost", U32), ("kills", list_of(FailsafeKill))),
    )
    reason: int
    mode: int
    silent_since_ns: int
    entered_ns: int
    left_ns: int
    packets_handled: int
    packets_lost: int
    handed_back: int
    handback_error: int
    reregistered: int
    kills_lost: int
    kills: tuple[FailsafeKill, ...]


@attrs.frozen(kw_only=True)
class ErrorReply:
    """A request the helper could not take (id set), or why it hangs up (id 0)."""

    code: ClassVar[int] = 84
    layout: ClassVar[Layout] = (("error", I32), ("request_type", U16), ("text", TEXT))
    error: int
    request_type: int
    text: str


@attrs.frozen(kw_only=True)
class Pong:
    """Answer to Ping."""

    code: ClassVar[int] = 85
    layout: ClassVar[Layout] = (("now_ns", I64), ("realtime_ns", I64))
    now_ns: int
    realtime_ns: int


@attrs.frozen(kw_only=True)
class Ran:
    """Answer to Run: errno of starting it, or its exit status (128 + signal if killed)."""

    code: ClassVar[int] = 86
    layout: ClassVar[Layout] = (("error", I32), ("status", I32))
    error: int
    status: int


Message = (
    Hello
    | Done
    | SettingsDone
    | Armed
    | Pressure
    | Sample
    | Files
    | Proc
    | Sizes
    | ProcTable
    | Watched
    | Signalled
    | Exited
    | Killed
    | Control
    | ControlConnection
    | Oom
    | MemEvents
    | Heartbeat
    | Failsafe
    | ErrorReply
    | Pong
    | Ran
)
