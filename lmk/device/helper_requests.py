"""Host to device: the requests of the helper protocol.

Names end in their unit. Times are nanoseconds on the device's CLOCK_MONOTONIC, 0 where a thing did not happen;
sizes are KiB or pages as the kernel gave them, -1 where they could not be read. ``error`` is a positive errno,
0 for success. docs/helper-protocol.md is the specification.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from lmk.device.helper_codec import BLOB, I32, TEXT, U8, U16, U32, U64, Layout, list_of
from lmk.device.helper_types import (
    MAGIC,
    PROTOCOL_VERSION,
    FailsafeMode,
    FileId,
    PidField,
    ReapMethod,
    SettingsFlag,
    TriggerKind,
    WatchItem,
)


@attrs.frozen(kw_only=True)
class Auth:
    """First message of every connection; the answer is Hello or an Error and the end."""

    code: ClassVar[int] = 1
    layout: ClassVar[Layout] = (("magic", U32), ("version", U16), ("token", TEXT))
    magic: int = MAGIC
    version: int = PROTOCOL_VERSION
    token: str


@attrs.frozen(kw_only=True)
class Settings:
    """How the helper runs; answered by SettingsDone. Cpu masks of 0 leave the affinity alone."""

    code: ClassVar[int] = 2
    layout: ClassVar[Layout] = (
        *(("failsafe_ms", U32), ("failsafe_mode", U8), ("failsafe_min_adj", I32)),
        *(("failsafe_interval_ms", U32), ("failsafe_trigger", TEXT), ("heartbeat_ms", U32)),
        *(("main_priority", I32), ("reaper_priority", I32), ("main_cpus", U64), ("reaper_cpus", U64)),
        *(("sample_files", U32), ("candidates", U16), ("candidate_fields", U16), ("flags", U32)),
        *(("reap_timeout_ms", U32), ("vmstat_names", TEXT)),
    )
    failsafe_ms: int = 3000
    failsafe_mode: int = FailsafeMode.KILL
    failsafe_min_adj: int = 200
    failsafe_interval_ms: int = 300
    failsafe_trigger: str = "some 150000 1000000"
    heartbeat_ms: int = 500
    #: SCHED_FIFO priority; 0 is SCHED_OTHER.
    main_priority: int = 3
    reaper_priority: int = 1
    main_cpus: int = 0
    reaper_cpus: int = 0
    #: ``1 << FileId`` of what each Pressure carries.
    sample_files: int = 1 << FileId.MEMINFO | 1 << FileId.VMSTAT | 1 << FileId.PSI_MEMORY
    candidates: int = 4
    #: ``1 << PidField`` of what each candidate carries.
    candidate_fields: int = 1 << PidField.STATUS | 1 << PidField.CMDLINE | 1 << PidField.STAT | 1 << PidField.STATM
    flags: int = SettingsFlag.SERVE_LMKD | SettingsFlag.MEMEVENTS | SettingsFlag.OOM | SettingsFlag.WRITE_ADJ
    reap_timeout_ms: int = 2000
    #: Of /proc/vmstat only the lines of these counters, separated by commas; empty: all of it.
    vmstat_names: str = ""


@attrs.frozen(kw_only=True)
class Arm:
    """Register a trigger in a slot (0-7); empty text disarms it. Answered by Armed, probing the kernel's will."""

    code: ClassVar[int] = 3
    layout: ClassVar[Layout] = (("slot", U8), ("kind", U8), ("path", TEXT), ("text", TEXT))
    slot: int
    kind: int = TriggerKind.PSI
    path: str = "/proc/pressure/memory"
    text: str


@attrs.frozen(kw_only=True)
class GetSample:
    """Answered by Sample. ``candidates`` as in Settings."""

    code: ClassVar[int] = 4
    layout: ClassVar[Layout] = (("files", U32), ("candidates", U16), ("candidate_fields", U16))
    files: int
    candidates: int = 0
    candidate_fields: int = 0


@attrs.frozen(kw_only=True)
class GetFiles:
    """Whole files by path (under /proc, /sys/fs/cgroup, /dev/memcg, /sys/kernel/mm, /sys/block)."""

    code: ClassVar[int] = 5
    layout: ClassVar[Layout] = (("paths", list_of(TEXT)),)
    paths: tuple[str, ...]


@attrs.frozen(kw_only=True)
class GetProc:
    """Files of up to 64 processes; answered by Proc."""

    code: ClassVar[int] = 6
    layout: ClassVar[Layout] = (("fields", U16), ("pids", list_of(I32)))
    fields: int
    pids: tuple[int, ...]


@attrs.frozen(kw_only=True)
class GetSizes:
    """statm of up to 4096 processes; answered by Sizes."""

    code: ClassVar[int] = 7
    layout: ClassVar[Layout] = (("pids", list_of(I32)),)
    pids: tuple[int, ...]


@attrs.frozen(kw_only=True)
class GetTable:
    """Answered by ProcTable messages of the same id, the last one marked."""

    code: ClassVar[int] = 8
    layout: ClassVar[Layout] = (("which", U8),)
    which: int


@attrs.frozen(kw_only=True)
class Watch:
    """Register processes and open their pidfds; answered by Watched in the same order."""

    code: ClassVar[int] = 9
    layout: ClassVar[Layout] = (("items", list_of(WatchItem)),)
    items: tuple[WatchItem, ...]


@attrs.frozen(kw_only=True)
class Unwatch:
    """Forget processes by handle; answered by Done."""

    code: ClassVar[int] = 10
    layout: ClassVar[Layout] = (("handles", list_of(U32)),)
    handles: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Kill:
    """Signal one process, named by handle or by pid and start time; answered by Signalled, then Killed."""

    code: ClassVar[int] = 11
    layout: ClassVar[Layout] = (
        *(("handle", U32), ("pid", I32), ("start_ticks", U64), ("signal", I32), ("method", U8)),
        *(("flags", U32), ("oom_score_adj", I32)),
    )
    handle: int = 0
    pid: int
    start_ticks: int
    signal: int = 9
    method: int = ReapMethod.AUTO
    flags: int = 0
    oom_score_adj: int = 0


@attrs.frozen(kw_only=True)
class WriteAdj:
    """/proc/PID/oom_score_adj, only while the start time matches (0: any); answered by Done."""

    code: ClassVar[int] = 12
    layout: ClassVar[Layout] = (("pid", I32), ("start_ticks", U64), ("oom_score_adj", I32))
    pid: int
    start_ticks: int = 0
    oom_score_adj: int


@attrs.frozen(kw_only=True)
class WriteFile:
    """A memory.* or cgroup.* file of a memory cgroup, or a process's oom_score_adj; answered by Done."""

    code: ClassVar[int] = 13
    layout: ClassVar[Layout] = (("path", TEXT), ("data", BLOB))
    path: str
    data: bytes


@attrs.frozen(kw_only=True)
class ControlReply:
    """Bytes to a client of /dev/socket/lmkd; answered by Done unless sent with id 0."""

    code: ClassVar[int] = 14
    layout: ClassVar[Layout] = (("connection", U32), ("data", BLOB))
    connection: int
    data: bytes


@attrs.frozen(kw_only=True)
class CloseConnection:
    """Hang up on a client of /dev/socket/lmkd."""

    code: ClassVar[int] = 15
    layout: ClassVar[Layout] = (("connection", U32),)
    connection: int


@attrs.frozen(kw_only=True)
class Log:
    """Append to the device's log. Main buffers: priority byte, tag, NUL, text, NUL; events: as liblog encodes."""

    code: ClassVar[int] = 16
    layout: ClassVar[Layout] = (("log_id", U8), ("payload", BLOB))
    log_id: int
    payload: bytes


@attrs.frozen(kw_only=True)
class Run:
    """``start NAME``, ``stop NAME`` or ``setprop NAME VALUE`` on the device; answered by Ran."""

    code: ClassVar[int] = 17
    layout: ClassVar[Layout] = (("argv", list_of(TEXT)),)
    argv: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Stop:
    """End the helper. With ``handback`` it first starts what it stopped and re-registers every process."""

    code: ClassVar[int] = 18
    layout: ClassVar[Layout] = (("handback", U8),)
    handback: int


@attrs.frozen(kw_only=True)
class Ping:
    """A sign of life (as every message is); answered by Pong."""

    code: ClassVar[int] = 19
    layout: ClassVar[Layout] = ()


Request = (
    Auth
    | Settings
    | Arm
    | GetSample
    | GetFiles
    | GetProc
    | GetSizes
    | GetTable
    | Watch
    | Unwatch
    | Kill
    | WriteAdj
    | WriteFile
    | ControlReply
    | CloseConnection
    | Log
    | Run
    | Stop
    | Ping
)
