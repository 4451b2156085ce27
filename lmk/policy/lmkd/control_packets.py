"""Packets of lmkd's control socket (``/dev/socket/lmkd``), bytes <-> values; no I/O.

One SOCK_SEQPACKET message is one command or one notification. Everything is big-endian; integers are
32-bit signed, the first one is the command. Decoding never raises: garbage becomes `Malformed`, which
carries the line lmkd logs. Encoding narrows like a C assignment instead of raising.

Source: lmkd's ``liblmkd_utils``/``lmkd.h`` and ``ctrl_command_handler``; differences between releases
are the fields of `Dialect`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

import attrs

from lmk.units import c_int32, c_int64

#: lmkd reads a message into a buffer of six TARGET pairs and the command; the rest is cut off.
PACKET_BYTES_MAX = 52
TARGETS_MAX = 6
PROCS_PRIO_RECORDS_MAX = 3
#: MAX_TASKNAME_LEN without the NUL.
TASK_NAME_BYTES_MAX = 127

_INTS = [struct.Struct(f">{count}i") for count in range(PACKET_BYTES_MAX // 4 + 1)]
_KILL_STATISTICS = struct.Struct(">i6q8ih")


class CommandId(IntEnum):
    """First integer of every packet. 6 and 8 (and 9 in 12–14.0) only travel from lmkd to clients."""

    TARGET = 0
    PROCPRIO = 1
    PROCREMOVE = 2
    PROCPURGE = 3
    GETKILLCNT = 4
    SUBSCRIBE = 5
    PROCKILL = 6
    UPDATE_PROPS = 7
    STAT_KILL_OCCURRED = 8
    START_MONITORING = 9
    BOOT_COMPLETED = 10
    PROCS_PRIO = 11


#: The meaning of 9 in Android 12 to 14.0.
STAT_STATE_CHANGED = 9


class SubscribeEvent(IntEnum):
    """Event types of SUBSCRIBE. lmkd accepts any number and never validates it."""

    KILL = 0
    STATISTICS = 1


class ProcessType(IntEnum):
    """Process type of PROCPRIO; a missing field means APP."""

    APP = 0
    SERVICE = 1


@attrs.frozen(kw_only=True)
class Dialect:
    """What differs between the releases on this socket (reference sections 8.2 and 11.2)."""

    start_monitoring: bool = True
    boot_completed: bool = True
    procs_prio: bool = True
    #: PROCKILL carries the victim's rss (15Q1 and later): 16 bytes instead of 12.
    prockill_rss: bool = True


@attrs.frozen
class Target:
    """TARGET: (minfree pages, adj) pairs in the order sent; not validated or sorted."""

    pairs: tuple[tuple[int, int], ...]


@attrs.frozen
class ProcPrio:
    """PROCPRIO and one record of PROCS_PRIO. ``process_type`` None: the field was left out."""

    pid: int
    uid: int
    adj: int
    process_type: int | None = None


@attrs.frozen
class ProcRemove:
    """PROCREMOVE: forget a process."""

    pid: int


@attrs.frozen
class ProcPurge:
    """PROCPURGE: forget every process that the sender owns or that nobody owns."""


@attrs.frozen
class GetKillCount:
    """GETKILLCNT: how many kills between two adj values, both included."""

    min_adj: int
    max_adj: int


@attrs.frozen
class Subscribe:
    """SUBSCRIBE: ``event`` as sent, see `SubscribeEvent`."""

    event: int


@attrs.frozen
class UpdateProps:
    """UPDATE_PROPS: re-read all properties."""


@attrs.frozen
class StartMonitoring:
    """START_MONITORING (14Q2 and later): start the pressure monitors that waited for boot."""


@attrs.frozen
class BootCompleted:
    """BOOT_COMPLETED (15.0 and later): create the memory event listener."""


@attrs.frozen
class ProcsPrio:
    """PROCS_PRIO (15.0 and later): one to three PROCPRIO records."""

    records: tuple[ProcPrio, ...]


@attrs.frozen
class Malformed:
    """A packet lmkd refuses without an answer; ``log`` is its error line, level E."""

    log: str


Command = (
    Target
    | ProcPrio
    | ProcRemove
    | ProcPurge
    | GetKillCount
    | Subscribe
    | UpdateProps
    | StartMonitoring
    | BootCompleted
    | ProcsPrio
    | Malformed
)


def decode_command(data: bytes, dialect: Dialect) -> Command:
    """The command in one message, as lmkd understands it. Longer messages are cut to 52 bytes.

    ``data`` must not be empty (that is the end of the connection, not a packet); if it is, it counts as
    a short packet.
    """
    data = data[:PACKET_BYTES_MAX]
    count = len(data) // 4
    if count == 0:
        return Malformed(f"Wrong control socket read length len={len(data)}")
    integers = _INTS[count].unpack_from(data)
    if integers[0] == 1 and (count == 4 or count == 5):
        return ProcPrio(*integers[1:])
    command = _decode_known(integers[0], integers[1:], dialect)
    if command is not None:
        return command
    return Malformed(f"Wrong control socket read length cmd={integers[0]} len={len(data)}")


def _decode_known(code: int, args: tuple[int, ...], dialect: Dialect) -> Command | None:
    """None: the command exists but not with this many integers."""
    if code == CommandId.TARGET:
        pairs = tuple(zip(args[::2], args[1::2], strict=False))
        return None if len(args) % 2 else Target(pairs)
    if code == CommandId.PROCPRIO:
        return ProcPrio(*args) if len(args) in (3, 4) else None
    if code == CommandId.PROCKILL:
        return Malformed(f"Received unexpected command code {code}")
    if code == CommandId.PROCS_PRIO and dialect.procs_prio:
        if not args or len(args) % 4:
            return Malformed("LMK_PROCS_PRIO received invalid packet format")
        return ProcsPrio(tuple(ProcPrio(*args[at : at + 4]) for at in range(0, len(args), 4)))
    decoder = _decoders(dialect).get(code)
    if decoder is None:
        return Malformed(f"Received unknown command code {code}")
    kind, integers = decoder
    return kind(*args) if len(args) == integers else None


_FixedCommand = (
    type[ProcRemove]
    | type[ProcPurge]
    | type[GetKillCount]
    | type[Subscribe]
    | type[UpdateProps]
    | type[StartMonitoring]
    | type[BootCompleted]
)
_FIXED: dict[int, tuple[_FixedCommand, int]] = {
    CommandId.PROCREMOVE: (ProcRemove, 1),
    CommandId.PROCPURGE: (ProcPurge, 0),
    CommandId.GETKILLCNT: (GetKillCount, 2),
    CommandId.SUBSCRIBE: (Subscribe, 1),
    CommandId.UPDATE_PROPS: (UpdateProps, 0),
    CommandId.START_MONITORING: (StartMonitoring, 0),
    CommandId.BOOT_COMPLETED: (BootCompleted, 0),
}
_FIXED_BY_DIALECT: dict[Dialect, dict[int, tuple[_FixedCommand, int]]] = {}


def _decoders(dialect: Dialect) -> dict[int, tuple[_FixedCommand, int]]:
    table = _FIXED_BY_DIALECT.get(dialect)
    if table is None:
        table = dict(_FIXED)
        if not dialect.start_monitoring:
            del table[CommandId.START_MONITORING]
        if not dialect.boot_completed:
            del table[CommandId.BOOT_COMPLETED]
        _FIXED_BY_DIALECT[dialect] = table
    return table


def encode_command(command: Command) -> bytes:
    """What a client (ActivityManager, ``lmkd --reinit``) sends. `Malformed` has no encoding: TypeError."""
    if isinstance(command, ProcPrio):
        return pack_integers((CommandId.PROCPRIO, *_prio_integers(command)))
    if isinstance(command, Target):
        return pack_integers((CommandId.TARGET, *(value for pair in command.pairs for value in pair)))
    if isinstance(command, ProcsPrio):
        records = (_prio_integers(attrs.evolve(r, process_type=r.process_type or 0)) for r in command.records)
        return pack_integers((CommandId.PROCS_PRIO, *(value for record in records for value in record)))
    if isinstance(command, Malformed):
        raise TypeError("a malformed packet has no encoding; send the bytes themselves")
    code = next(code for code, (kind, _) in _FIXED.items() if isinstance(command, kind))
    return pack_integers((code, *attrs.astuple(command)))


def _prio_integers(record: ProcPrio) -> tuple[int, ...]:
    fields = (record.pid, record.uid, record.adj)
    return fields if record.process_type is None else (*fields, record.process_type)


def pack_integers(integers: Iterable[int]) -> bytes:
    """Big-endian 32-bit integers, each narrowed as C does."""
    narrowed = [c_int32(value) for value in integers]
    return struct.pack(f">{len(narrowed)}i", *narrowed)


@attrs.frozen
class KillCountReply:
    """Answer to GETKILLCNT."""

    count: int


@attrs.frozen
class UpdatePropsReply:
    """Answer to UPDATE_PROPS: 0 done, -1 failed (lmkd exits after that)."""

    result: int


@attrs.frozen
class BootCompletedReply:
    """Answer to BOOT_COMPLETED: 0 done, 1 done before, -1 boot not completed."""

    result: int


@attrs.frozen
class ProcKill:
    """PROCKILL notification; ``rss_kib`` None: the 12-byte form of releases before 15Q1."""

    pid: int
    uid: int
    rss_kib: int | None = None


@attrs.frozen
class StateChanged:
    """STAT_STATE_CHANGED notification (12 to 14.0): 1 killing starts, 2 it stops."""

    state: int


@attrs.frozen(kw_only=True)
class KillStatistics:
    """STAT_KILL_OCCURRED notification. ``name`` is cut to 127 bytes when sent."""

    page_faults: int
    major_faults: int
    rss_bytes: int
    cache_bytes: int
    swap_bytes: int
    start_ns: int
    uid: int
    adj: int
    min_adj: int
    free_memory_kib: int
    free_swap_kib: int
    reason: int
    thrashing_pct: int
    max_thrashing_pct: int
    name: bytes


Notification = (
    KillCountReply | UpdatePropsReply | BootCompletedReply | ProcKill | StateChanged | KillStatistics | Malformed
)


def encode_notification(notification: Notification) -> bytes:
    """What lmkd writes to a client. `Malformed` has no encoding: TypeError."""
    match notification:
        case ProcKill(pid, uid, None):
            return pack_integers((CommandId.PROCKILL, pid, uid))
        case ProcKill(pid, uid, rss_kib):
            return pack_integers((CommandId.PROCKILL, pid, uid, rss_kib or 0))
        case KillStatistics():
            return _encode_statistics(notification)
        case KillCountReply(value):
            return pack_integers((CommandId.GETKILLCNT, value))
        case UpdatePropsReply(value):
            return pack_integers((CommandId.UPDATE_PROPS, value))
        case BootCompletedReply(value):
            return pack_integers((CommandId.BOOT_COMPLETED, value))
        case StateChanged(value):
            return pack_integers((STAT_STATE_CHANGED, value))
    raise TypeError("a malformed packet has no encoding")


def _encode_statistics(statistics: KillStatistics) -> bytes:
    *numbers, _ = attrs.astuple(statistics)
    name = statistics.name[:TASK_NAME_BYTES_MAX]
    wide = [c_int64(value) for value in numbers[:6]]
    narrow = [c_int32(value) for value in numbers[6:]]
    return _KILL_STATISTICS.pack(CommandId.STAT_KILL_OCCURRED, *wide, *narrow, len(name)) + name + b"\0"


def decode_notification(data: bytes) -> Notification:
    """What a client reads, any release (the length tells PROCKILL's two forms apart). Never raises."""
    count = len(data) // 4
    if count == 0:
        return Malformed(f"notification of {len(data)} bytes")
    (code,) = _INTS[1].unpack_from(data)
    if code == CommandId.STAT_KILL_OCCURRED:
        return _decode_statistics(data)
    if len(data) % 4 == 0 and count <= 4:
        _, *args = _INTS[count].unpack_from(data)
        if code == CommandId.PROCKILL and count in (3, 4):
            return ProcKill(*args)
        kinds: dict[int, type[KillCountReply | UpdatePropsReply | StateChanged | BootCompletedReply]] = {
            CommandId.GETKILLCNT: KillCountReply,
            CommandId.UPDATE_PROPS: UpdatePropsReply,
            STAT_STATE_CHANGED: StateChanged,
            CommandId.BOOT_COMPLETED: BootCompletedReply,
        }
        if count == 2 and code in kinds:
            return kinds[code](args[0])
    return Malformed(f"notification {code} of {len(data)} bytes")


def _decode_statistics(data: bytes) -> KillStatistics | Malformed:
    if len(data) < _KILL_STATISTICS.size:
        return Malformed(f"notification {int(CommandId.STAT_KILL_OCCURRED)} of {len(data)} bytes")
    _, *numbers, length = _KILL_STATISTICS.unpack_from(data)
    name = data[_KILL_STATISTICS.size :]
    if not 0 <= length <= TASK_NAME_BYTES_MAX or len(name) != length + 1 or name[length] != 0:
        return Malformed(f"notification {int(CommandId.STAT_KILL_OCCURRED)}: name of {length} in {len(name)} bytes")
    fields = [field.name for field in attrs.fields(KillStatistics)]
    return KillStatistics(**dict(zip(fields, [*numbers, name[:length]], strict=True)))
