"""Constants and records inside the messages of the helper protocol.

Names end in their unit. Times are nanoseconds on the device's CLOCK_MONOTONIC, 0 where a thing did not happen;
sizes are KiB or pages as the kernel gave them, -1 where they could not be read. ``error`` is a positive errno,
0 for success. docs/helper-protocol.md is the specification.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import ClassVar

import attrs

from lmk.device.helper_codec import BLOB, I32, I64, TEXT, U8, U16, U32, U64, Layout, list_of

PROTOCOL_VERSION = 1
MAGIC = 0x484B4D4C  # "LMKH"


class FileId(IntEnum):
    """Files whose descriptors the helper keeps open; a sample mask has bit ``1 << id``."""

    MEMINFO = 0
    VMSTAT = 1
    ZONEINFO = 2
    PSI_MEMORY = 3
    PSI_IO = 4
    PSI_CPU = 5


class PidField(IntEnum):
    """Files of one process; a field mask has bit ``1 << field``."""

    STATUS = 0
    CMDLINE = 1
    STAT = 2
    STATM = 3
    OOM_SCORE_ADJ = 4
    CGROUP = 5
    MEMCG_STAT = 6  # memory.stat of its memory cgroup; of a sample's candidates only the first one's


class FileOp(IntEnum):
    """Which step of reading or writing a file failed."""

    NONE = 0
    OPEN = 1
    IO = 2
    REFUSED = 3  # not a path that the helper touches, or not a valid registration
    NOT_TRIED = 4


class ReapMethod(IntEnum):
    """How a victim's memory was taken; as a request AUTO picks the best that the kernel has. CGROUP needs GROUP."""

    AUTO = 0
    PROCESS_REAP = 1
    PROCESS_MRELEASE = 2
    NONE = 3
    CGROUP = 4  # cgroup.reap


class CallState(IntEnum):
    """Result of probing a system call without a process (process-reap rules)."""

    ABSENT = 0
    PRESENT = 1
    FOREIGN = 2  # another system call has this number
    BLOCKED = 3  # a seccomp filter answers


class Capability(IntFlag):
    """What the device can do, apart from the system calls."""

    PSI = 1
    TRACE_MEMEVENTS = 2
    TRACE_OOM = 4
    KMSG = 8
    MEMORY_LOCKED = 16
    OOM_PROTECTED = 32


class FailsafeMode(IntEnum):
    """What the helper does while the host is silent."""

    OFF = 0
    KILL = 1
    HANDBACK = 2


class FailsafeReason(IntEnum):
    """Why the fail-safe was entered."""

    SILENT = 1
    HANGUP = 2
    WORKER_DIED = 3


class SettingsFlag(IntFlag):
    """Services that the host wants."""

    SERVE_LMKD = 1
    MEMEVENTS = 2
    OOM = 4
    DRY_RUN = 8  # the helper refuses to signal, and does not serve /dev/socket/lmkd
    WRITE_ADJ = 16  # a PROCPRIO's oom_score_adj is written as it arrives, as lmkd does, result in Control


class SettingItem(IntEnum):
    """What SETTINGS_DONE reports on."""

    OOM_SCORE_ADJ = 1
    MEMORY_LOCK = 2
    MAIN_PRIORITY = 3
    MAIN_CPUS = 4
    REAPER_PRIORITY = 5
    REAPER_CPUS = 6
    FAILSAFE_TRIGGER = 7
    LMKD_SOCKET = 8
    MEMEVENTS = 9
    OOM = 10


class KillFlag(IntFlag):
    """Options of one kill."""

    CHECK_ADJ = 1  # refuse (ECANCELED) if /proc's oom_score_adj is not the one given
    BOOST = 2  # nice -20 for the victim's threads, as lmkd does
    MEASURE = 4  # sample nr_free_pages until 95 % of the victim's memory is back
    GROUP = 8  # everybody in the process's own cgroup (.../pid_N) with it; the signal is left to a reaper thread


class KilledFlag(IntFlag):
    """What is missing in a KILLED message."""

    REAP_TIMED_OUT = 1
    EXIT_NOT_SEEN = 2
    BACK_NOT_SEEN = 4
    NO_GROUP = 8  # GROUP was asked for, but the process has no cgroup of its own: it died alone


class ControlEvent(IntEnum):
    """What happened to a connection on /dev/socket/lmkd."""

    CONNECT = 1
    HANGUP = 2


class ControlFlag(IntFlag):
    """Circumstances of a control packet."""

    CREDENTIALS = 1
    HANGUP_PENDING = 2  # the client had closed already; lmkd loses such a packet
    HANDLED = 4  # the fail-safe obeyed it while the host was silent


class MemEvent(IntEnum):
    """vmscan tracepoints."""

    DIRECT_BEGIN = 1
    DIRECT_END = 2
    KSWAPD_WAKE = 3
    KSWAPD_SLEEP = 4


class OomSource(IntEnum):
    """Where a kernel OOM kill was seen; one kill may be seen in both."""

    TRACE = 1
    KMSG = 2


class TriggerKind(IntEnum):
    """Interfaces of pressure notification."""

    PSI = 0
    VMPRESSURE = 1


class TableWhich(IntEnum):
    """Which processes GET_TABLE lists."""

    REGISTERED = 0
    ALL = 1


@attrs.frozen(kw_only=True)
class FileText:
    """One file of a sample."""

    layout: ClassVar[Layout] = (("file", U16), ("op", U8), ("error", I32), ("read_ns", I64), ("data", BLOB))
    file: int
    op: int
    error: int
    read_ns: int
    data: bytes


@attrs.frozen(kw_only=True)
class PidText:
    """One file of a process."""

    layout: ClassVar[Layout] = (("field", U8), ("op", U8), ("error", I32), ("data", BLOB))
    field: int
    op: int
    error: int
    data: bytes


@attrs.frozen(kw_only=True)
class PidEntry:
    """One process: what the helper's table holds (handle 0: not registered) and its files."""

    layout: ClassVar[Layout] = (
        *(("pid", I32), ("handle", U32), ("start_ticks", U64), ("uid", I32), ("oom_score_adj", I32)),
        ("files", list_of(PidText)),
    )
    pid: int
    handle: int
    start_ticks: int
    uid: int
    oom_score_adj: int
    files: tuple[PidText, ...]

    def text(self, field: PidField) -> PidText | None:
        """That file's entry, None if it was not asked for."""
        return next((entry for entry in self.files if entry.field == field), None)


@attrs.frozen(kw_only=True)
class Snapshot:
    """Files and candidates read in one go. ``*_start_ns``: as lmkd's memevent listener would hold them."""

    layout: ClassVar[Layout] = (
        *(("begin_ns", I64), ("end_ns", I64), ("direct_start_ns", I64), ("kswapd_start_ns", I64)),
        *(("files", list_of(FileText)), ("candidates", list_of(PidEntry))),
    )
    begin_ns: int
    end_ns: int
    direct_start_ns: int
    kswapd_start_ns: int
    files: tuple[FileText, ...]
    candidates: tuple[PidEntry, ...]

    def text(self, file: FileId) -> FileText | None:
        """That file's entry, None if it was not asked for."""
        return next((entry for entry in self.files if entry.file == file), None)


@attrs.frozen(kw_only=True)
class SizeEntry:
    """/proc/PID/statm; ``op`` and ``error`` as in FileText."""

    layout: ClassVar[Layout] = (("pid", I32), ("op", U8), ("error", I32), ("statm", TEXT))
    pid: int
    op: int
    error: int
    statm: str


@attrs.frozen(kw_only=True)
class TableRow:
    """One process of GET_TABLE. ``order`` rises with registration; ``owner_pid`` is the registering client."""

    layout: ClassVar[Layout] = (
        *(("pid", I32), ("handle", U32), ("start_ticks", U64), ("uid", I32), ("oom_score_adj", I32)),
        *(("order", U64), ("owner_pid", I32), ("type", U8), ("rss_pages", I64), ("name", TEXT)),
    )
    pid: int
    handle: int
    start_ticks: int
    uid: int
    oom_score_adj: int
    order: int
    owner_pid: int
    type: int
    rss_pages: int
    name: str


@attrs.frozen(kw_only=True)
class WatchItem:
    """A process to register without a control packet (start_ticks 0: whichever has the pid now)."""

    layout: ClassVar[Layout] = (("pid", I32), ("uid", I32), ("oom_score_adj", I32), ("start_ticks", U64))
    pid: int
    uid: int
    oom_score_adj: int
    start_ticks: int = 0


@attrs.frozen(kw_only=True)
class WatchResult:
    """Answer to one WatchItem, or the helper's own registration of a PROCPRIO's pid."""

    layout: ClassVar[Layout] = (("pid", I32), ("error", I32), ("handle", U32), ("start_ticks", U64))
    pid: int
    error: int
    handle: int
    start_ticks: int


@attrs.frozen(kw_only=True)
class ControlPid:
    """What lmkd does for one process of a PROCPRIO: status file, oom_score_adj (WRITE_ADJ), pidfd (``error``).

    As in lmkd nothing is written for an invalid adj or type or when the status has another Tgid (REFUSED).
    """

    layout: ClassVar[Layout] = (
        *(("pid", I32), ("error", I32), ("handle", U32), ("start_ticks", U64)),
        *(("status_op", U8), ("status_error", I32), ("status", BLOB), ("adj_op", U8), ("adj_error", I32)),
    )
    pid: int
    error: int
    handle: int
    start_ticks: int
    status_op: int
    status_error: int
    status: bytes
    adj_op: int
    adj_error: int


@attrs.frozen(kw_only=True)
class SettingResult:
    """One part of SETTINGS and how it went."""

    layout: ClassVar[Layout] = (("item", U8), ("error", I32))
    item: int
    error: int


@attrs.frozen(kw_only=True)
class FailsafeKill:
    """One kill that the helper decided by itself."""

    layout: ClassVar[Layout] = (
        *(("signal_ns", I64), ("pid", I32), ("uid", I32), ("oom_score_adj", I32), ("error", I32)),
        *(("rss_kib", I64), ("method", U8), ("reap_error", I32), ("exit_ns", I64), ("name", TEXT)),
    )
    signal_ns: int
    pid: int
    uid: int
    oom_score_adj: int
    error: int
    rss_kib: int
    method: int
    reap_error: int
    exit_ns: int
    name: str


@attrs.frozen(kw_only=True)
class MemEventItem:
    """One vmscan event; ``t_ns`` is the tracepoint's own time (1 µs resolution)."""

    layout: ClassVar[Layout] = (("event", U8), ("t_ns", I64), ("pid", I32))
    event: int
    t_ns: int
    pid: int
