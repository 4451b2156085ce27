"""One live run from start to end: device, helper, apps, policy, record; everything is put away whatever happens."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from lmk import __version__, subproc
from lmk.backends.bundle import Bundle
from lmk.backends.hostload import HostLoad
from lmk.backends.qemu import QemuGuest
from lmk.config.device import DeviceConfig
from lmk.config.scenario import Scenario
from lmk.config.timeline import Timeline
from lmk.device.adb import AdbDevice
from lmk.device.apprunner import AppRunner
from lmk.device.helper import HelperStream, start_helper
from lmk.device.helper_messages import Ran, SettingsDone
from lmk.device.helper_requests import Run, Settings
from lmk.device.helper_types import FailsafeMode, SettingItem, SettingsFlag
from lmk.engine.kills import KillJournal
from lmk.engine.loop import run_policy
from lmk.engine.observer import Observers, RecordingObserver
from lmk.live.apps import AppDriver
from lmk.live.clock import DeviceClock
from lmk.live.devices import OpenDevice, TargetName, open_device, with_config
from lmk.live.files import CANDIDATES, SAMPLE_MASK, VMSTAT_NAMES, candidate_fields
from lmk.live.listener import RunListener
from lmk.live.steady import SteadyStream
from lmk.live.stock import SERVICE, find_memcg, logged_kills, read_properties, stock_lmkd_runs, transport_cpus
from lmk.live.takeover import TakenTable
from lmk.live.target import LiveTarget, reap_method
from lmk.live.watcher import Watcher
from lmk.policy.api import Policy
from lmk.policy.lmkd.params import load_params
from lmk.policy.lmkd.versions import behaviour
from lmk.record.schema import KillRow
from lmk.record.writer import RecordWriter
from lmk.recorded import record_run

#: A decision must not wait for the interpreter to switch threads (5 ms by default).
_SWITCH_INTERVAL_S = 0.00005


@attrs.frozen(kw_only=True)
class Plan:
    """A run as asked for, checked. ``make_policy`` gets nothing: a policy asks the device for its properties."""

    config: DeviceConfig
    scenario: Scenario
    timeline: Timeline
    target: TargetName
    policy_name: str
    make_policy: Callable[[], Policy]
    dry_run: bool
    run_dir: Path
    #: A fault put in on purpose: every SIGKILL is held back for so long.
    kill_delay_ms: int = 0
    #: Boot its kernel and guest instead of building any.
    bundle: Bundle | None = None
    #: Told the device time (ns) at which the scenario begins, as soon as it does.
    on_started: Callable[[int], None] = lambda _: None


def run_live(plan: Plan, watcher: Watcher) -> dict[str, Any]:
    """Do it; returns the JSON object of the run. The record is complete up to any failure, which is raised."""
    return record_run(plan.run_dir, _facts(plan), plan.scenario, lambda writer: _Session(plan, writer, watcher).run())


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "lmk_version": __version__,
        "config": plan.config.name,
        "android": plan.config.android,
        "scenario": plan.scenario.name,
        "scenario_text": Path(plan.scenario.path).read_text(),
        "policy": plan.policy_name,
        "dry_run": plan.dry_run,
        "seed": plan.timeline.seed,
        "target": str(plan.target),
        "properties": dict(plan.config.properties),
    }


class _Session:
    def __init__(self, plan: Plan, writer: RecordWriter, watcher: Watcher) -> None:
        self._plan = plan
        self._writer = writer
        self._watcher = watcher
        self._clock = DeviceClock()
        self._apps: AppDriver | None = None
        self._candidate_fields = 0

    def run(self) -> str:
        plan, progress = self._plan, self._watcher.progress
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        # What is there by now stays: nobody has to look through it again in the middle of a decision.
        gc.freeze()
        try:
            with contextlib.closing(
                open_device(plan.target, plan.config, plan.run_dir, progress, plan.bundle)
            ) as device:
                pids = own_pids(device)
                for pid in (os.getpid(), *pids):
                    subproc.prefer_latency(pid)
                load = HostLoad(pids)
                why = self._run_on(device.adb)
                result = load.finish()
                self._writer.meta({"host_load": round(result.other_fraction, 3), "disturbed": result.disturbed})
                return why
        finally:
            gc.unfreeze()
            sys.setswitchinterval(before_s)

    def _run_on(self, adb: AdbDevice) -> str:
        plan = self._plan
        self._watcher.progress("starting the helper", None)
        properties = self._properties(adb)
        self._writer.meta({"properties": properties})
        stock = stock_lmkd_runs(properties)
        params = load_params(properties, behaviour(plan.config.android))
        self._candidate_fields = candidate_fields(per_app_memcg=params.per_app_memcg)
        with SteadyStream(self._connector(adb)) as stream, self._taken_over(stream, properties):
            hello = stream.hello
            self._measure_clock(stream)
            self._note_device(adb, stream)
            apps = AppDriver(
                AppRunner(adb, arch=plan.config.arch),
                plan.timeline,
                self._writer,
                self._watcher.app_event,
                plan.on_started,
            )
            self._apps = apps
            journal = KillJournal(self._writer, dry=plan.dry_run, on_kill=self._told_kill)
            listener = RunListener(self._writer, journal, self._still_running)
            target = LiveTarget(
                stream,
                self._clock,
                listener,
                lambda: self._properties(adb),
                memcg=find_memcg(adb),
                candidate_fields=self._candidate_fields,
                dry_run=plan.dry_run,
                kill_delay_ms=plan.kill_delay_ms,
            )
            observer = RecordingObserver(self._writer, target.woke_ns)
            if plan.dry_run or stock:
                taken = TakenTable(stream, target.inject)
                taken.refresh()
                if plan.dry_run:
                    target.follow(taken)
                else:
                    taken.leave()
            self._watcher.progress("starting the apps", None)
            apps.start()
            try:
                why = run_policy(plan.make_policy(), target, Observers(observer, journal))
            finally:
                apps.close()
            self._note_duration(apps)
            if plan.dry_run:
                self._writer.meta({"device_kills": logged_kills(adb, hello)})
            return why

    def _properties(self, adb: AdbDevice) -> dict[str, str]:
        """The device's, with what the config says about killing in their place: the policy is ours, not the image's."""
        return with_config(read_properties(adb), self._plan.config)

    def _connector(self, adb: AdbDevice) -> Callable[[], HelperStream]:
        process = start_helper(adb)
        first = True

        def connect() -> HelperStream:
            nonlocal first
            if not first:
                self._watcher.progress("warning: the helper's stream was lost, connecting again", None)
                adb.recover(5.0)
            first = False
            return process.connect()

        return connect

    @contextlib.contextmanager
    def _taken_over(self, stream: SteadyStream, properties: dict[str, str]) -> Iterator[None]:
        """The device's own lmkd is out of the way meanwhile, and back afterwards."""
        stock = stock_lmkd_runs(properties)
        if stock and not self._plan.dry_run:
            stream.request(Run(argv=("stop", SERVICE)), Ran)
        flags = SettingsFlag.OOM
        flags |= SettingsFlag.DRY_RUN if self._plan.dry_run else SettingsFlag.SERVE_LMKD | SettingsFlag.WRITE_ADJ
        failsafe = FailsafeMode.HANDBACK if stock else FailsafeMode.KILL
        settings = Settings(
            failsafe_mode=FailsafeMode.OFF if self._plan.dry_run else failsafe,
            main_cpus=transport_cpus(properties),
            sample_files=SAMPLE_MASK,
            candidates=CANDIDATES,
            candidate_fields=self._candidate_fields,
            flags=flags,
            vmstat_names=VMSTAT_NAMES,
        )
        results = stream.request(settings, SettingsDone).results
        self._writer.meta({"helper": {SettingItem(x.item).name.lower(): x.error for x in results}})
        try:
            yield
        finally:
            stream.stop(handback=stock and not self._plan.dry_run)

    def _measure_clock(self, stream: SteadyStream) -> None:
        for _ in range(20):
            before_ns = time.monotonic_ns()
            device_ns = stream.ping().now_ns
            self._clock.observe(before_ns, device_ns, time.monotonic_ns())

    def _note_device(self, adb: AdbDevice, stream: SteadyStream) -> None:
        swap_kib = int(adb.check_shell("grep SwapTotal /proc/meminfo").split()[1])
        self._writer.meta(
            {
                "device": {
                    "mem_total_kib": stream.hello.mem_total_kib,
                    "swap_total_kib": swap_kib,
                    "kernel": stream.hello.release,
                    "cpus": stream.hello.cpus,
                    "reap": reap_method(stream.hello),
                    "page_size": stream.hello.page_bytes,
                }
            }
        )

    def _note_duration(self, apps: AppDriver) -> None:
        if apps.zero_ns is not None and apps.done_ns is not None:
            self._writer.meta({"duration_ms": (apps.done_ns - apps.zero_ns) // 1_000_000})

    def _still_running(self) -> str | None:
        assert self._apps is not None
        zero_ns = self._apps.zero_ns
        if zero_ns is not None:
            done_ms = (self._clock.now_ns() - zero_ns) // 1_000_000
            self._watcher.playing(min(done_ms, self._plan.timeline.duration_ms), self._plan.timeline.duration_ms)
        return self._apps.outcome()

    def _told_kill(self, row: KillRow) -> None:
        self._watcher.kill(row, (self._apps.zero_ns if self._apps else None) or row.t_ns)


def own_pids(device: OpenDevice) -> list[int]:
    """Long-lived children of ours that a device stands on; their load is not somebody else's."""
    if isinstance(device, QemuGuest):
        server = device.adb_server.pid
        return [device.pid, *([server] if server is not None else [])]
    return []
