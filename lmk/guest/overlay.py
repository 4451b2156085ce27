"""What one run adds to the guest image: the device config's settings as a small archive behind the initramfs."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lmk.config.device import DeviceConfig
from lmk.guest.cpio import CpioTree

DATA_DEVICE = "/dev/vda"
#: The guest's init sets these when adbd listens; earlier they would not be true.
_SET_BY_INIT = frozenset({"sys.boot_completed", "dev.bootcomplete"})


def boot_conf(config: DeviceConfig, *, idle_s: int = 0, epoch_s: int | None = None) -> str:
    """The lines of /lmk/boot.conf (docs/guest.md), in the order in which init carries them out."""
    lines = [f"epoch {int(time.time()) if epoch_s is None else epoch_s}", f"hostname {config.name}"]
    lines += [f"sysctl vm/{name} {value}" for name, value in sorted(config.vm.items())]
    lines.append(f"mglru {int(config.kernel.mglru)}")
    lines.append(f"memcg {config.kernel.memcg}")
    if config.zram is not None:
        lines.append(f"zram {config.zram.size_bytes} {config.zram.algorithm}")
    lines.append(f"data {DATA_DEVICE} ext4")
    if idle_s:
        lines.append(f"idle {idle_s}")
    return "\n".join(lines) + "\n"


def build_prop(properties: Mapping[str, str]) -> str:
    """Properties as build.prop has them, sorted by name."""
    return "".join(f"{name}={value}\n" for name, value in sorted(properties.items()) if name not in _SET_BY_INIT)


def make_overlay(config: DeviceConfig, *, idle_s: int = 0, extra_properties: Mapping[str, str] | None = None) -> bytes:
    """The archive to append to the image's initramfs. ``extra_properties`` win over the config's."""
    tree = CpioTree()
    tree.add_file("lmk/boot.conf", boot_conf(config, idle_s=idle_s).encode())
    properties = {**config.properties, **(extra_properties or {})}
    tree.add_file("system/build.prop", build_prop(properties).encode())
    return tree.archive()
