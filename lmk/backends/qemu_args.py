"""QEMU's command line for a device config, and the limits a config is held to."""

from __future__ import annotations

import os
from pathlib import Path

from lmk.backends.accel import Accel
from lmk.config.device import DeviceConfig
from lmk.errors import BootError, HostError
from lmk.units import GIB, KIB, MIB

ADBD_PORT = 5555
HOST_MEMORY_SHARE_MAX = 0.60


def qemu_arguments(
    config: DeviceConfig,
    *,
    kernel: Path,
    initrd: Path,
    data_disk: Path,
    accel: Accel,
    console: Path,
    qmp: Path,
    extra_cmdline: str = "",
) -> list[str]:
    """QEMU's arguments for a config; nothing in them depends on the machine but the accelerator and core count."""
    machine, tty = ("virt", "ttyAMA0") if config.arch == "arm64" else ("q35", "ttyS0")
    # panic=-1: reboot at once, which -no-reboot turns into QEMU's end. ramfs: the root can never be swapped out.
    cmdline = f"console={tty} panic=-1 rdinit=/init rootfstype=ramfs loglevel=6 {extra_cmdline}".strip()
    if config.arch == "x86_64":
        # The kernel waits ten ticks for timer interrupts, and panics where a busy host lets none through in that time.
        cmdline += " no_timer_check"
    arguments = ["-M", machine, *accel.arguments]
    if config.arch == "arm64" and accel.name == "tcg":
        arguments += ["-cpu", "max"]
    arguments += ["-smp", str(guest_cpus(config.cpus)), "-m", f"{config.memory_bytes // MIB}M"]
    # A phone has its RAM. Fetched from the host at the first touch, a page takes an app twice as long to write.
    arguments += ["-mem-prealloc"]
    arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", cmdline]
    arguments += ["-chardev", f"file,id=console,path={_escaped(console)}", "-serial", "chardev:console"]
    arguments += ["-qmp", f"unix:{_escaped(qmp)},server=on,wait=off"]
    forward = f"hostfwd=tcp:127.0.0.1:0-:{ADBD_PORT}"
    # IPv6 off: its router advertisements would keep an idle guest awake.
    arguments += ["-netdev", f"user,id=net,ipv6=off,restrict=on,{forward}"]
    arguments += ["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]
    return arguments + _disk_arguments(config, data_disk)


def _disk_arguments(config: DeviceConfig, data_disk: Path) -> list[str]:
    drive = f"file={_escaped(data_disk)},format=raw,if=none,id=data,snapshot=on"
    if config.storage is not None:
        drive += f",throttling.bps-read={config.storage.read_bytes_per_s}"
        drive += f",throttling.iops-total={config.storage.iops}"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=data"]


def guest_cpus(wanted: int) -> int:
    """vCPUs to give: never more than this process may use, or they wait for each other."""
    return min(wanted, len(os.sched_getaffinity(0)))


def check_host_memory(memory_bytes: int, host_bytes: int | None = None) -> None:
    """HostError (exit 2) when a guest would take more than 60 % of the host's RAM."""
    total = host_bytes if host_bytes is not None else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory_bytes > total * HOST_MEMORY_SHARE_MAX:
        raise HostError(
            f"a guest with {memory_bytes / GIB:.1f} GiB needs more than 60 % of this host's {total / GIB:.1f} GiB",
            "choose a config with less memory, or a bigger machine",
        )


def check_mem_total(mem_total_kib: int, memory_bytes: int) -> None:
    """BootError when the guest's MemTotal is not between 90 % of the config's memory minus 64 MiB and all of it."""
    highest = memory_bytes // KIB
    lowest = highest * 9 // 10 - 64 * KIB
    if not lowest <= mem_total_kib <= highest:
        raise BootError(
            f"the guest has {mem_total_kib} KiB of memory, the config says {highest} KiB "
            f"(accepted: {lowest} to {highest})",
            "its emulator or kernel changed the size; results would be about another device",
        )


def _escaped(path: Path) -> str:
    """QEMU doubles commas inside option values."""
    return str(path).replace(",", ",,")
