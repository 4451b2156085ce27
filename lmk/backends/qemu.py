"""A device in QEMU: boots the patched kernel and the guest image as a device config says, and ends it again."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from attrs import frozen

from lmk import subproc
from lmk.backends.accel import KVM, Accel, find_accel, qemu_program, settle_accel, try_boot
from lmk.backends.qemu_args import ADBD_PORT, check_host_memory, check_mem_total, qemu_arguments
from lmk.backends.qmp import Qmp
from lmk.config.device import DeviceConfig
from lmk.device.adb import AdbDevice, AdbServer
from lmk.errors import BootError, InfraError
from lmk.guest.image import GuestImage
from lmk.guest.overlay import make_overlay
from lmk.progress import Progress, silent

#: Nice levels. QEMU comes after lmk and adb, and the guest's CPUs well after the QEMU thread that carries adb's bytes,
#: whose answers would otherwise wait behind a guest that is busy (docs/guest.md).
QEMU_NICE = 1
VCPU_NICE = 10
BOOT_TIMEOUT_S = 120.0
#: The guest's init says so on the console when adbd listens.
READY_LINE = b"lmk-guest: ready"
_CONSOLE_TAIL_LINES = 30
_POLL_S = 0.02
_SOCKET_PATH_MAX = 100  # sun_path holds 107 bytes


class Kernel(Protocol):
    """What is needed of a kernel (lmk.kernel.build.KernelImage has it)."""

    @property
    def image(self) -> Path:
        """bzImage or Image."""

    @property
    def debug(self) -> bool:
        """Built with KASAN and the like, which take a good part of the memory for themselves."""


@frozen(kw_only=True)
class GuestFacts:
    """What a booted guest said about itself."""

    mem_total_kib: int
    swap_total_kib: int
    release: str
    cpus: int
    #: RAM that the userland takes: the root's files and every process's own memory.
    userland_kib: int
    #: QEMU's start to the first answer over adb.
    boot_ms: int


class QemuGuest:
    """One running guest. ``boot`` makes it, ``close`` (or the end of a with block) ends it."""

    def __init__(
        self, *, config: DeviceConfig, run_dir: Path, process: subproc.Process, qmp_path: Path, accel: Accel
    ) -> None:
        """Use ``start`` or ``boot``."""
        self.config = config
        self.run_dir = run_dir
        self.console_path = run_dir / "console.log"
        self.qmp_path = qmp_path
        self.accel = accel
        self.port = 0
        self._process = process
        self._server: AdbServer | None = None
        self._own_server = False
        self._adb: AdbDevice | None = None
        self._facts: GuestFacts | None = None
        self._started_s = time.monotonic()
        self._check_memory = True

    @classmethod
    def boot(
        cls,
        config: DeviceConfig,
        kernel: Kernel,
        image: GuestImage,
        *,
        run_dir: Path,
        tied: bool = True,
        idle_s: int = 0,
        adb_server: AdbServer | None = None,
        extra_cmdline: str = "",
        extra_properties: Mapping[str, str] | None = None,
        timeout_s: float = BOOT_TIMEOUT_S,
        progress: Progress = silent,
    ) -> QemuGuest:
        """Start a guest and wait until a shell answers over adb and its memory is what the config says.

        ``tied``: it dies with this process. Call from the main thread. HostError (exit 2) for what this machine
        lacks, before anything starts; BootError with the console's last lines when the guest does not come up.
        """
        guest = cls.start(
            config,
            kernel,
            image,
            run_dir=run_dir,
            tied=tied,
            idle_s=idle_s,
            extra_cmdline=extra_cmdline,
            extra_properties=extra_properties,
            progress=progress,
        )
        try:
            guest.wait_ready(adb_server, timeout_s=timeout_s, progress=progress)
        except BaseException:
            guest.close()
            raise
        return guest

    @classmethod
    def start(
        cls,
        config: DeviceConfig,
        kernel: Kernel,
        image: GuestImage,
        *,
        run_dir: Path,
        tied: bool = True,
        idle_s: int = 0,
        extra_cmdline: str = "",
        extra_properties: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> QemuGuest:
        """Start QEMU only; ``wait_ready`` does the rest."""
        check_host_memory(config.memory_bytes)
        qemu = subproc.require_tool(*qemu_program(config.arch))
        run_dir.mkdir(parents=True, exist_ok=True)
        initrd = run_dir / "initrd.cpio"
        overlay = make_overlay(config, idle_s=idle_s, extra_properties=extra_properties)
        initrd.write_bytes(image.initrd.read_bytes() + overlay)
        console = run_dir / "console.log"
        console.write_bytes(b"")
        qmp_path = _socket_path(run_dir)
        arguments = partial(
            qemu_arguments,
            config,
            kernel=kernel.image,
            initrd=initrd,
            data_disk=image.data_disk,
            console=console,
            qmp=qmp_path,
            extra_cmdline=extra_cmdline,
        )
        log_path = run_dir / "qemu.log"
        accel = settle_accel(
            find_accel(config.arch, progress),
            config.arch,
            lambda: _try_kvm([qemu, *arguments(accel=KVM)], console, log_path, qmp_path, progress),
        )
        progress(f"booting {config.name} ({accel.name})", None)
        spawn = subproc.spawn_tied if tied else subproc.spawn_detached
        with log_path.open("wb") as log:
            process = spawn([qemu, *arguments(accel=accel)], stdout=log, nice=QEMU_NICE)
        guest = cls(config=config, run_dir=run_dir, process=process, qmp_path=qmp_path, accel=accel)
        guest._check_memory = not kernel.debug
        return guest

    def wait_ready(
        self, adb_server: AdbServer | None = None, *, timeout_s: float = BOOT_TIMEOUT_S, progress: Progress = silent
    ) -> None:
        """Wait for adb and check the guest; see ``boot``. ``adb_server`` None: one of our own, closed with us."""
        deadline = self._started_s + timeout_s
        self._own_server = adb_server is None
        self._server = adb_server if adb_server is not None else AdbServer.start()
        self.port = self._forwarded_port(deadline)
        self._wait_console(deadline, timeout_s)
        (self.run_dir / "initrd.cpio").unlink(missing_ok=True)
        progress("waiting for adb", None)
        try:
            self._adb = self._server.connect(self.serial, max(1.0, deadline - time.monotonic()))
            self._adb.wait_online(max(1.0, deadline - time.monotonic()))
            boot_ms = int((time.monotonic() - self._started_s) * 1000)
            self._facts = self._read_facts(boot_ms)
        except (InfraError, BootError):
            raise
        except Exception as error:
            raise self._boot_error(f"the guest booted but adb does not answer: {error}") from error

    @property
    def serial(self) -> str:
        """The serial that our adb server knows the guest by."""
        return f"127.0.0.1:{self.port}"

    @property
    def adb(self) -> AdbDevice:
        """The guest as an adb device."""
        assert self._adb is not None, "wait_ready first"
        return self._adb

    @property
    def adb_server(self) -> AdbServer:
        """The server that ``adb`` goes through."""
        assert self._server is not None, "wait_ready first"
        return self._server

    @property
    def facts(self) -> GuestFacts:
        """What the guest said about itself after boot."""
        assert self._facts is not None, "wait_ready first"
        return self._facts

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.poll() is None

    def qmp(self) -> Qmp:
        """A new connection to QEMU's control socket; the caller closes it."""
        return Qmp.connect(self.qmp_path)

    def console_tail(self, lines: int = _CONSOLE_TAIL_LINES) -> str:
        """The console's last lines."""
        return console_tail(self.console_path, lines)

    def close(self) -> None:
        """End QEMU and our adb server; the console log stays."""
        subproc.stop(self._process)
        if self._own_server and self._server is not None:
            self._server.close()
        remove_socket(self.qmp_path)
        (self.run_dir / "initrd.cpio").unlink(missing_ok=True)

    def detach(self) -> None:
        """Let go of a guest that is meant to go on: only our own adb server ends."""
        if self._own_server and self._server is not None:
            self._server.close()
        # The Popen object must not complain about a child that outlives it.
        self._process.returncode = 0

    def __enter__(self) -> QemuGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forwarded_port(self, deadline: float) -> int:
        """QEMU itself bound a free port (it was asked for port 0), so nobody can have taken it in between."""
        while True:
            self._check_alive()
            try:
                with self.qmp() as qmp:
                    _lower_priority(qmp.cpu_threads())
                    return qmp.forwarded_port(ADBD_PORT)
            except InfraError as error:
                self._check_alive()
                if time.monotonic() > deadline:
                    raise InfraError(f"QEMU does not answer: {error}", detail=self._qemu_log()) from error
            time.sleep(_POLL_S)

    def _wait_console(self, deadline: float, timeout_s: float) -> None:
        seen = b""
        with self.console_path.open("rb") as console:
            while True:
                fresh = console.read()
                seen = (seen + fresh)[-8192:] if fresh else seen
                if READY_LINE in seen:
                    return
                self._check_alive()
                if time.monotonic() > deadline:
                    raise self._boot_error(f"the guest did not reach adb within {timeout_s:.0f} s")
                time.sleep(_POLL_S)

    def _check_alive(self) -> None:
        if self.alive:
            return
        tail = self.console_tail()
        panic = re.search(r"Kernel panic - not syncing: (.*)", tail)
        log = self._qemu_log()
        if panic is not None:
            raise self._boot_error(f"the guest's kernel panicked: {panic.group(1).strip()}")
        if not tail:
            raise InfraError(f"QEMU ended at once: {(log or 'no message').splitlines()[-1]}", detail=log)
        raise self._boot_error("the guest ended before adb answered")

    def _boot_error(self, cause: str) -> BootError:
        remedy = f"the whole console is in {self.console_path}"
        return BootError(cause, remedy, detail=self.console_tail() or self._qemu_log())

    def _qemu_log(self) -> str:
        path = self.run_dir / "qemu.log"
        return path.read_text(errors="replace").strip() if path.is_file() else ""

    def _read_facts(self, boot_ms: int) -> GuestFacts:
        text = self.adb.check_shell("cat /proc/meminfo; uname -r; nproc; cat /lmk/boot.errors 2>/dev/null || true")
        meminfo = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
        rest = [line for line in text.splitlines() if not re.match(r"^[\w()]+:\s+\d+( kB)?$", line)]
        release, cpus, *refused = rest
        if refused:
            raise BootError(
                f"the guest's kernel {release} refused: {'; '.join(refused)}",
                "change these settings in the device config, or its kernel.base",
            )
        mem_total_kib = meminfo["MemTotal"]
        if self._check_memory:
            check_mem_total(mem_total_kib, self.config.memory_bytes)
        return GuestFacts(
            mem_total_kib=mem_total_kib,
            swap_total_kib=meminfo["SwapTotal"],
            release=release,
            cpus=int(cpus),
            # ramfs pages count as cached and unevictable; the data disk's cache is empty so early.
            userland_kib=meminfo["AnonPages"] + meminfo["Cached"] + meminfo["PageTables"],
            boot_ms=boot_ms,
        )


def console_tail(path: Path, lines: int = _CONSOLE_TAIL_LINES) -> str:
    """The last lines of a console log; empty if there is none."""
    if not path.is_file():
        return ""
    text = path.read_bytes()[-65536:].decode(errors="replace").replace("\r", "")
    return "\n".join(text.strip().splitlines()[-lines:])


def remove_socket(path: Path) -> None:
    """Remove a control socket, and the directory made for it if it has one of its own."""
    path.unlink(missing_ok=True)
    if path.parent.name.startswith("lmk-qmp-"):
        shutil.rmtree(path.parent, ignore_errors=True)


def _try_kvm(argv: list[str], console: Path, log: Path, qmp_path: Path, progress: Progress) -> str:
    """Whether a guest comes up under KVM (``settle_accel``); leaves no console and no socket behind."""
    progress("trying KVM with the guest's kernel", None)
    failed = try_boot(argv, console, READY_LINE, log)
    console.write_bytes(b"")
    qmp_path.unlink(missing_ok=True)
    return failed


def _lower_priority(thread_ids: list[int]) -> None:
    wanted = os.getpriority(os.PRIO_PROCESS, 0) + VCPU_NICE
    for thread_id in thread_ids:
        # A guest that has just died is found out by whoever talks to it next.
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread_id, wanted)


def _socket_path(run_dir: Path) -> Path:
    path = run_dir.resolve() / "qmp.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        path = Path(tempfile.mkdtemp(prefix="lmk-qmp-")) / "qmp.sock"
    path.unlink(missing_ok=True)
    return path
