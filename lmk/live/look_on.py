"""Frames of ``lmk top`` from a device, by looking on: nothing is armed, nothing stopped, nobody signalled.

The helper runs under a name of its own, beside whatever ``lmk run`` may have started, in its dry-run mode (it refuses
to signal) and without a fail-safe. It gives the kernel's memory files and the process table; what lmkd would make of
them is computed here, with the thresholds the device's own properties give. Kills are read from the device's log.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from lmk.device.adb import AdbDevice
from lmk.device.helper import HelperStream, start_helper
from lmk.device.helper_messages import Hello, Sample, SettingsDone
from lmk.device.helper_requests import GetSample, Settings, Stop
from lmk.device.helper_types import FailsafeMode, FileId, SettingsFlag, TableRow, TableWhich
from lmk.errors import DeviceLostError, HelperError
from lmk.live.files import SAMPLE_FILES, SAMPLE_MASK, SampledFiles
from lmk.live.stock import logged_kills, read_properties, stock_lmkd_runs
from lmk.live.takeover import is_managed
from lmk.policy.lmkd.look import Looker
from lmk.policy.lmkd.params import load_params
from lmk.policy.lmkd.versions import behaviour
from lmk.procfs.psi import parse_pressure
from lmk.record.schema import CounterRow
from lmk.report.timeline import stall_in_window_ms
from lmk.report.top_frame import Frame, LastKill, Running, gauges, tier_rows
from lmk.units import NS_PER_S

HELPER_NAME = "lmk-helper-top"
_MASK = SAMPLE_MASK | 1 << FileId.ZONEINFO
#: Samples kept for the stall within a window.
_SAMPLES = 40
#: The log is read from its beginning each time: not with every frame.
_LOG_EVERY = 5
_KILLS = 30


@attrs.frozen(kw_only=True)
class Sight:
    """A device as an onlooker needs it: its helper, its properties, and the kills in its log."""

    connect: Callable[[], HelperStream]
    properties: dict[str, str]
    #: those since the helper's hello
    kills: Callable[[Hello], Sequence[Mapping[str, Any]]]


def adb_sight(adb: AdbDevice) -> Sight:
    """A real device; the helper is started when it is needed."""
    return Sight(
        connect=lambda: start_helper(adb, name=HELPER_NAME).connect(),
        properties=read_properties(adb),
        kills=lambda hello: logged_kills(adb, hello),
    )


class LiveFrames:
    """A context manager; ``frame`` takes a new sample. ``android`` chooses the lmkd whose rules are shown."""

    def __init__(self, sight: Sight, name: str, android: str) -> None:
        self._sight, self._name, self._android = sight, name, android
        self._behaviour = behaviour(android)
        self._params = load_params(sight.properties, self._behaviour)
        self._own_lmkd = stock_lmkd_runs(sight.properties)
        self._samples: deque[CounterRow] = deque(maxlen=_SAMPLES)
        self._kills: tuple[LastKill, ...] = ()
        self._frames = 0

    def __enter__(self) -> LiveFrames:
        self._stream: HelperStream = self._sight.connect()
        settings = Settings(failsafe_mode=FailsafeMode.OFF, sample_files=_MASK, flags=SettingsFlag.DRY_RUN)
        self._stream.request(settings, SettingsDone)
        self._looker = Looker(self._params, self._behaviour, self._stream.hello.page_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(DeviceLostError, HelperError):
            self._stream.done(Stop(handback=0))
        self._stream.close()

    def frame(self, status: str, keys: str) -> Frame:
        """The device now. DeviceLostError, HelperError."""
        sample = self._stream.request(GetSample(files=_MASK), Sample)
        files = SampledFiles.of(sample)
        texts = {path: text for path, ident in SAMPLE_FILES.items() if (text := files.text(ident)) is not None}
        stalls = self._stalls(sample.begin_ns, texts.get("/proc/pressure/memory"))
        look = self._looker.look(sample.begin_ns, texts)
        rows = [row for row in self._stream.table(TableWhich.ALL) if is_managed(row)]
        if self._frames % _LOG_EVERY == 0:
            hello = self._stream.hello
            self._kills = tuple(_logged(kill, hello) for kill in self._sight.kills(hello)[-_KILLS:])
        self._frames += 1
        page_kib = self._stream.hello.page_bytes // 1024
        return Frame(
            title=f"lmk top  {self._name}, thresholds of lmkd in Android {self._android}",
            status=status,
            gauges=gauges(look, stalls, self._params, self._behaviour),
            tiers=tier_rows((_running(row, page_kib) for row in rows), self._params, self._behaviour),
            kills=self._kills,
            notes=self._notes(texts),
            keys=keys,
        )

    def _notes(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        notes = []
        if not self._own_lmkd:
            notes.append("no lmkd of the device's own is running: shown is what one would compare")
        if "/proc/pressure/memory" not in texts:
            notes.append("the kernel gives no memory pressure (PSI)")
        return tuple(notes)

    def _stalls(self, t_ns: int, text: str | None) -> tuple[float | None, float | None]:
        pressure = parse_pressure(text or "")
        self._samples.append(
            CounterRow(
                t_ns=t_ns,
                psi_some_us=pressure.some.total_us if pressure else None,
                psi_full_us=pressure.full.total_us if pressure and pressure.full else None,
            )
        )
        window_ms = self._params.psi_window_size_ms
        some, full = (stall_in_window_ms(self._samples, f"psi_{kind}_us", window_ms)[-1] for kind in ("some", "full"))
        return some, full


def _running(row: TableRow, page_kib: int) -> Running:
    """ActivityManager's order of registration is not in /proc; the oldest process stands for it, as in a take-over."""
    return Running(
        pid=row.pid,
        name=row.name or f"pid {row.pid}",
        adj=row.oom_score_adj,
        order=row.start_ticks,
        rss_kib=row.rss_pages * page_kib if row.rss_pages >= 0 else None,
    )


def _logged(kill: Mapping[str, Any], hello: Hello) -> LastKill:
    at_ns = kill.get("t_ns")
    return LastKill(
        t_s=None if at_ns is None else (at_ns - hello.now_ns) / NS_PER_S,
        name=str(kill.get("name") or f"pid {kill.get('pid')}"),
        adj=kill.get("oom_score_adj"),
        reason=str(kill.get("reason") or ""),
    )
