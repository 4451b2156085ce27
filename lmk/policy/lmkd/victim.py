"""Choosing a victim and killing it (reference: section 6)."""

from __future__ import annotations

import attrs

from lmk.policy.api import (
    CloseConnection,
    EventLog,
    FileError,
    Kill,
    ReadProcess,
    ReadSizes,
    Send,
)
from lmk.policy.lmkd.control_packets import (
    KillStatistics,
    ProcKill,
    StateChanged,
    SubscribeEvent,
    encode_notification,
)
from lmk.policy.lmkd.daemon import Daemon, Steps, Wakeups, diff_ms, error, info, warning
from lmk.policy.lmkd.kernel_text import (
    c_string,
    parse_statm_rss,
    parse_statm_sizes,
    parse_status_tag,
    task_name,
)
from lmk.policy.lmkd.memory import MemoryInfo, wrap
from lmk.policy.lmkd.process_table import Process
from lmk.policy.lmkd.statistics import read_statistics
from lmk.policy.lmkd.waiting import remove_record, start_wait, stop_wait
from lmk.policy.oom_adj import OOM_SCORE_ADJ_MAX
from lmk.units import c_div, c_int32

PERCEPTIBLE_ADJ = 200
INT32_MAX = (1 << 31) - 1


@attrs.define
class KillContext:
    """What a kill reports besides its victim. The old strategy has no ``reason_text`` and no ``psi``."""

    min_adj: int
    memory: MemoryInfo
    wakeups: Wakeups
    now_ns: int
    reason: int = -1
    reason_text: str | None = None
    thrashing: int = 0
    max_thrashing: int = 0
    #: avg10 of memory some, memory full, io some, io full, cpu some
    psi: tuple[float, ...] = (0.0,) * 5
    killed: list[tuple[int, int]] = attrs.field(factory=list)  #: (pid, adj) of each kill


def find_and_kill(d: Daemon, context: KillContext) -> Steps:
    """find_and_kill_process: pages freed, 0 (nothing, or less than a page), or -1.

    From the highest score down, the oldest registration of each slot; from 200 down (or always, by
    property) the heaviest. Surprises that lmkd has and this copy keeps: when the last try in a slot
    could not even be made (-1) the whole search ends; a victim with less than one page counts as
    nothing, and the search kills another one further down.
    """
    heaviest = d.params.kill_heaviest_task
    freed = 0
    told = False
    for adj in d.table.adjs_from(OOM_SCORE_ADJ_MAX, context.min_adj):
        if adj <= PERCEPTIBLE_ADJ and d.behaviour.heaviest_if_perceptible:
            heaviest = True
        while True:
            record = (yield from heaviest_of(d, adj)) if heaviest else d.table.tail(adj)
            if record is None:
                break
            freed = yield from kill_one(d, record, context)
            if freed >= 0:
                if d.behaviour.state_packets and not told:
                    told = True
                    yield from _tell_state(d, 1)
                break
        if freed > 0 or (freed < 0 and not d.behaviour.search_fixed):
            break
        if freed == 0 and record is not None and d.behaviour.search_fixed:
            break
    if told:
        yield from _tell_state(d, 2)
    return freed


def heaviest_of(d: Daemon, adj: int) -> Steps:
    """proc_get_heaviest: the record of a slot with the most resident pages, or None.

    Ties go to the newest registration; 0 pages are never chosen; a record whose statm cannot be read
    is removed. From Android 16 on a slot's only record is taken without looking.
    """
    pids = d.table.pids_head_to_tail(adj)
    if not pids:
        return None
    if len(pids) == 1 and d.behaviour.lone_record_unread:
        return d.table.get(pids[0])
    sizes = yield ReadSizes(pids)
    refused = 0 if d.behaviour.status_sizes else 1
    try:
        if isinstance(sizes[0], str):
            sizes = parse_statm_sizes(sizes)
        largest = max(sizes)
        # Whoever answers with numbers has read them: none is negative.
        some_refused = largest < refused or (refused > 0 and min(sizes) < refused)
    except TypeError:  # some could not be read, or are odd
        sizes = [parse_statm_rss(size) if isinstance(size, str) else size for size in sizes]
        sizes = [-1 if isinstance(size, FileError) else size for size in sizes]
        largest = max(sizes)
        some_refused = min(sizes) < refused
    if some_refused:
        for pid, pages in zip(pids, sizes, strict=True):
            if pages < refused:
                yield from remove_record(d, d.table.get(pid))
    return d.table.get(pids[sizes.index(largest)]) if largest > 0 else None


@attrs.define
class Victim:
    """What was read of a process before it is killed."""

    name: str
    rss_kib: int
    swap_kib: int
    rss_pages: int
    anon_kib: int = 0  #: only where the release reads it


def _read_victim(d: Daemon, record: Process) -> Steps:
    """The checks of kill_one_process: ``Victim``, or None when the record must go."""
    behaviour = d.behaviour
    if not record.valid:
        return None
    pid = record.pid
    if not behaviour.status_sizes:
        return (yield from _read_victim_statm(d, record))
    status = _buffered(d, (yield ReadProcess(pid, "status")))
    if status is None:
        return None
    tgid = parse_status_tag(status, "Tgid:")
    if tgid is None:
        yield error(f"Unable to parse tgid from /proc/{pid}/status")
        return None
    if tgid != pid:
        yield error(f"Possible pid reuse detected (pid {pid}, tgid {tgid})!")
        return None
    # Zombies and kernel threads have no such lines.
    rss_kib = parse_status_tag(status, "VmRSS:")
    swap_kib = parse_status_tag(status, "VmSwap:") if rss_kib is not None else None
    if rss_kib is None or swap_kib is None:
        return None
    anon_kib = parse_status_tag(status, "RssAnon:") if behaviour.anon_rss_needed else 0
    if anon_kib is None:
        return None
    cmdline = _buffered(d, (yield ReadProcess(pid, "cmdline")))
    if cmdline is None:
        return None
    return Victim(task_name(cmdline), rss_kib, swap_kib, c_div(rss_kib, d.page_kib), anon_kib)


def _read_victim_statm(d: Daemon, record: Process) -> Steps:
    """Android 11: an unreadable Tgid is tolerated, the size comes from statm and must not be 0."""
    pid = record.pid
    status = _buffered(d, (yield ReadProcess(pid, "status")))
    tgid = None if status is None else parse_status_tag(status, "Tgid:")
    if tgid is not None and tgid != pid:
        yield error(f"Possible pid reuse detected (pid {pid}, tgid {tgid})!")
        return None
    cmdline = _buffered(d, (yield ReadProcess(pid, "cmdline")))
    if cmdline is None:
        return None
    (size,) = yield ReadSizes([pid])
    pages = -1 if isinstance(size, FileError) else parse_statm_rss(size) if isinstance(size, str) else size
    if pages <= 0:
        return None
    return Victim(task_name(cmdline), pages * d.page_kib, 0, pages)


def _buffered(d: Daemon, answer: str | FileError) -> str | None:
    """Text of a /proc/<pid> file as it fits into lmkd's one-page buffer, up to a NUL; None: unreadable."""
    if isinstance(answer, FileError) or (not answer and d.behaviour.empty_reads_refused):
        return None
    size_max = d.machine.page_size - 1
    if len(answer) * 4 > size_max:
        answer = answer.encode(errors="surrogateescape")[:size_max].decode(errors="surrogateescape")
    return c_string(answer)


def kill_one(d: Daemon, record: Process, context: KillContext) -> Steps:
    """kill_one_process: pages freed; -1 when the process could not be examined. The record always goes.

    A kill whose signal fails gives 0 from Android 14 on (the vendor hook's result was left in the
    variable), so the search goes on with the next lower score. An asynchronous kill counts as done.
    """
    victim = yield from _read_victim(d, record)
    if victim is None:
        yield from remove_record(d, record)
        return -1
    statistics = yield from read_statistics(d, record, victim.rss_kib, victim.swap_kib)
    pid, uid = record.pid, c_int32(record.uid)
    yield from start_wait(d, record)
    queue = d.reaper_active and record.handle is not None
    group = queue and d.behaviour.kills_group
    outcome = yield Kill(pid, record.handle, queue, d.behaviour.synchronous_release, group=group)
    if outcome.errno:
        yield from stop_wait(d, finished=False)
        yield error(f"kill({pid}): errno={outcome.errno}")
        yield from remove_record(d, record)
        return 0 if d.behaviour.failed_kill_is_zero else -1
    d.last_kill_ns = context.now_ns
    context.killed.append((pid, record.adj))
    if not _count_kill(d, record.adj):
        yield warning(f"Number of distinct oomadj levels exceeds {d.behaviour.kill_counter_slots}")
    line = info(_kill_line(d, record, victim, context))
    event = EventLog(killinfo(d, record, context, victim))
    first, second = (line, event) if d.behaviour.line_before_killinfo else (event, line)
    yield first
    yield second
    if d.behaviour.kill_statistics and d.log_stats and _subscribed(d, SubscribeEvent.STATISTICS):
        yield from _send_statistics(d, record, victim, context, statistics)
    if _subscribed(d, SubscribeEvent.KILL):
        rss_kib = c_int32(victim.rss_kib) if d.behaviour.prockill_rss else None
        yield from notify(d, SubscribeEvent.KILL, encode_notification(ProcKill(pid, uid, rss_kib)))
    yield from remove_record(d, record)
    return c_int32(victim.rss_pages)


def _kill_line(d: Daemon, record: Process, victim: Victim, context: KillContext) -> str:
    """The line dashboards look for (reference: section 9.1). The old strategy says ``kb`` and no reason."""
    form = d.behaviour.kill_line
    who = f"Kill '{victim.name}' ({record.pid}), uid {c_int32(record.uid)}, "
    if form == "oom_adj":
        head = f"{who}oom_adj {record.adj} to free {victim.rss_kib}kB"
        return head if context.reason_text is None else f"{head}; reason: {context.reason_text}"
    head = f"{who}oom_score_adj {record.adj} to free {victim.rss_kib}kB rss, "
    if context.reason_text is None:
        return f"{head}{victim.swap_kib}kb swap"
    if form == "with anon rss":
        head += f"{victim.anon_kib}kB anon rss, "
    dmabuf = ", 0kB dmabuf_pss, 0kB dmabuf_rss" if form != "rss and swap" else ""
    return f"{head}{victim.swap_kib}kB swap{dmabuf}; reason: {context.reason_text}"


def killinfo(d: Daemon, record: Process, context: KillContext | None, victim: Victim | None) -> tuple[int | float, ...]:
    """Fields of the killinfo event; the watchdog has no context (reference: section 9.3)."""
    page_kib = d.page_kib
    fields: list[int | float]
    if context is None or victim is None:
        fields = [record.pid, c_int32(record.uid), record.adj, 0, 0, -1, *[0] * 27, *[0.0] * 5, 0, 0]
        return tuple(fields[: d.behaviour.killinfo_fields])
    wakeups, now_ns = context.wakeups, context.now_ns
    memory_kib = [pages * page_kib for pages in context.memory.logged]
    if max(memory_kib) > INT32_MAX or min(memory_kib) < ~INT32_MAX:
        memory_kib = [c_int32(min(wrap(kib), INT32_MAX)) for kib in memory_kib]
    fields = [
        record.pid,
        c_int32(record.uid),
        record.adj,
        context.min_adj,
        c_int32(victim.rss_kib),
        context.reason,
        *memory_kib,
        c_int32(diff_ms(wakeups.last_event_ns, now_ns)),
        c_int32(diff_ms(wakeups.previous_ns, now_ns)),
        wakeups.since_event,
        wakeups.skipped,
        c_int32(victim.swap_kib),
        context.memory.gpu_kib,
        c_int32(context.thrashing),
        c_int32(context.max_thrashing),
        *context.psi,
    ]
    wanted = d.behaviour.killinfo_fields
    if len(fields) == wanted:
        return tuple(fields)
    return (*fields, 0, 0)[:wanted]


def _count_kill(d: Daemon, adj: int) -> bool:
    """inc_killcnt: 16 bits per score, silently wrapping, for the first scores that occur; False: one too many."""
    counters = d.counters
    counts = counters.by_adj
    counters.total = (counters.total + 1) & 0xFFFF_FFFF
    if adj in counts:
        counts[adj] = (counts[adj] + 1) & 0xFFFF
    elif len(counts) < d.behaviour.kill_counter_slots:
        counts[adj] = 1
    else:
        return False
    return True


def _send_statistics(
    d: Daemon, record: Process, victim: Victim, context: KillContext, statistics: list[int] | None
) -> Steps:
    """stats_write_lmk_kill_occurred: the six numbers are -1 when they could not be read."""
    faults, major, rss_bytes, cache_bytes, swap_bytes, start_ns = statistics or [-1] * 6
    memory, page_kib = context.memory, d.page_kib
    packet = KillStatistics(
        page_faults=faults,
        major_faults=major,
        rss_bytes=rss_bytes,
        cache_bytes=cache_bytes,
        swap_bytes=swap_bytes,
        start_ns=start_ns,
        uid=record.uid,
        adj=record.adj,
        min_adj=context.min_adj,
        free_memory_kib=memory.free * page_kib,
        free_swap_kib=memory.free_swap(d.params, d.behaviour) * page_kib,
        reason=context.reason,
        thrashing_pct=context.thrashing,
        max_thrashing_pct=context.max_thrashing,
        name=victim.name.encode(errors="surrogateescape"),
    )
    yield from notify(d, SubscribeEvent.STATISTICS, encode_notification(packet))


def _subscribed(d: Daemon, event: int) -> bool:
    mask = 0
    for client in d.connections:
        if client.connection is not None:
            mask |= client.event_mask
    return bool(mask & 1 << event)


def notify(d: Daemon, event: int, data: bytes) -> Steps:
    """To every connection that subscribed to this event."""
    for client in d.connections:
        if client.connection is not None and client.event_mask & 1 << event:
            yield from send(client.connection, data)


def send(connection: int, data: bytes) -> Steps:
    """ctrl_data_write: bool, whether the message went out."""
    errno = yield Send(connection, data)
    if errno:
        yield error(f"control data socket write failed; errno={errno}")
    return not errno


def _tell_state(d: Daemon, state: int) -> Steps:
    """Android 12 to 14.0: tell subscribers of statistics that killing starts (1) or stops (2)."""
    if d.log_stats:
        yield from notify(d, SubscribeEvent.STATISTICS, encode_notification(StateChanged(state)))


def close_connection(d: Daemon, slot: int) -> Steps:
    """ctrl_data_close: the records of the pid that last sent something here become claimable."""
    client = d.connections[slot]
    yield info("closing lmkd data connection")
    if client.connection is not None:
        yield CloseConnection(client.connection)
        client.connection = None
    d.table.disown(client.pid)
