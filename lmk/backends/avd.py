"""The Android Emulator as a target: ``--target avd:NAME``. Thin: one command line, then ``lmk.backends.android``.

Its command line is checked by tests against a stand-in; it has not been run on the real program (docs/targets.md).
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

from lmk import subproc
from lmk.backends.android import BOOT_TIMEOUT_S, Prepared, prepare
from lmk.config.device import DeviceConfig
from lmk.device.adb import AdbDevice, AdbServer
from lmk.errors import BootError, HostError, UserError
from lmk.progress import Progress
from lmk.units import MIB

#: A plain adb server finds emulators whose console port is even and in this range.
PORTS = range(5554, 5586, 2)
_APPEAR_S = 120.0


def emulator_program() -> str:
    """The SDK's ``emulator``. HostError where it is not."""
    homes = [os.environ.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT")]
    for home in homes:
        if home and os.access(program := Path(home, "emulator", "emulator"), os.X_OK):
            return str(program)
    found = shutil.which("emulator")
    if found is None:
        raise HostError(
            "the Android Emulator is not installed",
            "install the SDK's `emulator` package and set ANDROID_HOME, or use --target qemu",
        )
    return found


def check_avd(name: str) -> str:
    """The program, if it knows this AVD. HostError, UserError."""
    program = emulator_program()
    listed = subproc.run([program, "-list-avds"], timeout_s=60).stdout.decode(errors="replace").split()
    if name not in listed:
        raise UserError(f"the Android Emulator knows no AVD {name}", f"it knows: {', '.join(listed) or 'none'}")
    return program


def avd_arguments(program: str, name: str, config: DeviceConfig, port: int, kernel: Path | None) -> list[str]:
    """The command line. Small RAM sizes are raised by the emulator: MemTotal is read back after boot."""
    arguments = [program, "-avd", name, "-port", str(port)]
    arguments += ["-memory", str(config.memory_bytes // MIB), "-cores", str(config.cpus)]
    arguments += ["-no-window", "-no-audio", "-no-boot-anim", "-no-snapshot", "-no-metrics", "-read-only"]
    arguments += ["-camera-back", "none", "-camera-front", "none", "-gpu", "swiftshader_indirect"]
    if config.properties.get("ro.config.low_ram") == "true":
        arguments += ["-append-userspace-opt", "androidboot.config.low_ram=true"]
    if kernel is not None:
        arguments += ["-kernel", str(kernel), "-show-kernel"]
    return arguments


def free_port() -> int:
    """An even port that is free together with the one above it. HostError when all are taken."""
    for port in PORTS:
        if all(_is_free(number) for number in (port, port + 1)):
            return port
    raise HostError("all console ports of the Android Emulator are taken", "end one of the running emulators")


class AvdDevice:
    """A started AVD. ``lmk.live.devices.OpenDevice``."""

    def __init__(self, process: subproc.Process, prepared: Prepared) -> None:
        self._process = process
        self._prepared = prepared

    @property
    def adb(self) -> AdbDevice:
        """The device."""
        return self._prepared.adb

    @classmethod
    def boot(cls, name: str, config: DeviceConfig, run_dir: Path, kernel: Path | None, progress: Progress) -> AvdDevice:
        """Start it and get it ready. It dies with this process: call from the main thread. HostError, BootError."""
        program = check_avd(name)
        port = free_port()
        run_dir.mkdir(parents=True, exist_ok=True)
        console = run_dir / "emulator.log"
        with console.open("wb") as log:
            process = subproc.spawn_tied(avd_arguments(program, name, config, port, kernel), stdout=log)
        try:
            adb = _appear(process, f"emulator-{port}", console)
            return cls(process, prepare(adb, config.memory_bytes, progress))
        except BootError as error:
            subproc.stop(process, grace_s=10)
            raise BootError(error.cause, error.remedy, detail=_tail(console)) from error
        except BaseException:
            subproc.stop(process, grace_s=10)
            raise

    def close(self) -> None:
        """SELinux back, then the emulator's end. Never raises."""
        self._prepared.restore()
        subproc.stop(self._process, grace_s=10)


def _appear(process: subproc.Process, serial: str, console: Path) -> AdbDevice:
    """Until the user's adb server has found it; BootError with the emulator's words if it ends before."""
    server = AdbServer.of_user()
    server.ensure()
    end_s = time.monotonic() + min(_APPEAR_S, BOOT_TIMEOUT_S)
    while serial not in server.devices():
        if process.poll() is not None:
            raise BootError(
                f"the Android Emulator ended with exit code {process.returncode}",
                "see its words",
                detail=_tail(console),
            )
        if time.monotonic() > end_s:
            raise BootError(f"adb does not find {serial}", "see whether another adb server runs", detail=_tail(console))
        time.sleep(0.5)
    return server.device(serial)


def _tail(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-20:])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
