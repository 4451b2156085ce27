"""Refuse what cannot be simulated, before anything is: a device whose own marks leave no memory to use."""

from __future__ import annotations

from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.config.quantity import format_bytes
from lmk.errors import UserError
from lmk.sim.zone import HIGH, PAGE_BYTES, Zones, reserved_bytes


def check_plan(config: DeviceConfig, calibration: Calibration) -> None:
    """Raises UserError for memory that the kernel's reserve or the watermarks take up whole.

    An app that is larger than RAM and swap together is possible: it ends with the kernel's OOM killer.
    """
    reserved = reserved_bytes(
        config.memory_bytes, config.arch, calibration.kernel_fixed_kib, calibration.kernel_reserved_permille
    )
    if reserved >= config.memory_bytes:
        raise UserError(
            f"{config.name}: {format_bytes(config.memory_bytes)} of memory is less than the kernel takes for itself",
            "give it more memory",
        )
    zones = Zones(config.memory_bytes, reserved, config.arch, config.vm)
    high = sum(zone.user_marks[HIGH] for zone in zones.zones)
    fixed = config.unreclaimable_bytes // PAGE_BYTES
    if high + fixed >= zones.managed:
        raise UserError(
            f"{config.name}: high watermarks of {format_bytes(high * PAGE_BYTES)} and unreclaimable memory of "
            f"{format_bytes(config.unreclaimable_bytes)} leave nothing of {format_bytes(zones.managed * PAGE_BYTES)}",
            "lower vm.min_free_kbytes, vm.watermark_scale_factor or unreclaimable",
        )
