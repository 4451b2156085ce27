"""``lmk doctor --target``: every step that a run on this target takes, one by one, with what was found.

Made for those who have the real emulators: it starts the target, gets it ready, pushes the helper, arms a pressure
trigger, kills a process of its own and reaps it, stops and starts the device's lmkd, and puts everything back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs

from lmk.backends.android import Prepared, steps
from lmk.config.device import DeviceConfig
from lmk.device.adb import AdbDevice
from lmk.device.helper import HelperStream, start_helper
from lmk.device.helper_messages import Armed, Killed, Sample, SettingsDone, Signalled, Watched
from lmk.device.helper_requests import Arm, GetSample, Kill, Settings, Stop, Watch
from lmk.device.helper_types import CallState, FailsafeMode, ReapMethod, SettingItem, WatchItem
from lmk.errors import BootError, DeviceLostError, HelperError, LmkError
from lmk.live.devices import ANDROID_KINDS, OpenDevice, TargetName, attach_device, check_target, open_device
from lmk.live.files import SAMPLE_MASK
from lmk.live.intake import REAP_NAMES
from lmk.live.stock import SERVICE, read_properties, stock_lmkd_runs
from lmk.progress import silent

_KILL_TIMEOUT_S = 10.0
_SERVICE_TIMEOUT_S = 10.0


@attrs.frozen(kw_only=True)
class Found:
    """One step. ``remedy`` only of one that failed."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def verify_target(target: TargetName, config: DeviceConfig, folder: Path) -> list[Found]:
    """All steps up to the first that failed. What was started is ended, what was changed is put back."""
    found: list[Found] = []
    opened: list[OpenDevice] = []

    def start() -> str:
        check_target(target, config, confirmed=True)
        # AVD and Cuttlefish get ready while they start; the steps below look at each part again.
        device = open_device(target, config, folder, silent) if target.kind in (*ANDROID_KINDS, "qemu") else None
        opened.append(device if device is not None else attach_device(target))
        return opened[0].adb.serial

    try:
        if _took(found, "starts", start):
            _on_device(found, opened[0].adb, config if target.kind in (*ANDROID_KINDS, "qemu") else None)
    finally:
        for device in opened:
            device.close()
    return found


def _took(found: list[Found], name: str, do: Callable[[], str]) -> bool:
    try:
        said = do()
    except LmkError as error:
        found.append(Found(name=name, ok=False, found=error.cause, remedy=error.remedy or "see the device's log"))
        return False
    found.append(Found(name=name, ok=True, found=said))
    return True


def _on_device(found: list[Found], adb: AdbDevice, config: DeviceConfig | None) -> None:
    prepared = Prepared(adb=adb)
    try:
        for step in steps(prepared, None if config is None else config.memory_bytes, timeout_s=60):
            if not _took(found, step.name, step.do):
                return
        for name, do in _run_steps(adb):
            if not _took(found, name, do):
                return
    finally:
        prepared.restore()


def _run_steps(adb: AdbDevice) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "kernel", lambda: adb.check_shell("uname -r").strip()
    yield "stops and starts the device's lmkd", lambda: _restart_stock(adb)
    streams: list[HelperStream] = []
    yield "helper", lambda: _helper(adb, streams)
    try:
        for name, look in (("a sample", _sample), ("a pressure trigger", _trigger)):
            yield name, partial(look, streams[0])
        yield "kill and reap", partial(_kill, adb, streams[0])
    finally:
        for stream in streams:
            _stop(stream)


def _restart_stock(adb: AdbDevice) -> str:
    if not stock_lmkd_runs(read_properties(adb)):
        return "none runs here"
    adb.check_shell(f"stop {SERVICE}")
    try:
        _wait_service(adb, "stopped")
    finally:
        adb.check_shell(f"start {SERVICE}")
    _wait_service(adb, "running")
    return "stopped, and running again"


def _wait_service(adb: AdbDevice, state: str) -> None:
    end_s = time.monotonic() + _SERVICE_TIMEOUT_S
    while (seen := adb.getprop(f"init.svc.{SERVICE}")) != state:
        if time.monotonic() > end_s:
            raise BootError(f"{SERVICE} is {seen or 'unknown'}, not {state}", "try: adb shell stop lmkd")
        time.sleep(0.2)


def _helper(adb: AdbDevice, streams: list[HelperStream]) -> str:
    stream = start_helper(adb).connect()
    streams.append(stream)
    results = stream.request(Settings(failsafe_mode=FailsafeMode.OFF, sample_files=SAMPLE_MASK), SettingsDone).results
    refused = [SettingItem(item.item).name.lower() for item in results if item.error]
    hello = stream.hello
    calls = {"process_reap": hello.process_reap, "process_mrelease": hello.process_mrelease, "pidfd": hello.pidfd_open}
    present = ", ".join(name for name, state in calls.items() if state == CallState.PRESENT) or "none of the calls"
    if hello.uid != 0:
        raise HelperError(f"the helper runs as uid {hello.uid}", "adb root, on a userdebug image")
    return f"runs as root; the kernel has {present}" + (f"; refused: {', '.join(refused)}" if refused else "")


def _sample(stream: HelperStream) -> str:
    sample = stream.request(GetSample(files=SAMPLE_MASK), Sample)
    unread = [str(file.file) for file in sample.files if file.error]
    if unread:
        raise HelperError(f"files {', '.join(unread)} of a sample cannot be read", "is SELinux permissive?")
    return f"{len(sample.files)} files"


def _trigger(stream: HelperStream) -> str:
    error = stream.request(Arm(slot=0, text="some 200000 1000000"), Armed).error
    if error:
        raise HelperError(f"the kernel refused a PSI trigger (errno {error})", "CONFIG_PSI, root, SELinux permissive")
    stream.send(Arm(slot=0, text=""))
    return "armed"


def _kill(adb: AdbDevice, stream: HelperStream) -> str:
    """A process of our own, so that nobody else's suffers."""
    pid = int(adb.check_shell("sleep 600 >/dev/null 2>&1 </dev/null & echo $!").split()[-1])
    watched = stream.request(Watch(items=(WatchItem(pid=pid, uid=0, oom_score_adj=900),)), Watched).results[0]
    if watched.error:
        raise HelperError(f"no pidfd of process {pid} (errno {watched.error})", "does this kernel have pidfd_open?")
    stream.post(Kill(handle=watched.handle, pid=pid, start_ticks=watched.start_ticks), as_event=True)
    end_s = time.monotonic() + _KILL_TIMEOUT_S
    while (left_s := end_s - time.monotonic()) > 0:
        event = stream.next_event(left_s)
        message = None if event is None else event[1]
        if isinstance(message, Signalled) and message.error:
            raise HelperError(f"the signal was refused (errno {message.error})", "see whether SELinux is permissive")
        if isinstance(message, Killed):
            method = REAP_NAMES[ReapMethod(message.method)]
            said = f"errno {message.reap_error}" if message.reap_error else "0"
            return f"signalled, then {method} answered {said}"
    raise DeviceLostError("nothing was heard of the kill", "see the device's log")


def _stop(stream: HelperStream) -> None:
    try:
        stream.done(Stop(handback=0))
    except LmkError:
        pass
    finally:
        stream.close()
