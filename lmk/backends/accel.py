"""Is KVM really usable? Asked by running a guest for a moment, and remembered.

A /dev/kvm that opens, and even creates a virtual machine, can still fail to run one (nested virtualisation that is
only half there). The probe is a boot sector that counts a little and leaves through QEMU's debug exit device, so it
needs no kernel. Where that works, Linux can still stop at the first instruction that the host does not know how to
emulate, so KVM counts only after a kernel of ours has come up (``settle_accel``).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import asdict, frozen

from lmk import subproc
from lmk.errors import InfraError
from lmk.progress import Progress, silent
from lmk.resources import cache_dir

_PROBE_TIMEOUT_S = 15.0
#: Under KVM a guest takes a second or two; longer, and it is not worth having.
_TRIAL_TIMEOUT_S = 30.0
_POLL_S = 0.05
_EXIT_PORT = 0x501
_EXIT_VALUE = 0x2A
#: isa-debug-exit ends QEMU with (value << 1) | 1.
_EXPECTED_CODE = (_EXIT_VALUE << 1) | 1
#: mov ecx, 100000; loop: dec ecx; jnz; mov dx, port; mov al, value; out dx, al; hlt — 16-bit code at 0x7c00.
_CODE = bytes.fromhex("66b9a0860100 6649 75fc ba0105 b02a ee f4")


@frozen(kw_only=True)
class Accel:
    """How guests are run: "kvm" or "tcg", and why not KVM."""

    name: str
    reason: str
    #: KVM has run a kernel of ours, not only the probe.
    proven: bool = False

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments for it; ``-cpu host`` only where that exists."""
        if self.name == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi"]


#: To be tried.
KVM = Accel(name="kvm", reason="not tried yet")


def boot_sector() -> bytes:
    """The 512 bytes that the probe boots."""
    return _CODE.ljust(510, b"\0") + b"\x55\xaa"


def find_accel(arch: str = "x86_64", progress: Progress = silent, *, again: bool = False) -> Accel:
    """What this machine can do for guests of ``arch``; probed once per host kernel, QEMU and access right.

    HostError without QEMU.
    """
    qemu = subproc.require_tool(*qemu_program(arch))
    machine = platform.machine()
    if (arch == "x86_64") != (machine == "x86_64"):
        return Accel(name="tcg", reason=f"a {machine} host cannot run {arch} code by itself")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        reason = "/dev/kvm is not accessible to this user" if Path("/dev/kvm").exists() else "there is no /dev/kvm"
        return Accel(name="tcg", reason=reason)
    record = _record_path(qemu, arch)
    if record.is_file() and not again:
        return Accel(**json.loads(record.read_text()))
    progress("trying KVM", None)
    found = _probe(qemu) if arch == "x86_64" else Accel(name="tcg", reason="KVM is only tried for x86_64 guests")
    _remember(record, found)
    return found


def settle_accel(accel: Accel, arch: str, trial: Callable[[], str]) -> Accel:
    """``accel`` as it is after the first kernel was tried: KVM proven, or given up for good on this machine.

    ``trial`` boots one under KVM and returns why it did not come up, or nothing; it is not asked again.
    """
    if accel.name != "kvm" or accel.proven:
        return accel
    failed = trial()
    found = (
        Accel(name="tcg", reason=f"Linux under KVM: {failed}")
        if failed
        else Accel(name="kvm", reason="Linux ran under KVM", proven=True)
    )
    _remember(_record_path(subproc.require_tool(*qemu_program(arch)), arch), found)
    return found


def try_boot(argv: Sequence[str], console: Path, ready: bytes, log: Path, timeout_s: float = _TRIAL_TIMEOUT_S) -> str:
    """Run QEMU until ``ready`` is on its console, and end it. Why that never came, or nothing."""
    with log.open("wb") as out:
        process = subproc.spawn_tied(list(argv), stdout=out)
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            said = log.read_text(errors="replace").splitlines()
            # QEMU stops the guest, and lives on.
            failed = next((line for line in said if "KVM internal error" in line), "")
            if failed or (console.is_file() and ready in console.read_bytes()):
                return failed
            if process.poll() is not None:
                return said[-1] if said else f"QEMU ended with code {process.returncode}"
            time.sleep(_POLL_S)
    finally:
        subproc.stop(process)
    return f"the guest did not come up within {timeout_s:.0f} s"


def _record_path(qemu: str, arch: str) -> Path:
    facts = (qemu, Path(qemu).stat().st_mtime_ns, platform.release(), os.geteuid(), arch)
    return cache_dir("accel") / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.json"


def _remember(record: Path, found: Accel) -> None:
    record.write_text(json.dumps(asdict(found)))


def qemu_program(arch: str) -> tuple[str, str]:
    """QEMU's program for an architecture and the Debian package that has it."""
    if arch == "arm64":
        return "qemu-system-aarch64", "qemu-system-arm"
    return "qemu-system-x86_64", "qemu-system-x86"


def _probe(qemu: str) -> Accel:
    with tempfile.TemporaryDirectory(prefix="lmk-kvm-") as scratch:
        disk = Path(scratch) / "disk"
        disk.write_bytes(boot_sector())
        argv = [qemu, "-accel", "kvm", "-cpu", "host", "-M", "pc", "-m", "64", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-no-reboot", "-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1"]
        argv += ["-drive", f"file={disk},format=raw,if=ide,snapshot=on"]
        try:
            done = subproc.run(argv, timeout_s=_PROBE_TIMEOUT_S, check=False)
        except InfraError:
            return Accel(name="tcg", reason=f"a guest under KVM did not answer within {_PROBE_TIMEOUT_S:.0f} s")
    if done.returncode == _EXPECTED_CODE:
        return Accel(name="kvm", reason="a boot sector ran under KVM")
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return Accel(name="tcg", reason=f"a guest under KVM failed: {said[-1] if said else f'code {done.returncode}'}")
