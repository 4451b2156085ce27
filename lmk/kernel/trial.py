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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from lmk import subproc
from lmk.errors import BootError, HostError, InfraError
from lmk.guest.cpio import CpioTree
from lmk.kernel.cache import KernelImage

_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_BEGIN, _END = "==== trial begins", "==== trial ended with"
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
echo '{_BEGIN}'
sh /trial.sh
echo "{_END} $?"
poweroff -f
"""
#: Machine and console per architecture.
_MACHINES = {
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86", ("-machine", "q35"), "ttyS0"),
    "arm64": ("qemu-system-aarch64", "qemu-system-arm", ("-machine", "virt", "-cpu", "max"), "ttyAMA0"),
}
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
    command_line: str = "",
    accel: Sequence[str] = SOFTWARE,
    busybox: Path | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> TrialResult:
    """Run ``script`` (by busybox sh) in a guest; BootError with the console's tail if it does not get to its end.

    ``busybox`` must be given where the guest's architecture is not the host's. ``on_line`` sees each line of the
    console as it comes.
    """
    program, package, machine, console = _MACHINES[kernel.arch]
    qemu = subproc.require_tool(program, package)
    chosen = busybox or next((path for path in _BUSYBOX if path.is_file()), None)
    if chosen is None:
        raise HostError("busybox is not installed", "install it with: apt-get install busybox-static")
    with tempfile.TemporaryDirectory(prefix="lmk-trial-") as directory:
        initrd = Path(directory) / "initrd"
        initrd.write_bytes(trial_initrd(script, files, chosen.read_bytes()))
        arguments = [
            *(qemu, *machine, *accel, "-smp", str(cpus), "-m", str(memory_mib)),
            *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernel.image), "-initrd", str(initrd)),
            *("-append", f"console={console} panic=-1 loglevel=5 {command_line}".strip()),
        ]
        text = _console_of(arguments, timeout_s, on_line)
    begin = text.find(_BEGIN)
    end = re.search(re.escape(_END) + r" (\d+)", text)
    if begin < 0 or end is None:
        raise BootError(
            f"the trial on kernel {kernel.release} did not get to its end",
            "see the console's last lines below",
            detail="\n".join(text.splitlines()[-40:]),
        )
    return TrialResult(exit_code=int(end[1]), output=text[begin + len(_BEGIN) + 1 : end.start()], console=text)


def _console_of(arguments: Sequence[str], timeout_s: float, on_line: Callable[[str], None]) -> str:
    """Run QEMU to its end; everything on its console."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as sink:
        process = subproc.spawn_tied(arguments, stdout=sink, nice=5)
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        subproc.stop(process)

    watchdog = threading.Timer(timeout_s, end)
    watchdog.daemon = True
    watchdog.start()
    lines: list[str] = []
    with os.fdopen(reader, "rb") as console:
        try:
            for raw in console:
                lines.append(raw.decode(errors="replace").replace("\r", "").rstrip("\n"))
                on_line(lines[-1])
            process.wait()
        finally:
            watchdog.cancel()
            subproc.stop(process)
    if overdue.is_set():
        raise InfraError(
            f"the guest did not end within {timeout_s:.0f} s",
            "see whether the machine is overloaded; the console's last lines are below",
            detail="\n".join(lines[-40:]),
        )
    return "\n".join(lines) + "\n"
