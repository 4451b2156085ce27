"""The control socket: connections and commands (reference: section 8)."""

from __future__ import annotations

import struct

from lmk.policy.api import (
    CgroupAttributePath,
    Exit,
    FileError,
    GetProperties,
    OpenPidfd,
    PacketEvent,
    ReadProcess,
    SetOomScoreAdj,
    SetProperty,
    WriteFile,
)
from lmk.policy.lmkd.control_packets import (
    PACKET_BYTES_MAX,
    TARGETS_MAX,
    BootCompleted,
    BootCompletedReply,
    Command,
    CommandId,
    GetKillCount,
    KillCountReply,
    Malformed,
    ProcessType,
    ProcPrio,
    ProcPurge,
    ProcRemove,
    ProcsPrio,
    StartMonitoring,
    Subscribe,
    Target,
    UpdateProps,
    UpdatePropsReply,
    decode_command,
    encode_notification,
)
from lmk.policy.lmkd.daemon import Daemon, Steps, diff_ms, error, info, warning
from lmk.policy.lmkd.kernel_text import task_name
from lmk.policy.lmkd.memory_events import drop_direct_reclaim_threshold, use_memory_events
from lmk.policy.lmkd.monitors import start_monitors, stop_monitors
from lmk.policy.lmkd.params import PROPERTY_BY_NAME, PROPERTY_NAMES, load_params, parse_property_bool
from lmk.policy.lmkd.process_table import Process
from lmk.policy.lmkd.strerror import strerror
from lmk.policy.lmkd.victim import close_connection, send
from lmk.policy.lmkd.waiting import remove_record
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN, OomAdj
from lmk.units import c_int32

EBADF, EAGAIN = 9, 11
TARGET_INTERVAL_MS = 1000
MINFREE_PROPERTY = "sys.lmk.minfree_levels"
PROPERTY_CHARS_MAX = 91
AID_SYSTEM = 1000
SOFT_LIMIT_UNIT_BYTES = 1 << 23
KERNEL_MINFREE_PATH = "/sys/module/lowmemorykiller/parameters/minfree"
KERNEL_ADJ_PATH = "/sys/module/lowmemorykiller/parameters/adj"
BOOT_COMPLETED = PROPERTY_BY_NAME["boot_completed"].full_name
ANONYMOUS_CLIENT = "A process "
NAME_BUFFER_CHARS = 2047  #: LINE_MAX without the NUL
_PROCESS_TYPES = (0, 1)
_PROCPRIO = CommandId.PROCPRIO.value
_FULL_PROCPRIO = struct.Struct(">5i")


def handle_connect(d: Daemon, connection: int) -> Steps:
    """ctrl_connect_handler. A fourth connection closes the other three and takes place 0."""
    slot = next((i for i, client in enumerate(d.connections) if client.connection is None), None)
    if slot is None:
        for other in range(len(d.connections)):
            yield from close_connection(d, other)
        slot = 0
    d.connections[slot].connection = connection
    d.connections[slot].event_mask = 0
    if len(d.slot_of) > 64:
        live = {client.connection for client in d.connections}
        d.slot_of = {known: place for known, place in d.slot_of.items() if known in live}
    d.slot_of[connection] = slot
    yield info("lmkd data connection established")


def packet_steps(d: Daemon, slot: int, packet: PacketEvent) -> Steps:
    """What a message makes the daemon do: ``handle_packet``, or for a sound PROCPRIO of full length, which
    ActivityManager sends all day, the same by a shorter way."""
    data, sender, client = packet.data, packet.credentials, d.connections[slot]
    if len(data) == _FULL_PROCPRIO.size and sender is not None and not packet.errno:
        code, pid, uid, adj, kind = _FULL_PROCPRIO.unpack(data)
        if code == _PROCPRIO and client.connection == packet.connection:
            client.pid = sender[0]
            return _set_priority(d, pid, uid, adj, kind, sender)
    return handle_packet(d, slot, packet)


def handle_packet(d: Daemon, slot: int, packet: PacketEvent) -> Steps:
    """ctrl_data_handler: one message. Its connection may be gone since the event was queued."""
    client = d.connections[slot]
    errno, data = packet.errno, packet.data
    if client.connection != packet.connection:
        errno = EBADF if client.connection is None else EAGAIN
    if errno:
        yield error(f"control data socket read failed; {strerror(errno)}")
        return
    if not data:
        yield error("Got EOF on control data socket")
        return
    sender = packet.credentials
    if sender is None:
        yield error("Failed to retrieve sender credentials")
        yield from close_connection(d, slot)
        return
    client.pid = sender[0]
    yield from _command(d, slot, decode_command(data[:PACKET_BYTES_MAX], d.dialect), sender)


def _command(d: Daemon, slot: int, command: Command, sender: tuple[int, int]) -> Steps:
    """ctrl_command_handler."""
    if isinstance(command, ProcPrio):
        yield from _set_priority(d, command.pid, command.uid, command.adj, command.process_type or 0, sender)
    elif isinstance(command, ProcsPrio):
        yield from _set_priorities(d, command.records, sender)
    elif isinstance(command, ProcRemove):
        yield from _remove(d, command.pid, sender)
    elif isinstance(command, ProcPurge):
        yield from _purge(d, sender[0])
    elif isinstance(command, Target):
        yield from _set_targets(d, command.pairs)
    elif isinstance(command, GetKillCount):
        count = 0 if d.in_kernel else kill_count(d, command.min_adj, command.max_adj)
        yield from _reply(d, slot, encode_notification(KillCountReply(count)))
    elif isinstance(command, Subscribe):
        # 1 << event of a 32-bit int: the processor takes the count modulo 32.
        d.connections[slot].event_mask |= 1 << (command.event & 31)
    elif isinstance(command, UpdateProps):
        yield from _update_properties(d, slot)
    elif isinstance(command, StartMonitoring):
        yield from _start_monitoring(d)
    elif isinstance(command, BootCompleted):
        yield from _boot_completed(d, slot)
    elif isinstance(command, Malformed):
        yield error(command.log)


def _reply(d: Daemon, slot: int, data: bytes) -> Steps:
    connection = d.connections[slot].connection
    if connection is None:
        return False
    return (yield from send(connection, data))


# ---- processes


def _set_priorities(d: Daemon, records: tuple[ProcPrio, ...], sender: tuple[int, int]) -> Steps:
    """cmd_procs_prio. In 15.0 io_uring read every status first, and a process without one was left out."""
    if d.behaviour.procs_prio == "io_uring":
        readable = []
        for record in records:
            status = yield ReadProcess(record.pid, "status")
            if not isinstance(status, FileError):
                readable.append(record)
        records = tuple(readable)
    for r in records:
        yield from _set_priority(d, r.pid, r.uid, r.adj, r.process_type or 0, sender)


def _set_priority(d: Daemon, pid: int, uid: int, adj: int, kind: int, sender: tuple[int, int]) -> Steps:
    """cmd_procprio. Surprise: the process's oom_score_adj and soft limit change before it is known
    whether the sender may change the record."""
    if not OOM_SCORE_ADJ_MIN <= adj <= OOM_SCORE_ADJ_MAX:
        yield error(f"Invalid PROCPRIO oomadj argument {adj}")
        return
    if kind not in _PROCESS_TYPES:
        yield error(f"Invalid PROCPRIO process type argument {kind}")
        return
    written = yield SetOomScoreAdj(pid, adj)
    tgid = written.tgid
    if tgid is not None and tgid != pid:
        yield error(f"Attempt to register a task that is not a thread group leader (tid {pid}, tgid {tgid})")
        return
    failure = written.error
    if failure is not None:
        path = f"/proc/{pid}/oom_score_adj"
        if failure.op == "open":
            yield warning(f"Failed to open {path}; errno={failure.errno}: process {pid} might have been killed")
            return
        yield error(f"Error writing {path}; errno={failure.errno}")
    if d.in_kernel:
        cmdline = yield ReadProcess(pid, "cmdline")
        if not isinstance(cmdline, FileError) and (cmdline or not d.behaviour.empty_reads_refused):
            d.task_names[pid] = task_name(cmdline)
        return
    if d.params.per_app_memcg and kind == ProcessType.APP:
        kept: int | None = yield from _set_soft_limit(d, pid, uid, adj)
        if kept is None:
            return
        adj = kept
    record = d.table.get(pid)
    if record is None:
        yield from _register(d, pid, uid, adj, sender[0])
    elif record.owner_pid == sender[0] or _claim(record, sender[0]):
        d.table.move(record, adj)
    else:
        yield from _refuse(d, sender, "modify")


def _register(d: Daemon, pid: int, uid: int, adj: int, owner_pid: int) -> Steps:
    handle: int | None = None
    if d.pidfd_supported:
        opened = yield OpenPidfd(pid)
        if opened.errno:
            yield error(f"pidfd_open for pid {pid} failed; errno={opened.errno}")
            return
        handle = opened.handle
    d.table.insert(pid, handle, uid & 0xFFFF_FFFF, adj, owner_pid)


def _claim(record: Process, owner_pid: int) -> bool:
    """claim_record: one's own records, and those whose client is gone."""
    if record.owner_pid == owner_pid:
        return True
    if record.owner_pid == 0:
        record.owner_pid = owner_pid
        return True
    return False


def _refuse(d: Daemon, sender: tuple[int, int], verb: str) -> Steps:
    pid, uid = sender
    cmdline = yield ReadProcess(pid, "cmdline")
    unreadable = isinstance(cmdline, FileError) or (not cmdline and d.behaviour.empty_reads_refused)
    name = ANONYMOUS_CLIENT if unreadable else task_name(cmdline[:NAME_BUFFER_CHARS])
    yield error(f"{name} ({c_int32(uid)}, {pid}) attempts to {verb} a process registered by another client")


#: (lowest adj, soft limit in units of 8 MiB), highest first.
_SOFT_LIMITS = ((700, 0), (600, 1), (400, 0), (300, 1), (200, 8), (100, 10), (0, 20), (-1000, 64))
_LAUNCHER_ADJS = range(OomAdj.HOME, OomAdj.PREVIOUS_APP)


def _set_soft_limit(d: Daemon, pid: int, uid: int, adj: int) -> Steps:
    """Per-app memory cgroups: the adj for lmkd's own table (a launcher counts as perceptible), or None
    when the process cannot be registered."""
    units = next(units for lowest, units in _SOFT_LIMITS if adj >= lowest)
    if adj in _LAUNCHER_ADJS:
        adj = OomAdj.PERCEPTIBLE.value
    if d.behaviour.soft_limit_by_task:
        path = yield CgroupAttributePath("MemSoftLimit", pid)
        if path is None:
            yield error("Querying MemSoftLimit path failed")
            return None
    else:
        path = f"/dev/memcg/apps/uid_{uid & 0xFFFF_FFFF}/pid_{pid}/memory.soft_limit_in_bytes"
    failure = yield WriteFile(path, str(units * SOFT_LIMIT_UNIT_BYTES))
    # system_server has no memory cgroup of its own.
    is_system_server = adj == OomAdj.SYSTEM and uid == AID_SYSTEM
    if failure is not None:
        if failure.op == "open":
            if not is_system_server:
                yield error(f"Error opening {path}; errno={failure.errno}")
        else:
            yield error(f"Error writing {path}; errno={failure.errno}")
    return adj


def _remove(d: Daemon, pid: int, sender: tuple[int, int]) -> Steps:
    """cmd_procremove: never signals; a wait in progress goes on."""
    if d.in_kernel:
        d.task_names.pop(pid, None)
        return
    record = d.table.get(pid)
    if record is None:
        return
    if _claim(record, sender[0]):
        yield from remove_record(d, record)
    else:
        yield from _refuse(d, sender, "unregister")


def _purge(d: Daemon, owner_pid: int) -> Steps:
    """cmd_procpurge: the sender's own records and those of clients that are gone."""
    d.task_names.clear()
    for record in d.table.in_hash_order():
        if _claim(record, owner_pid):
            yield from remove_record(d, record)


# ---- targets and counters


def _set_targets(d: Daemon, pairs: tuple[tuple[int, int], ...]) -> Steps:
    """cmd_target: at most once a second; neither validated nor sorted.

    Surprise: when the property's text outgrows 91 characters the rest is not stored, yet counts.
    """
    if not 1 <= len(pairs) <= TARGETS_MAX:
        return
    if diff_ms(d.last_target_ns, d.now_ns) < TARGET_INTERVAL_MS:
        yield error("Ignoring frequent updated to lmkd limits")
        return
    d.last_target_ns = d.now_ns
    text = ""
    for index, (minfree, adj) in enumerate(pairs):
        d.targets[index] = (minfree, adj)
        text += f"{minfree}:{adj},"
        if len(text) > PROPERTY_CHARS_MAX:
            text = text[: PROPERTY_CHARS_MAX + 1]
            break
    d.target_count = len(pairs)
    yield SetProperty(MINFREE_PROPERTY, text[:-1])
    if d.in_kernel:
        targets = d.targets[: d.target_count]
        yield from _write_kernel(KERNEL_MINFREE_PATH, ",".join(str(minfree) for minfree, _ in targets))
        yield from _write_kernel(KERNEL_ADJ_PATH, ",".join(str(adj) for _, adj in targets))


def _write_kernel(path: str, text: str) -> Steps:
    failure = yield WriteFile(path, text)
    if failure is not None:
        what = "opening" if failure.op == "open" else "writing"
        yield error(f"Error {what} {path}; errno={failure.errno}")


def kill_count(d: Daemon, min_adj: int, max_adj: int) -> int:
    """get_killcnt: kills between two scores; a lower bound above 1000 asks for the total."""
    if min_adj > max_adj:
        return 0
    if min_adj > OOM_SCORE_ADJ_MAX:
        return c_int32(d.counters.total)
    return sum(count for adj, count in d.counters.by_adj.items() if min_adj <= adj <= max_adj)


# ---- properties, boot


def read_properties(d: Daemon) -> Steps:
    """update_props. log_stats is read once in the life of the process."""
    found = yield GetProperties(PROPERTY_NAMES)
    d.params = load_params(found, d.behaviour)
    if d.log_stats is None:
        d.log_stats = d.params.log_stats


def boot_completed() -> Steps:
    """Bool: sys.boot_completed now."""
    found = yield GetProperties((BOOT_COMPLETED,))
    return bool(parse_property_bool(found.get(BOOT_COMPLETED)))


def _update_properties(d: Daemon, slot: int) -> Steps:
    """LMK_UPDATE_PROPS: read again and start the monitors anew; the daemon ends if that fails.
    What the strategies remember stays, the running thrashing limit too."""
    yield from read_properties(d)
    result = 0
    if not d.in_kernel and (d.monitors_started or not d.behaviour.reinit_if_started):
        yield from stop_monitors(d)
        if not (yield from start_monitors(d)):
            result = -1
    if d.behaviour.memevents and not d.memory_events:
        yield from drop_direct_reclaim_threshold(d)
    if not (yield from _reply(d, slot, encode_notification(UpdatePropsReply(result)))):
        yield error("Failed to report operation results")
    if result:
        yield error("New configuration is not supported. Exiting...")
        yield Exit(1)
    yield info("Properties reinitilized")


def _start_monitoring(d: Daemon) -> Steps:
    """LMK_START_MONITORING; it does not ask whether the in-kernel killer is in use."""
    if d.monitors_started:
        return
    if not (yield from boot_completed()):
        yield error("LMK_START_MONITORING cannot be handled before boot completed")
        return
    if not (yield from start_monitors(d)):
        yield error("Failure to initialize monitoring. Exiting...")
        yield Exit(1)
    yield info("Initialized monitors after boot completed.")


def _boot_completed(d: Daemon, slot: int) -> Steps:
    """LMK_BOOT_COMPLETED: 0 done, 1 done before, -1 not booted."""
    if d.boot_handled:
        result = 1
    elif not (yield from boot_completed()):
        yield error("LMK_BOOT_COMPLETED cannot be handled before boot completed")
        result = -1
    else:
        yield from use_memory_events(d)
        d.boot_handled = True
        result = 0
    if not (yield from _reply(d, slot, encode_notification(BootCompletedReply(result)))):
        yield error("Failed to report boot-completed operation results")
