"""Observe a device that runs its own lmkd: samples, process table, kills as they happen, without interfering.

The same daemon that ``lmk run`` drives looks on: it arms its own PSI triggers, reads the same files at the same moments
and decides, but signals nobody (the helper refuses to, too). So the record answers what that device's settings see, and
``lmk replay`` can ask it about others. Who really died comes from the device's log.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from lmk import __version__
from lmk.device.adb import AdbDevice
from lmk.device.helper import HelperStream, start_helper
from lmk.device.helper_messages import SettingsDone
from lmk.device.helper_requests import Settings
from lmk.device.helper_types import FailsafeMode, FileId, SettingItem, SettingsFlag, TableRow, TableWhich
from lmk.engine.kills import KillJournal
from lmk.engine.loop import run_policy
from lmk.engine.observer import Observers, RecordingObserver
from lmk.engine.target import RunOver
from lmk.errors import DeviceLostError, LmkError
from lmk.live.clock import DeviceClock
from lmk.live.files import CANDIDATES, SAMPLE_MASK, SampledFiles, candidate_fields
from lmk.live.listener import RunListener
from lmk.live.log_follow import LOG_COMMAND, LogFollower
from lmk.live.steady import RECONNECT_S, SteadyStream
from lmk.live.stock import find_memcg, read_properties, stock_lmkd_runs
from lmk.live.takeover import TakenTable
from lmk.live.target import LiveTarget, reap_method
from lmk.live.watcher import Watcher
from lmk.logs.importing import kill_row, write_death
from lmk.logs.merge import NEAR_NS, Death, Told, merge
from lmk.logs.report import KILLERS
from lmk.policy import api
from lmk.policy.lmkd.params import load_params
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import behaviour
from lmk.procfs.psi import parse_pressure
from lmk.record.schema import EventRow
from lmk.record.writer import RecordWriter
from lmk.replay.triggers import SampledTrigger
from lmk.units import NS_PER_MS

#: How often the process table is looked through.
_TABLE_S = 1.0
#: A process is noted again when its size has moved by so much.
_MOVED_SHARE, _MOVED_KIB = 0.1, 2048


@attrs.frozen(kw_only=True)
class Ports:
    """The device as an observation needs it; ``open_log`` gives the bytes of its log."""

    connect: Callable[[], HelperStream]
    properties: Callable[[], Mapping[str, str]]
    memcg: api.Memcg
    open_log: Callable[[], socket.socket]
    #: A device that has not come back by then is lost.
    reconnect_s: float = RECONNECT_S


def adb_ports(adb: AdbDevice) -> Ports:
    """A real device. Starts the helper; DeviceLostError, HelperError."""
    process = start_helper(adb)
    return Ports(
        connect=process.connect,
        properties=lambda: read_properties(adb),
        memcg=find_memcg(adb),
        open_log=lambda: adb.open_output(LOG_COMMAND),
    )


class Observation:
    """One recording; ``run`` until the duration is over, somebody interrupts, or the device is lost."""

    def __init__(
        self, ports: Ports, android: str, writer: RecordWriter, watcher: Watcher, *, duration_s: float | None
    ) -> None:
        self._ports = ports
        self._android = android
        self._writer = writer
        self._watcher = watcher
        self._duration_s = duration_s
        self._clock = DeviceClock()
        self._begin_ns = 0
        self._notes: list[str] = []
        self._told: list[Told] = []
        self._kills: dict[int, tuple[int, int]] = {}
        self._processes: dict[tuple[int, int], tuple[int, int]] = {}
        self._looked_s = 0.0
        self._stream: SteadyStream | None = None
        self._log: LogFollower | None = None

    def run(self) -> str:
        """Why it ended. LmkError if the device was lost: the record is complete up to then."""
        properties = self._ports.properties()
        stock = stock_lmkd_runs(dict(properties))
        params = load_params(properties, behaviour(self._android))
        fields = candidate_fields(per_app_memcg=params.per_app_memcg)
        with SteadyStream(self._ports.connect, reconnect_s=self._ports.reconnect_s) as stream:
            self._stream = stream
            self._settle(stream, fields)
            offset_ns = self._measure_clock(stream)
            self._writer.meta({"zero_ns": self._begin_ns, "properties": dict(properties), **self._device(stream)})
            if not stock:
                self._notes.append("no lmkd of the device's own is running: nobody but the kernel will kill")
            self._follow_log(offset_ns)
            try:
                return self._look_on(stream, fields)
            finally:
                self._finish()
                stream.stop(handback=False)

    def _settle(self, stream: SteadyStream, fields: int) -> None:
        settings = Settings(
            failsafe_mode=FailsafeMode.OFF,
            sample_files=SAMPLE_MASK,
            candidates=CANDIDATES,
            candidate_fields=fields,
            flags=SettingsFlag.MEMEVENTS | SettingsFlag.OOM | SettingsFlag.DRY_RUN,
        )
        results = stream.request(settings, SettingsDone).results
        refused = {SettingItem(x.item).name.lower(): x.error for x in results if x.error}
        self._writer.meta({"helper": {SettingItem(x.item).name.lower(): x.error for x in results}})
        if stream.hello.uid != 0:
            self._notes.append(
                f"the helper runs as uid {stream.hello.uid}, not as root (adb root): other users' processes may be "
                f"unreadable; refused so far: {', '.join(sorted(refused)) or 'nothing'}"
            )

    def _measure_clock(self, stream: SteadyStream) -> int:
        """Monotonic minus wall time of the device, from its fastest answer."""
        best_ns, offset_ns = 1 << 62, 0
        for _ in range(10):
            before_ns = time.monotonic_ns()
            pong = stream.ping()
            after_ns = time.monotonic_ns()
            self._clock.observe(before_ns, pong.now_ns, after_ns)
            if after_ns - before_ns < best_ns:
                best_ns, offset_ns = after_ns - before_ns, pong.now_ns - pong.realtime_ns
        self._begin_ns = self._clock.now_ns()
        return offset_ns

    def _device(self, stream: SteadyStream) -> dict[str, Any]:
        hello = stream.hello
        return {
            "device": {
                "mem_total_kib": hello.mem_total_kib,
                "swap_total_kib": None,
                "kernel": hello.release,
                "cpus": hello.cpus,
                "reap": reap_method(hello),
                "page_size": hello.page_bytes,
            }
        }

    def _follow_log(self, offset_ns: int) -> None:
        try:
            self._log = LogFollower(self._ports.open_log, offset_ns, self._begin_ns)
        except DeviceLostError as error:
            self._notes.append(f"the device's log cannot be read, so its kills are not seen: {error.cause}")

    def _look_on(self, stream: SteadyStream, fields: int) -> str:
        journal = KillJournal(self._writer, dry=True)
        listener = _Listener(self._writer, journal, self._housekeeping)
        target = _OnlyLooking(
            stream, self._clock, listener, self._ports.properties, memcg=self._ports.memcg,
            candidate_fields=fields, dry_run=True,
        )  # fmt: skip
        table = TakenTable(stream, target.inject)
        table.refresh()
        target.follow(table)
        self._look_at_table()
        observers = Observers(RecordingObserver(self._writer, target.woke_ns), journal)
        why = run_policy(LmkdPolicy(self._android), target, observers)
        self._notes.extend(target.notes)
        if target.over:
            return why
        # lmkd gave up on this device; the samples go on without it.
        self._notes.append(
            f"lmk's lmkd ended on this device ({why}): only samples and the device's own kills are recorded"
        )
        while not isinstance(over := target.answer(api.Wait(None)), RunOver):
            continue
        return over.why

    def _housekeeping(self) -> str | None:
        now_s = time.monotonic()
        if now_s - self._looked_s >= _TABLE_S:
            self._look_at_table()
        self._take_news()
        elapsed_ms = (self._clock.now_ns() - self._begin_ns) // NS_PER_MS
        if self._duration_s is None:
            self._watcher.playing(elapsed_ms, 0)
            return None
        total_ms = int(self._duration_s * 1000)
        self._watcher.playing(min(elapsed_ms, total_ms), total_ms)
        return "the duration is over" if elapsed_ms >= total_ms else None

    def _look_at_table(self) -> None:
        assert self._stream is not None
        self._looked_s = time.monotonic()
        rows = [row for row in self._stream.table(TableWhich.ALL) if row.rss_pages > 0]
        page_kib = self._stream.hello.page_bytes // 1024
        changed = [row for row in rows if self._moved(row, page_kib)]
        living = {(row.pid, row.start_ticks) for row in rows}
        self._processes = {key: seen for key, seen in self._processes.items() if key in living}
        if changed:
            body = {"rows": [_row(row, page_kib) for row in changed]}
            self._writer.device_event(EventRow(t_ns=self._clock.now_ns(), kind="processes", body=body))

    def _moved(self, row: TableRow, page_kib: int) -> bool:
        key, rss_kib = (row.pid, row.start_ticks), row.rss_pages * page_kib
        adj, seen_kib = self._processes.get(key, (None, 0))
        moved = abs(rss_kib - seen_kib)
        if adj == row.oom_score_adj and moved < max(_MOVED_KIB, seen_kib * _MOVED_SHARE):
            return False
        self._processes[key] = row.oom_score_adj, rss_kib
        return True

    def _take_news(self) -> None:
        for told in self._log.news() if self._log is not None else ():
            self._told.append(told)
            pid = told.report.pid
            if told.report.kind not in KILLERS or pid is None:
                continue
            if pid in self._kills and told.ns - self._kills[pid][0] <= NEAR_NS:
                continue
            row = kill_row(Death(told=[told]))
            self._kills[pid] = told.ns, self._writer.kill(row)
            self._watcher.kill(row, self._begin_ns)

    def _finish(self) -> None:
        if self._log is not None:
            if self._log.ended:
                self._notes.append(f"the device's log ended early: {self._log.ended}")
            scan = self._log.close()
            self._take_news()
            for line in scan.unknown:
                body = {"place": f"logcat:{line.line}", "why": line.why, "text": line.text}
                self._writer.device_event(EventRow(t_ns=self._begin_ns, kind="unknown_line", body=body))
        deaths = merge(self._told)
        for death in deaths:
            pid = death.first("pid")
            known = self._kills.get(pid) if isinstance(pid, int) else None
            near = known is not None and abs(known[0] - death.t_ns) <= NEAR_NS
            write_death(self._writer, death, ["logcat"], known[1] if known is not None and near else None)
        kills = [kill_row(death) for death in deaths if death.killer in KILLERS.values()]
        self._writer.meta(
            {
                "device_kills": [
                    {
                        "t_ns": k.t_ns,
                        "pid": k.pid,
                        "name": k.name,
                        "uid": k.uid,
                        "oom_score_adj": k.oom_score_adj,
                    }
                    for k in kills
                ],
                "duration_ms": (self._clock.now_ns() - self._begin_ns) // NS_PER_MS,
                "notes": list(self._notes),
            }
        )


def observe(
    ports: Callable[[], Ports], facts: Mapping[str, Any], run_dir: Path, watcher: Watcher, duration_s: float | None
) -> None:
    """Record into ``run_dir``; ``facts``: meta keys known before, ``android`` among them.

    Ctrl-C ends it like the end of the duration. LmkError if the device is lost, with the record complete up to then.
    """
    with RecordWriter(run_dir) as writer:
        writer.meta({"lmk_version": __version__, "dry_run": True, "policy": "lmkd", **facts})
        why, complete = "cut short", False
        try:
            observation = Observation(ports(), str(facts["android"]), writer, watcher, duration_s=duration_s)
            why, complete = observation.run(), True
        except KeyboardInterrupt:
            why, complete = "stopped with Ctrl-C", True
        except LmkError as error:
            why = error.cause
            raise
        finally:
            writer.meta({"complete": complete, "why": why})


class _Listener(RunListener):
    """Pressure events of triggers that the kernel refused, from the samples."""

    def __init__(self, writer: RecordWriter, journal: KillJournal, still_running: Callable[[], str | None]) -> None:
        super().__init__(writer, journal, still_running)
        self.refused: dict[int, SampledTrigger] = {}
        self.inject: Callable[[api.Event], None] = lambda _: None

    def sampled(self, t_ns: int, files: SampledFiles) -> None:
        """See ``Listener``."""
        super().sampled(t_ns, files)
        pressure = parse_pressure(files.text(FileId.PSI_MEMORY) or "") if self.refused else None
        if pressure is None:
            return
        full_us = pressure.full.total_us if pressure.full else None
        # The newest first, as the kernel tells them (lmk.live.intake).
        for level, trigger in reversed(self.refused.items()):
            if trigger.offer(t_ns, pressure.some.total_us, full_us):
                self.inject(api.PressureEvent(level))


class _OnlyLooking(LiveTarget):
    """A device on which a refused PSI trigger does not end the daemon. ``over``: the recording has ended."""

    def __init__(
        self, stream: SteadyStream, clock: DeviceClock, listener: _Listener, *args: Any, **options: Any
    ) -> None:
        super().__init__(stream, clock, listener, *args, **options)
        self._refused = listener.refused
        listener.inject = self.inject
        self.notes: list[str] = []
        self.over = False

    def answer(self, request: api.Request) -> object:
        """See ``Target.answer``."""
        found = super().answer(request)
        if isinstance(request, api.ArmPsi) and isinstance(found, api.FileError):
            self._refused[request.level] = SampledTrigger(request.text)
            self.notes.append(
                f"the kernel refused the pressure trigger '{request.text}' (errno {found.errno}): its events are "
                "computed from samples"
            )
            return None
        self.over = self.over or isinstance(found, RunOver)
        return found


def _row(row: TableRow, page_kib: int) -> dict[str, Any]:
    return {
        "pid": row.pid, "uid": row.uid, "oom_score_adj": row.oom_score_adj, "rss_kib": row.rss_pages * page_kib,
        "name": row.name, "start_ticks": row.start_ticks,
    }  # fmt: skip
