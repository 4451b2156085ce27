"""Cuttlefish as a target: ``--target cuttlefish[:N]``, instance N (1). Thin: one command line, then the common steps.

``cvd`` where it is installed, else ``launch_cvd`` of an unpacked build ($ANDROID_HOST_OUT or the present directory).
Its command lines are checked by tests against stand-ins; they have not been run on the real programs (docs/targets.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lmk import subproc
from lmk.backends.android import BOOT_TIMEOUT_S, Prepared, prepare
from lmk.config.device import DeviceConfig
from lmk.device.adb import AdbDevice, AdbServer
from lmk.errors import BootError, HostError, InfraError, LmkError
from lmk.progress import Progress
from lmk.units import MIB

#: adb of instance 1; the others follow.
ADB_PORT = 6520
_STOP_TIMEOUT_S = 60.0


def cuttlefish_program() -> str:
    """``cvd`` or ``launch_cvd``. HostError where neither is."""
    places = [Path(home, "bin") for home in (os.environ.get("ANDROID_HOST_OUT"), ".") if home]
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, places)])
    for name in ("cvd", "launch_cvd"):
        if found := shutil.which(name, path=search):
            return found
    raise HostError(
        "Cuttlefish is not installed",
        "install cuttlefish-base (cvd) and unpack a build's host package, or use --target qemu",
    )


def start_arguments(
    program: str, instance: int, config: DeviceConfig, kernel: Path | None, initramfs: Path | None
) -> list[str]:
    """The command line that starts a device in the background."""
    verb = ["create"] if Path(program).name == "cvd" else []
    arguments = [program, *verb, "--daemon", f"--base_instance_num={instance}", "--num_instances=1"]
    arguments += [f"--memory_mb={config.memory_bytes // MIB}", f"--cpus={config.cpus}"]
    arguments += ["--guest_enforce_security=false", "--report_anonymous_usage_stats=n", "--data_policy=always_create"]
    if config.properties.get("ro.config.low_ram") == "true":
        arguments.append("--extra_bootconfig_args=androidboot.config.low_ram:=true")
    if kernel is not None:
        arguments.append(f"--kernel_path={kernel}")
    if initramfs is not None:
        arguments.append(f"--initramfs_path={initramfs}")
    return arguments


def stop_arguments(program: str, instance: int) -> list[str]:
    """The command line that ends it."""
    if Path(program).name == "cvd":
        return [program, "stop"]
    return [str(Path(program).with_name("stop_cvd")), f"--instance_nums={instance}"]


class CuttlefishDevice:
    """A started device. ``lmk.live.devices.OpenDevice``."""

    def __init__(self, stop: Sequence[str], prepared: Prepared) -> None:
        self._stop = stop
        self._prepared = prepared

    @property
    def adb(self) -> AdbDevice:
        """The device."""
        return self._prepared.adb

    @classmethod
    def boot(
        cls, instance: int, config: DeviceConfig, kernel: Path | None, initramfs: Path | None, progress: Progress
    ) -> CuttlefishDevice:
        """Start it and get it ready. HostError, BootError."""
        program = cuttlefish_program()
        stop = stop_arguments(program, instance)
        progress("starting Cuttlefish", None)
        try:
            subproc.run(start_arguments(program, instance, config, kernel, initramfs), timeout_s=BOOT_TIMEOUT_S)
            server = AdbServer.of_user()
            server.ensure()
            adb = server.connect(f"127.0.0.1:{ADB_PORT + instance - 1}")
            return cls(stop, prepare(adb, config.memory_bytes, progress))
        except InfraError as error:
            _end(stop)
            raise BootError(
                f"Cuttlefish did not start: {error.cause}", "try its command line", detail=error.detail
            ) from error
        except BaseException:
            _end(stop)
            raise

    def close(self) -> None:
        """SELinux back, then the device's end. Never raises."""
        self._prepared.restore()
        _end(self._stop)


def _end(stop: Sequence[str]) -> None:
    try:
        subproc.run(stop, timeout_s=_STOP_TIMEOUT_S, check=False)
    except (LmkError, OSError):
        return
