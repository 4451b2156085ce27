"""Boot a kernel with next to nothing, run one shell script in it, hand back what it printed. Two or three seconds.

The guest is the host's static busybox and the files given; no disk, no network. For tests of the kernel itself, where
a whole Android-like guest would only be in the way.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from lmk import subproc
from lmk.errors import BootError, HostError, InfraError
from lmk.guest.cpio import CpioTree
from lmk.kernel.cache import KernelImage

_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_BEGIN, _END, _CLOCK = "==== trial begins", "==== trial ended with", "==== clock"
#: What the check of the clock takes; it is off by a factor, if at all, and lines may come somewhat late.
_CLOCK_S, _CLOCK_OFF_MAX = 2, 0.4
_BOOTS_MAX = 5
_INIT = f"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /mnt /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
if test -e /check-clock; then
  echo "{_CLOCK} $(cut -d' ' -f1 /proc/uptime)"
  sleep {_CLOCK_S}
  echo "{_CLOCK} $(cut -d' ' -f1 /proc/uptime)"
fi
echo '{_BEGIN}'
sh /trial.sh
echo "{_END} $?"
poweroff -f
"""
#: Machine and kernel command line per architecture. no_timer_check: the kernel waits ten ticks for timer interrupts,
#: and panics where a busy host lets none through in that time.
_MACHINES = {
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86", ("-machine", "q35"), "console=ttyS0 no_timer_check"),
    "arm64": ("qemu-system-aarch64", "qemu-system-arm", ("-machine", "virt", "-cpu", "max"), "console=ttyAMA0"),
}
#: For a guest that has nothing to do and a CPU of its own.
_TRY_TIMEOUT_S = 30.0
SOFTWARE = ("-accel", "tcg,thread=multi")


@attrs.frozen(kw_only=True)
class TrialResult:
    """``output``: what the script printed; ``console``: everything, kernel messages included."""

    exit_code: int
    output: str
    console: str


def trial_initrd(script: str, files: Mapping[str, bytes], busybox: bytes) -> bytes:
    """The initramfs: busybox, ``files`` (absolute path to content, all executable) and the script."""
    tree = CpioTree()
    for directory in ("proc", "sys", "dev", "tmp", "mnt"):
        tree.add_dir(directory)
    tree.add_file("bin/busybox", busybox, 0o755)
    tree.add_file("init", _INIT.encode(), 0o755)
    tree.add_file("trial.sh", script.encode(), 0o755)
    for path, data in files.items():
        tree.add_file(path, data, 0o755)
    return gzip.compress(tree.archive(), compresslevel=1, mtime=0)


def run_trial(
    kernel: KernelImage,
    script: str,
    files: Mapping[str, bytes],
    *,
    memory_mib: int = 1024,
    cpus: int = 2,
    timeout_s: float = 180.0,
    silence_s: float | None = None,
    command_line: str = "",
    accel: Sequence[str] = SOFTWARE,
    busybox: Path | None = None,
    check_clock: bool = True,
    on_line: Callable[[str], None] = lambda _: None,
) -> TrialResult:
    """Run ``script`` (by busybox sh) in a guest; BootError with the console's tail if it does not get to its end.

    ``busybox`` must be given where the guest's architecture is not the host's. ``on_line`` sees each line of the
    console as it comes. InfraError when the guest did not end within ``timeout_s``, or printed nothing for
    ``silence_s``. ``check_clock``: boot again if the guest's seconds are not the host's (x86_64 only).
    """
    program, package, machine, boot_line = _MACHINES[kernel.arch]
    qemu = subproc.require_tool(program, package)
    chosen = busybox or next((path for path in _BUSYBOX if path.is_file()), None)
    if chosen is None:
        raise HostError("busybox is not installed", "install it with: apt-get install busybox-static")
    with tempfile.TemporaryDirectory(prefix="lmk-trial-") as directory:
        initrd = Path(directory) / "initrd"
        check_clock = check_clock and kernel.arch == "x86_64"
        files = {**files, **({"/check-clock": b""} if check_clock else {})}
        initrd.write_bytes(trial_initrd(script, files, chosen.read_bytes()))
        arguments = [
            *(qemu, *machine, *accel, "-smp", str(cpus), "-m", str(memory_mib)),
            *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernel.image), "-initrd", str(initrd)),
            *("-append", f"{boot_line} panic=-1 loglevel=5 {command_line}".strip()),
        ]
        text = _boot_until_clock_is_right(arguments, timeout_s=timeout_s, silence_s=silence_s, on_line=on_line)
    begin = text.find(_BEGIN)
    end = re.search(re.escape(_END) + r" (\d+)", text)
    if begin < 0 or end is None:
        raise BootError(
            f"the trial on kernel {kernel.release} did not get to its end",
            "see the console's last lines below",
            detail="\n".join(text.splitlines()[-40:]),
        )
    return TrialResult(exit_code=int(end[1]), output=text[begin + len(_BEGIN) + 1 : end.start()], console=text)


def try_trial(kernel: KernelImage, accel: Sequence[str]) -> str:
    """Why a trial that does nothing did not get to its end; empty if it did (``lmk.backends.accel.settle_accel``)."""
    try:
        run_trial(kernel, "true", {}, accel=accel, timeout_s=_TRY_TIMEOUT_S, check_clock=False)
    except (BootError, InfraError) as error:
        return error.cause
    return ""


class ClockError(InfraError):
    """The guest measured the frequency of its CPU's counter wrongly, and all its times are off by some factor.

    An emulated CPU that the host does not let run while Linux compares counter and timer has been seen to take
    2.6 GHz for 0.2.
    """


def clock_checked(on_line: Callable[[str], None], now_s: Callable[[], float]) -> Callable[[str], None]:
    """``on_line`` with a look at the lines that tell the guest's time: ClockError if that is not the host's."""
    seen: list[tuple[float, float]] = []

    def look(line: str) -> None:
        on_line(line)
        match = re.search(rf"{_CLOCK} (\d+\.\d+)$", line)
        if match is None:
            return
        seen.append((now_s(), float(match[1])))
        if len(seen) == 2:
            (host_begin_s, begin_s), (host_end_s, end_s) = seen
            factor = (end_s - begin_s) / max(host_end_s - host_begin_s, 0.01)
            if not 1 - _CLOCK_OFF_MAX <= factor <= 1 / (1 - _CLOCK_OFF_MAX):
                raise ClockError(
                    f"the guest's clock runs at {factor:.2g} times the host's",
                    "see whether the machine is overloaded",
                )

    return look


def _boot_until_clock_is_right(
    arguments: Sequence[str], *, timeout_s: float, silence_s: float | None, on_line: Callable[[str], None]
) -> str:
    for boot in range(1, _BOOTS_MAX + 1):
        try:
            looking = clock_checked(on_line, time.monotonic)
            return console_of(arguments, timeout_s=timeout_s, silence_s=silence_s, on_line=looking)
        except ClockError:
            if boot == _BOOTS_MAX:
                raise
    raise AssertionError


class _Watchdog:
    """Stops a process when its time is over, or when nothing has been heard of it for too long; says why in ``reason``.

    Seconds are counted by a thread of ours: while this process itself is stopped or frozen no time passes.
    """

    def __init__(self, process: subproc.Process, timeout_s: float, silence_s: float | None) -> None:
        self.reason = ""
        self._process = process
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._heard = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def heard(self) -> None:
        """The process said something."""
        self._heard.set()

    def end(self) -> None:
        """Nothing is left to watch."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        passed_s = silent_s = 0
        while not self._ended.wait(1.0):
            passed_s += 1
            silent_s = 0 if self._heard.is_set() else silent_s + 1
            self._heard.clear()
            if passed_s >= self._timeout_s:
                self.reason = f"the guest did not end within {self._timeout_s:.0f} s"
            elif self._silence_s is not None and silent_s >= self._silence_s:
                self.reason = f"the guest's console was silent for {self._silence_s:.0f} s"
            if self.reason:
                subproc.stop(self._process)
                return


def console_of(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    silence_s: float | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> str:
    """Run QEMU to its end; everything on its console."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as sink:
        process = subproc.spawn_tied(arguments, stdout=sink, nice=5)
    watchdog = _Watchdog(process, timeout_s, silence_s)
    lines: list[str] = []
    with os.fdopen(reader, "rb") as console:
        try:
            for raw in console:
                watchdog.heard()
                lines.append(raw.decode(errors="replace").replace("\r", "").rstrip("\n"))
                on_line(lines[-1])
            process.wait()
        finally:
            watchdog.end()
            subproc.stop(process)
    if watchdog.reason:
        raise InfraError(
            watchdog.reason,
            "see whether the machine is overloaded; the console's last lines are below",
            detail="\n".join(lines[-40:]),
        )
    return "\n".join(lines) + "\n"
