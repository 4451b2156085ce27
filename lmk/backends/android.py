"""What a real Android image needs before a run: boot completed, root, a permissive domain, the RAM that was asked for.

Each step says what it found, so that ``lmk doctor --target`` can show them one by one. SELinux is put back at the end;
the device's own lmkd is stopped and started again by the run itself (``lmk.live.session``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import attrs

from lmk.backends.qemu_args import check_mem_total
from lmk.device.adb import AdbDevice
from lmk.errors import BootError, DeviceLostError, LmkError
from lmk.procfs.meminfo import parse_meminfo
from lmk.progress import Progress, silent

#: A cold boot of a system image without KVM takes minutes.
BOOT_TIMEOUT_S = 600.0
#: adbd starts anew as root.
ROOT_TIMEOUT_S = 30.0
_POLL_S = 1.0


@attrs.define(kw_only=True)
class Prepared:
    """A device ready for a run; ``restore`` puts back what was changed."""

    adb: AdbDevice
    enforcing: bool = False

    def restore(self) -> None:
        """SELinux as it was. Never raises: the device may be gone."""
        if not self.enforcing:
            return
        try:
            self.adb.shell("setenforce 1")
        except LmkError:
            return


@attrs.frozen(kw_only=True)
class Step:
    """One thing to do on the way; ``do`` returns what was found. Raises an LmkError that names the remedy."""

    name: str
    do: Callable[[], str]


def steps(prepared: Prepared, memory_bytes: int | None, *, timeout_s: float = BOOT_TIMEOUT_S) -> Iterator[Step]:
    """All steps in order. ``memory_bytes``: what MemTotal must be close to; None: any."""
    adb = prepared.adb
    yield Step(name="adb answers", do=lambda: _online(adb, timeout_s))
    yield Step(name="boot completed", do=lambda: wait_boot(adb, timeout_s))
    yield Step(name="root", do=lambda: become_root(adb, ROOT_TIMEOUT_S))
    yield Step(name="SELinux permissive", do=lambda: make_permissive(prepared))
    yield Step(name="memory", do=lambda: check_memory(adb, memory_bytes))


def prepare(adb: AdbDevice, memory_bytes: int | None, progress: Progress = silent) -> Prepared:
    """Take every step. BootError, DeviceLostError; what was changed until then is put back."""
    prepared = Prepared(adb=adb)
    try:
        for step in steps(prepared, memory_bytes):
            progress(step.name, None)
            step.do()
    except BaseException:
        prepared.restore()
        raise
    return prepared


def _online(adb: AdbDevice, timeout_s: float) -> str:
    adb.wait_online(timeout_s)
    return adb.serial


def wait_boot(adb: AdbDevice, timeout_s: float) -> str:
    """Until Android says that it has booted. BootError at the deadline."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            if adb.getprop("sys.boot_completed") == "1":
                return f"Android {adb.getprop('ro.build.version.release') or '?'}"
        except DeviceLostError:
            adb.wait_online(max(1.0, end_s - time.monotonic()))
        if time.monotonic() > end_s:
            raise BootError(
                f"{adb.serial}: sys.boot_completed is not 1 after {timeout_s:.0f} s", "see its screen or `adb logcat`"
            )
        time.sleep(_POLL_S)


def become_root(adb: AdbDevice, timeout_s: float) -> str:
    """``adb root``: adbd starts anew as root, on userdebug and eng images. DeviceLostError where it refuses."""
    end_s = time.monotonic() + timeout_s
    if adb.check_shell("id -u").strip() == "0":
        return "adbd runs as root"
    said = adb.service("root:", timeout_s).strip()
    while time.monotonic() < end_s:
        # The old adbd may answer once more before it goes.
        time.sleep(min(_POLL_S, 0.5))
        try:
            adb.wait_online(max(0.1, end_s - time.monotonic()))
            if adb.check_shell("id -u").strip() == "0":
                return "adbd was started anew as root"
        except DeviceLostError:
            continue
    raise DeviceLostError(
        f"{adb.serial}: adb root: {said or 'adbd did not come back as root'}", "use a userdebug image"
    )


def make_permissive(prepared: Prepared) -> str:
    """lmk's helper needs a domain that may arm PSI triggers and signal everybody. BootError if that is refused."""
    adb = prepared.adb
    found = adb.shell("getenforce").stdout.strip()
    if found != "Enforcing":
        return found or "no SELinux"
    result = adb.shell("setenforce 0")
    if result.exit_code != 0 or adb.shell("getenforce").stdout.strip() == "Enforcing":
        raise BootError(
            f"{adb.serial}: SELinux stays enforcing: {(result.stderr or result.stdout).strip()}",
            "use a userdebug image",
        )
    prepared.enforcing = True
    return "was enforcing, permissive now"


def check_memory(adb: AdbDevice, memory_bytes: int | None) -> str:
    """MemTotal against the device config: the Android Emulator raises small sizes without a word. BootError."""
    total_kib = parse_meminfo(adb.check_shell("cat /proc/meminfo")).get("MemTotal")
    if total_kib is None:
        raise BootError(f"{adb.serial}: /proc/meminfo has no MemTotal", "is this an Android device?")
    if memory_bytes is not None:
        check_mem_total(total_kib, memory_bytes)
    return f"{total_kib} KiB"
