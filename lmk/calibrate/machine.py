"""What a calibration says about the device itself."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Machine:
    """A device as it is before anything runs on it."""

    model: str
    kernel: str
    cpus: int
    mem_total_kib: int
    #: MemTotal that is neither free nor page cache while nothing runs.
    used_kib: int
    #: Of every CPU, what runs while nothing is asked of the device.
    base_permille: int
    #: The algorithm that swap uses, None without zram.
    algorithm: str | None
