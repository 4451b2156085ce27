"""``--target``: the device a live run happens on, and how it is put away again."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import attrs

from lmk import subproc
from lmk.backends import registry
from lmk.backends.accel import qemu_program
from lmk.backends.avd import AvdDevice, check_avd
from lmk.backends.bundle import Bundle
from lmk.backends.cuttlefish import CuttlefishDevice, cuttlefish_program
from lmk.backends.qemu import QemuGuest
from lmk.backends.qemu_args import check_host_memory
from lmk.config.device import DeviceConfig
from lmk.config.importing import KEPT_PREFIXES
from lmk.device.adb import AdbDevice, user_device
from lmk.errors import UserError
from lmk.guest.image import build_guest_image
from lmk.kernel.build import build_kernel
from lmk.kernel.choose import android_kernel
from lmk.live.stock import read_properties
from lmk.progress import Progress

KINDS = ("qemu", "emulator:NAME", "avd:NAME", "cuttlefish[:N]", "adb:SERIAL")
#: Started by us with a system image and a kernel of their own.
ANDROID_KINDS = ("avd", "cuttlefish")


@attrs.frozen(kw_only=True)
class TargetName:
    """One of ``KINDS``, taken apart. ``kernel``, ``initramfs``: what an AVD or Cuttlefish boots instead of its own."""

    kind: str
    name: str
    kernel: Path | None = None
    initramfs: Path | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


def parse_target(text: str, kernel: str | None = None, initramfs: Path | None = None) -> TargetName:
    """UserError for anything that is not one of ``KINDS``, and for a kernel that its system image cannot live with."""
    kind, colon, name = text.partition(":")
    if kind not in ANDROID_KINDS and (kernel is not None or initramfs is not None):
        raise UserError(f"--kernel with --target {text}", "it is for avd:NAME and cuttlefish; see also lmk kernel")
    if initramfs is not None and not initramfs.is_file():
        raise UserError(f"--initramfs {initramfs}: no such file", "leave it out for a kernel without modules")
    if (kind == "qemu" and not colon) or (kind in ("emulator", "adb", "avd") and name):
        return _android(kind, name, kernel, initramfs)
    if kind == "cuttlefish" and (not colon or (name.isdecimal() and int(name) > 0)):
        return _android(kind, name, kernel, initramfs)
    raise UserError(f"--target {text}: no such kind of target", f"use one of {', '.join(KINDS)}")


def _android(kind: str, name: str, kernel: str | None, initramfs: Path | None) -> TargetName:
    image = None if kernel is None else android_kernel(kernel)
    return TargetName(kind=kind, name=name, kernel=image, initramfs=initramfs)


class OpenDevice(Protocol):
    """A device that answers over adb."""

    @property
    def adb(self) -> AdbDevice:
        """The device."""

    def close(self) -> None:
        """Let go of it: end what we started, leave alone what we did not."""


class _UserDevice:
    def __init__(self, adb: AdbDevice) -> None:
        self.adb = adb

    def close(self) -> None:
        return


def check_target(
    target: TargetName,
    config: DeviceConfig,
    *,
    confirmed: bool,
    why: str = "lmk would replace its lmkd and kill its apps",
) -> None:
    """Everything that can be refused before anything is built or booted. UserError, HostError.

    ``why`` says what a device that is not an emulator would suffer.
    """
    if target.kind == "qemu":
        check_host_memory(config.memory_bytes)
        subproc.require_tool(*qemu_program(config.arch))
        subproc.require_tool("adb", "adb")
    elif target.kind == "emulator":
        registry.find(target.name)
    elif target.kind in ANDROID_KINDS:
        subproc.require_tool("adb", "adb")
        check_host_memory(config.memory_bytes)
        if target.kind == "avd":
            check_avd(target.name)
            if target.initramfs is not None:
                raise UserError("--initramfs with --target avd", "an AVD keeps its own ramdisk")
        else:
            cuttlefish_program()
    else:
        properties = read_properties(user_device(target.name))
        if not confirmed and not looks_like_emulator(properties):
            raise UserError(
                f"{target.name} is not an emulator, and {why}",
                "say --yes if you mean it, or look first with --dry-run",
            )


def looks_like_emulator(properties: dict[str, str]) -> bool:
    """The Android Emulator, Cuttlefish and lmk's own guest say what they are."""
    return properties.get("ro.kernel.qemu") == "1" or properties.get("ro.hardware", "") in (
        "ranchu",
        "goldfish",
        "cutf_cvm",
        "lmk",
    )


def with_config(properties: dict[str, str], config: DeviceConfig) -> dict[str, str]:
    """A device's properties with the config's own about killing over them: its image brings those of another device."""
    own = {name: text for name, text in config.own_properties.items() if name.startswith(KEPT_PREFIXES)}
    return {**properties, **own}


def attach_device(target: TargetName) -> OpenDevice:
    """A device that somebody else runs; nothing is built or booted. UserError, HostError."""
    if target.kind == "emulator":
        return registry.attach(target.name)
    return _UserDevice(user_device(target.name))


def open_device(
    target: TargetName, config: DeviceConfig, run_dir: Path, progress: Progress, bundle: Bundle | None = None
) -> OpenDevice:
    """Build what is missing, boot or connect. Call from the main thread (QEMU dies with the thread that starts it).

    With a ``bundle`` nothing is built: its kernel and guest are booted.
    """
    if target.kind in ("emulator", "adb"):
        return attach_device(target)
    if target.kind == "avd":
        return AvdDevice.boot(target.name, config, run_dir, target.kernel, progress)
    if target.kind == "cuttlefish":
        return CuttlefishDevice.boot(int(target.name or 1), config, target.kernel, target.initramfs, progress)
    if bundle is not None:
        return QemuGuest.boot(config, bundle.kernel, bundle.image, run_dir=run_dir, progress=progress)
    kernel = build_kernel(config.kernel.base, config.arch, progress=progress)
    image = build_guest_image(config.arch, progress)
    return QemuGuest.boot(config, kernel, image, run_dir=run_dir, progress=progress)
