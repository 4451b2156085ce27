"""A run as a Perfetto trace: what an Android trace of the same minutes would hold, in the same event forms.

So the standard queries work on simulated, emulated and observed runs alike: kills are lmkd's atrace events (an instant
on the track ``lowmemorykiller`` and a slice, both named ``lmk,<pid>,<reason>,<adj>,<min adj>,<max thrashing>``, as
Perfetto's ``android.memory.lmk`` parses them), scores are ftrace's ``oom/oom_score_adj_update``, kernel OOM kills
``oom/mark_victim``, memory and PSI ``sys_stats``. On top come tracks of our own: why each kill happened, reaping,
launches.

The same record gives the same bytes. Times are the record's, as boot time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import attrs
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from lmk.errors import UserError
from lmk.record.reader import RecordReader
from lmk.record.schema import KILLER_KERNEL_OOM, CounterRow, KillRow
from lmk.report.explain import Explained, explain_kills, explained_lines
from lmk.report.timeline import ProcessLife, Timeline, exit_ns, read_timeline, stall_in_window_ms
from lmk.units import NS_PER_MS, NS_PER_US

_SEQUENCE = 1
_WINDOW_MS = 1000
_INIT_PID = 1
#: Column of a sample -> key of sys_stats.
_MEMINFO = (
    ("mem_free_kib", pb.MEMINFO_MEM_FREE),
    ("mem_available_kib", pb.MEMINFO_MEM_AVAILABLE),
    ("cached_kib", pb.MEMINFO_CACHED),
    ("swap_total_kib", pb.MEMINFO_SWAP_TOTAL),
    ("swap_free_kib", pb.MEMINFO_SWAP_FREE),
)
_VMSTAT = (
    ("refault_file_pages", pb.VMSTAT_WORKINGSET_REFAULT_FILE),
    ("pgscan_direct", pb.VMSTAT_PGSCAN_DIRECT),
    ("pgscan_kswapd", pb.VMSTAT_PGSCAN_KSWAPD),
    ("pswpin_pages", pb.VMSTAT_PSWPIN),
    ("pswpout_pages", pb.VMSTAT_PSWPOUT),
)
_PSI = (
    ("psi_some_us", pb.SysStats.PsiSample.PSI_RESOURCE_MEMORY_SOME),
    ("psi_full_us", pb.SysStats.PsiSample.PSI_RESOURCE_MEMORY_FULL),
)

_Packet = Any
_Fill = Callable[[_Packet], None]


@attrs.frozen
class _Event:
    """One packet: ``fill`` completes it. Events of one moment keep the order of ``rank``."""

    t_ns: int
    rank: int
    fill: _Fill


# Ranks: a process is there before it is scored, killed, reaped and gone.
_BORN, _NAMED, _SCORED, _SAMPLED, _KILLED, _ENDED, _GONE = range(7)


def perfetto_trace(record: RecordReader) -> bytes:
    """The whole trace. UserError if the record is another lmk's."""
    timeline = read_timeline(record)
    builder = TraceProtoBuilder()
    tracks = _Tracks(_unused_pid(timeline.lives), str(timeline.meta.get("policy") or "lmkd"))
    events = [*_processes(timeline, tracks), *_samples(timeline, tracks), *_kills(timeline, tracks)]
    events += [*_reasons(timeline, explain_kills(record), tracks), *_launches(timeline, tracks)]
    tracks.describe(builder)
    for event in sorted(events, key=lambda event: (event.t_ns, event.rank)):
        packet = builder.add_packet()
        packet.timestamp = max(0, event.t_ns)
        event.fill(packet)
    return bytes(builder.trace.SerializeToString(deterministic=True))


def _unused_pid(lives: Sequence[ProcessLife]) -> int:
    """For the daemon, whose pid no record holds."""
    used = {life.pid for life in lives}
    return next(pid for pid in range(100, 1 << 22) if pid not in used)


class _Tracks:
    """Our own tracks, numbered in the order of their first use."""

    def __init__(self, daemon_pid: int, daemon: str) -> None:
        self.daemon_pid = daemon_pid
        self._daemon = daemon
        self._uuids: dict[tuple[str, str], int] = {}
        self._units: dict[int, str | None] = {}

    def uuid(self, parent: str, name: str, unit: str | None = None) -> int:
        """The track ``name`` below ``parent`` ("" for the daemon's process); ``unit`` makes it a counter."""
        number = self._uuids.setdefault((parent, name), 100 + len(self._uuids))
        self._units.setdefault(number, unit)
        if parent and ("", parent) not in self._uuids:
            self.uuid("", parent)
        return number

    def describe(self, builder: TraceProtoBuilder) -> None:
        """Packets that say what the tracks are; they come first."""
        first = builder.add_packet()
        first.trusted_packet_sequence_id = _SEQUENCE
        first.sequence_flags = pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        first.track_descriptor.uuid = 1
        first.track_descriptor.process.pid = self.daemon_pid
        first.track_descriptor.process.process_name = self._daemon
        for (parent, name), number in self._uuids.items():
            packet = builder.add_packet()
            packet.trusted_packet_sequence_id = _SEQUENCE
            descriptor = packet.track_descriptor
            descriptor.uuid, descriptor.name = number, name
            descriptor.parent_uuid = self._uuids[("", parent)] if parent else 1
            unit = self._units[number]
            if unit is not None:
                descriptor.counter.unit_name = unit


# ---- processes


def _processes(timeline: Timeline, tracks: _Tracks) -> Iterator[_Event]:
    yield _Event(timeline.begin_ns, _NAMED, _process_named(tracks.daemon_pid, timeline.meta.get("policy") or "lmkd", 0))
    for life in timeline.lives:
        name = life.name or f"pid {life.pid}"
        if life.begin_ns > timeline.begin_ns:
            yield _Event(life.begin_ns, _BORN, _process_born(life.pid, name))
        yield _Event(life.begin_ns, _NAMED, _process_named(life.pid, name, life.uid))
        for span in life.spans:
            if span.adj is not None:
                yield _Event(span.begin_ns, _SCORED, _scored(life.pid, name, span.adj))
        if life.ended:
            yield _Event(life.end_ns, _GONE, _process_gone(life.pid, name))


def _ftrace(pid: int, put: Callable[[Any], None]) -> _Fill:
    def fill(packet: _Packet) -> None:
        packet.ftrace_events.cpu = 0
        event = packet.ftrace_events.event.add()
        event.timestamp, event.pid = packet.timestamp, pid
        put(event)

    return fill


def _process_born(pid: int, name: str) -> _Fill:
    def put(event: Any) -> None:
        event.task_newtask.pid, event.task_newtask.comm = pid, name[-15:]
        event.task_newtask.clone_flags = 0
        event.task_newtask.oom_score_adj = 0

    return _ftrace(_INIT_PID, put)


def _process_named(pid: int, name: str, uid: int | None) -> _Fill:
    def fill(packet: _Packet) -> None:
        process = packet.process_tree.processes.add()
        process.pid, process.ppid = pid, _INIT_PID
        process.cmdline.append(name)
        if uid is not None:
            process.uid = uid

    return fill


def _scored(pid: int, name: str, adj: int) -> _Fill:
    def put(event: Any) -> None:
        update = event.oom_score_adj_update
        update.pid, update.comm, update.oom_score_adj = pid, name[-15:], adj

    return _ftrace(_INIT_PID, put)


def _process_gone(pid: int, name: str) -> _Fill:
    def put(event: Any) -> None:
        event.sched_process_free.pid, event.sched_process_free.comm = pid, name[-15:]

    return _ftrace(pid, put)


# ---- samples


def _samples(timeline: Timeline, tracks: _Tracks) -> Iterator[_Event]:
    rows = timeline.counters
    stalls = {name: stall_in_window_ms(rows, name, _WINDOW_MS) for name, _ in _PSI}
    for index, row in enumerate(rows):
        yield _Event(row.t_ns, _SAMPLED, _sys_stats(row))
        if row.anon_kib is not None:
            yield _counted(row.t_ns, tracks.uuid("", "anon", "MiB"), row.anon_kib / 1024)
        if row.swap_total_kib is not None and row.swap_free_kib is not None:
            used_mib = (row.swap_total_kib - row.swap_free_kib) / 1024
            yield _counted(row.t_ns, tracks.uuid("", "zram used", "MiB"), used_mib)
        for name, kind in (("psi_some_us", "some"), ("psi_full_us", "full")):
            value = stalls[name][index]
            if value is not None:
                yield _counted(row.t_ns, tracks.uuid("", f"PSI {kind}, ms per s", "ms"), value)
    for mark in timeline.marks:
        for name in ("free", "min", "low", "high"):
            label = "free memory at decisions" if name == "free" else f"{name} watermark"
            yield _counted(mark.t_ns, tracks.uuid("", label, "MiB"), getattr(mark, f"{name}_kib") / 1024)
        yield _counted(mark.t_ns, tracks.uuid("", "thrashing", "%"), mark.thrashing_pct)
        yield _counted(mark.t_ns, tracks.uuid("", "thrashing limit", "%"), mark.thrashing_limit_pct)


def _sys_stats(row: CounterRow) -> _Fill:
    def fill(packet: _Packet) -> None:
        stats = packet.sys_stats
        stats.SetInParent()
        for values, keys in ((stats.meminfo, _MEMINFO), (stats.vmstat, _VMSTAT)):
            for name, key in keys:
                value = getattr(row, name)
                if value is not None:
                    entry = values.add()
                    entry.key, entry.value = key, value
        for name, resource in _PSI:
            total_us = getattr(row, name)
            if total_us is not None:
                sample = stats.psi.add()
                sample.resource, sample.total_ns = resource, total_us * NS_PER_US

    return fill


def _counted(t_ns: int, uuid: int, value: float) -> _Event:
    def fill(packet: _Packet) -> None:
        event = _track_event(packet, uuid, pb.TrackEvent.TYPE_COUNTER)
        event.double_counter_value = value

    return _Event(t_ns, _SAMPLED, fill)


def _track_event(packet: _Packet, uuid: int, kind: int, name: str | None = None) -> Any:
    packet.trusted_packet_sequence_id = _SEQUENCE
    event = packet.track_event
    event.type, event.track_uuid = kind, uuid
    if name is not None:
        event.name = name
    return event


# ---- kills


def _kills(timeline: Timeline, tracks: _Tracks) -> Iterator[_Event]:
    """lmkd's events on its main thread. A slice lasts until the victim's memory was back, or the next kill began."""
    ours = [kill for kill in timeline.kills if kill.killer != KILLER_KERNEL_OOM]
    for kill, following in zip_longest(ours, ours[1:]):
        text = f"lmk,{kill.pid},{_or(kill.reason_code, -1)},{_or(kill.oom_score_adj, 0)}"
        text += f",{_or(kill.min_oom_score_adj, 0)},{_max_thrashing_pct(timeline, kill)}"
        end_ns = kill.t_ns + NS_PER_US * (kill.signal_to_reaped_us or kill.signal_to_exit_us or 1)
        if following is not None:
            end_ns = min(end_ns, following.t_ns)
        end_ns = max(end_ns, kill.t_ns + NS_PER_US)  # the legacy query wants a duration
        pid = tracks.daemon_pid
        yield _Event(kill.t_ns, _SAMPLED, _sizes(kill))
        yield _Event(kill.t_ns, _KILLED, _printed(pid, f"N|{pid}|lowmemorykiller|{text}\n"))
        yield _Event(kill.t_ns, _KILLED, _printed(pid, f"B|{pid}|{text}\n"))
        yield _Event(end_ns, _ENDED, _printed(pid, f"E|{pid}\n"))
    for kill in timeline.kills:
        if kill.killer == KILLER_KERNEL_OOM:
            yield _Event(kill.t_ns, _KILLED, _oom_victim(kill.pid))
    yield from _reaps(timeline, tracks)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _max_thrashing_pct(timeline: Timeline, kill: KillRow) -> int:
    """The nearest decision's; lmkd says -1 where there is no kill info."""
    after = bisect_left(timeline.marks, kill.t_ns, key=lambda mark: mark.t_ns)
    beside = timeline.marks[max(0, after - 1) : after + 1]
    near = min(beside, key=lambda mark: abs(mark.t_ns - kill.t_ns), default=None)
    return -1 if near is None or abs(near.t_ns - kill.t_ns) > 1000 * NS_PER_MS else near.max_thrashing_pct


def _printed(pid: int, text: str) -> _Fill:
    def put(event: Any) -> None:
        event.print.buf = text

    return _ftrace(pid, put)


def _oom_victim(pid: int) -> _Fill:
    def put(event: Any) -> None:
        event.mark_victim.pid = pid

    return _ftrace(pid, put)


def _sizes(kill: KillRow) -> _Fill:
    """What process statistics would have said just before, for queries of sizes at kills."""

    def fill(packet: _Packet) -> None:
        process = packet.process_stats.processes.add()
        process.pid = kill.pid
        if kill.rss_kib is not None:
            process.vm_rss_kb = kill.rss_kib
        if kill.swap_kib is not None:
            process.vm_swap_kb = kill.swap_kib
        if kill.oom_score_adj is not None:
            process.oom_score_adj = kill.oom_score_adj

    return fill


def _reaps(timeline: Timeline, tracks: _Tracks) -> Iterator[_Event]:
    """From the signal to the end of the reap call, and on to the exit; as many tracks as overlap."""
    busy_until_ns: list[int] = []
    for kill in timeline.kills:
        if kill.dry or (kill.signal_to_reaped_us is None and kill.signal_to_exit_us is None):
            continue
        free = next((i for i, until_ns in enumerate(busy_until_ns) if until_ns <= kill.t_ns), len(busy_until_ns))
        if free == len(busy_until_ns):
            busy_until_ns.append(0)
        uuid = tracks.uuid("reaping", f"reaper {free}")
        reaped_ns = kill.t_ns + NS_PER_US * (kill.signal_to_reaped_us or 0)
        busy_until_ns[free] = max(exit_ns(kill), reaped_ns)
        name = kill.name or f"pid {kill.pid}"
        notes = {"freed_kib": kill.freed_kib, "reap_method": kill.reap_method, "reap_errno": kill.reap_errno}
        if kill.signal_to_reaped_us is not None:
            yield from _slice(kill.t_ns, reaped_ns, uuid, f"reap {name}", notes)
        if kill.signal_to_exit_us is not None and exit_ns(kill) > reaped_ns:
            yield from _slice(reaped_ns, exit_ns(kill), uuid, f"exit {name}", {})


def _slice(begin_ns: int, end_ns: int, uuid: int, name: str, notes: dict[str, Any]) -> Iterator[_Event]:
    def begin(packet: _Packet) -> None:
        _annotate(_track_event(packet, uuid, pb.TrackEvent.TYPE_SLICE_BEGIN, name), notes)

    def end(packet: _Packet) -> None:
        _track_event(packet, uuid, pb.TrackEvent.TYPE_SLICE_END)

    yield _Event(begin_ns, _KILLED, begin)
    # Before a slice that begins where this one ends.
    yield _Event(end_ns, _SAMPLED if end_ns > begin_ns else _ENDED, end)


def _annotate(event: Any, notes: dict[str, Any]) -> None:
    for name, value in notes.items():
        if value is None:
            continue
        note = event.debug_annotations.add()
        note.name = name
        if isinstance(value, int):
            note.int_value = value
        else:
            note.string_value = str(value)


def _reasons(timeline: Timeline, explained: Sequence[Explained | UserError], tracks: _Tracks) -> Iterator[_Event]:
    """An instant per kill with the words of ``lmk explain``."""
    for number, (kill, found) in enumerate(zip(timeline.kills, explained, strict=True), 1):
        text = str(found) if isinstance(found, UserError) else "\n".join(explained_lines(found))
        notes = {"kill": number, "reason": kill.reason, "explanation": text}
        uuid = tracks.uuid("", "why (lmk explain)")
        yield _Event(kill.t_ns, _KILLED, _instant(uuid, f"killed {kill.name or kill.pid}", notes))


def _instant(uuid: int, name: str, notes: dict[str, Any]) -> _Fill:
    def fill(packet: _Packet) -> None:
        _annotate(_track_event(packet, uuid, pb.TrackEvent.TYPE_INSTANT, name), notes)

    return fill


def _launches(timeline: Timeline, tracks: _Tracks) -> Iterator[_Event]:
    """From the launch step to the moment the app had touched its hot set; a track per app."""
    for event in timeline.launches:
        took_ms = event.body.get("launch_ms")
        if event.kind != "launch" or took_ms is None:
            continue
        app = str(event.body.get("app") or "?")
        kind = "cold" if event.body.get("cold") else "warm"
        begin_ns = event.t_ns - int(took_ms * NS_PER_MS)
        yield from _slice(begin_ns, event.t_ns, tracks.uuid("launches", app), f"{kind} launch", {})
