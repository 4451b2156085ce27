"""Guests started by ``lmk emulator up``: registered under a name, found again by later commands, ended by ``down``.

Each has a directory in the state directory with its record, console log and QEMU's messages. A record is trusted
only as far as the process it names still is the same one (pid and start time).
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from lmk.backends.qemu import Kernel, QemuGuest, remove_socket
from lmk.config.device import DeviceConfig
from lmk.device.adb import AdbDevice, AdbServer
from lmk.errors import DeviceLostError, UserError
from lmk.guest.image import GuestImage
from lmk.progress import Progress, silent
from lmk.resources import state_dir

DEFAULT_IDLE_S = 30 * 60
_RECORD = "emulator.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_STOP_GRACE_S = 3.0
_ATTACH_TIMEOUT_S = 30.0


@attrs.frozen(kw_only=True)
class Emulator:
    """One registered guest. ``state`` is "booting", "running"; one whose process is gone is not listed."""

    name: str
    state: str
    config: str
    config_path: str
    kernel_base: str
    kernel_release: str
    memory_bytes: int
    cpus: int
    accel: str
    port: int
    pid: int
    #: Start time of the process in clock ticks since the host booted: a reused pid has another.
    pid_start_ticks: int
    started_unix_s: int
    idle_s: int
    run_dir: str
    qmp: str
    #: RAM that the guest's userland takes, and the time to the first answer over adb; 0 while booting.
    userland_kib: int = 0
    boot_ms: int = 0

    @property
    def serial(self) -> str:
        """What an adb server that connects to it calls it."""
        return f"127.0.0.1:{self.port}"

    @property
    def console_path(self) -> Path:
        """The console log."""
        return Path(self.run_dir) / "console.log"


class AttachedEmulator:
    """A registered guest with an adb connection of our own; ``close`` leaves the guest running."""

    def __init__(self, emulator: Emulator, server: AdbServer, adb: AdbDevice) -> None:
        self.emulator = emulator
        self.adb_server = server
        self.adb = adb

    def close(self) -> None:
        """Give up our adb server."""
        self.adb_server.close()

    def __enter__(self) -> AttachedEmulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def up(
    config: DeviceConfig,
    kernel: Kernel,
    image: GuestImage,
    *,
    name: str,
    config_path: str = "",
    idle_s: int = DEFAULT_IDLE_S,
    progress: Progress = silent,
) -> Emulator:
    """Boot a guest that outlives this command. UserError for a name in use; BootError if it does not come up.

    ``idle_s``: seconds without traffic after which the guest powers itself off; 0 for never.
    """
    check_name(name)
    with _locked():
        if _load(name) is not None:
            raise UserError(
                f"an emulator named {name} is already up", f"use another --name, or: lmk emulator down {name}"
            )
        run_dir = _directory(name)
        guest = QemuGuest.start(config, kernel, image, run_dir=run_dir, tied=False, idle_s=idle_s, progress=progress)
        # Registered before it answers: were this command killed now, `down` could still end the guest.
        record = _save(_record(guest, name=name, config_path=config_path, idle_s=idle_s))
    try:
        guest.wait_ready(progress=progress)
        record = _save(
            attrs.evolve(
                record,
                state="running",
                port=guest.port,
                kernel_release=guest.facts.release,
                userland_kib=guest.facts.userland_kib,
                boot_ms=guest.facts.boot_ms,
            )
        )
    except BaseException:
        guest.close()
        (Path(record.run_dir) / _RECORD).unlink(missing_ok=True)
        raise
    guest.detach()
    return record


def list_emulators() -> list[Emulator]:
    """All registered guests that still run, sorted by name; records of ended ones are removed."""
    found = (_load(path.parent.name) for path in sorted(state_dir("emulators").glob(f"*/{_RECORD}")))
    return [emulator for emulator in found if emulator is not None]


def find(name: str) -> Emulator:
    """A registered guest by its name; UserError naming those that are up otherwise."""
    emulator = _load(name) if _NAME.fullmatch(name) else None
    if emulator is not None:
        return emulator
    names = [other.name for other in list_emulators()]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        remedy = f"did you mean {near[0]}?"
    elif names:
        remedy = f"up are: {', '.join(names)}"
    else:
        remedy = "none is up; start one with: lmk emulator up CONFIG"
    raise UserError(f"no emulator named {name} is up", remedy)


def attach(name: str) -> AttachedEmulator:
    """Connect to a registered guest through an adb server of our own. DeviceLostError if it does not answer."""
    emulator = find(name)
    if emulator.state != "running":
        raise UserError(f"emulator {name} is still booting", "try again in a moment, see: lmk emulator list")
    server = AdbServer.start()
    try:
        adb = server.connect(emulator.serial, _ATTACH_TIMEOUT_S)
        adb.wait_online(_ATTACH_TIMEOUT_S)
    except DeviceLostError as error:
        server.close()
        cause = f"emulator {name} does not answer: {error.cause}"
        raise DeviceLostError(cause, f"see {emulator.console_path}, or: lmk emulator down {name}") from error
    except BaseException:
        server.close()
        raise
    return AttachedEmulator(emulator, server, adb)


def down(name: str) -> Emulator:
    """End a registered guest; its console log stays. UserError if no such guest is up."""
    emulator = find(name)
    _signal(emulator, signal.SIGTERM)
    end = time.monotonic() + _STOP_GRACE_S
    while _same_process(emulator):
        if time.monotonic() > end:
            _signal(emulator, signal.SIGKILL)
        time.sleep(0.02)
    _forget(emulator)
    return emulator


def check_name(name: str) -> None:
    """UserError for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for an emulator", "use letters, digits, '.', '_' and '-'")


def _record(guest: QemuGuest, *, name: str, config_path: str, idle_s: int) -> Emulator:
    return Emulator(
        name=name,
        state="booting",
        config=guest.config.name,
        config_path=config_path,
        kernel_base=guest.config.kernel.base,
        kernel_release="",
        memory_bytes=guest.config.memory_bytes,
        cpus=guest.config.cpus,
        accel=guest.accel.name,
        port=0,
        pid=guest.pid,
        pid_start_ticks=_start_ticks(guest.pid) or 0,
        started_unix_s=int(time.time()),
        idle_s=idle_s,
        run_dir=str(guest.run_dir),
        qmp=str(guest.qmp_path),
    )


def _directory(name: str) -> Path:
    return state_dir("emulators", name)


def _save(emulator: Emulator) -> Emulator:
    path = Path(emulator.run_dir) / _RECORD
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(attrs.asdict(emulator), indent=1))
    draft.replace(path)
    return emulator


def _load(name: str) -> Emulator | None:
    path = state_dir("emulators") / name / _RECORD
    try:
        emulator = Emulator(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # written by another version of lmk
        path.unlink(missing_ok=True)
        return None
    if not _same_process(emulator):
        _forget(emulator)
        return None
    return emulator


def _forget(emulator: Emulator) -> None:
    (Path(emulator.run_dir) / _RECORD).unlink(missing_ok=True)
    remove_socket(Path(emulator.qmp))


def _same_process(emulator: Emulator) -> bool:
    return _start_ticks(emulator.pid) == emulator.pid_start_ticks


def _start_ticks(pid: int) -> int | None:
    """Start time of a process that is neither gone nor a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[19])


def _signal(emulator: Emulator, number: int) -> None:
    # The pidfd pins the process while its start time is compared, so no other can be hit.
    try:
        fd = os.pidfd_open(emulator.pid)
    except OSError:
        return
    try:
        if _same_process(emulator):
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


@contextmanager
def _locked() -> Iterator[None]:
    with (state_dir("emulators") / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
