"""Storage that file pages are read from: its own speed, and a limit that holds it down.

Source: mm/filemap.c, do_sync_mmap_readahead (a fault on a page that is not cached reads 128 KiB around it) and
do_async_mmap_readahead; mm/readahead.c, page_cache_async_ra (who goes on in order starts the next read of as much by
touching the first page of the one before: async_size is size); QEMU's throttling (util/throttle.c,
throttle_fix_bucket: a bucket that leaks at the limit's rate, and holds a tenth of a second of it).
"""

from __future__ import annotations

from lmk.config.calibration import Calibration
from lmk.config.device import DeviceConfig
from lmk.sim.process import READ_AROUND_PAGES
from lmk.sim.zone import PAGE_BYTES, PAGE_KIB
from lmk.units import NS_PER_MS, NS_PER_S, NS_PER_US


class Storage:
    """How long readers wait. All times are nanoseconds of one read of 128 KiB."""

    def __init__(self, config: DeviceConfig, calibration: Calibration) -> None:
        kib_per_s = calibration.storage_read_kib_per_s
        self._limit_ns = 0
        self._burst_ns = calibration.storage_burst_ms * NS_PER_MS
        if config.storage is not None:
            self._limit_ns = max(
                NS_PER_S // config.storage.iops,
                READ_AROUND_PAGES * PAGE_BYTES * NS_PER_S // config.storage.read_bytes_per_s,
            )
        rest_kib = (READ_AROUND_PAGES - 1) * PAGE_KIB
        self._request_ns = calibration.storage_request_us * NS_PER_US + rest_kib * NS_PER_S // kib_per_s
        # The bucket: how much of the limit is used up, and when that was true.
        self._level_ns = 0
        self._level_at_ns = 0

    def wait_ns(self, cpu_ns: int, readers: int, now_ns: int) -> int:
        """For each page, of a reader that spends ``cpu_ns`` on each: the next read is under way while the one
        before is being mapped."""
        read_ns = self._request_ns
        burst_ns = self._burst_ns
        if self._limit_ns and (not burst_ns or self._level_ns + self._level_at_ns - now_ns >= burst_ns):
            limit_ns = self._limit_ns * readers
            if limit_ns > read_ns:
                read_ns = limit_ns
        wait_ns = read_ns - READ_AROUND_PAGES * cpu_ns
        return wait_ns // READ_AROUND_PAGES if wait_ns > 0 else 0

    def note(self, pages: int, now_ns: int) -> None:
        """So many pages were read."""
        level_ns = self._level_ns + self._level_at_ns - now_ns
        if level_ns < 0:
            level_ns = 0
        self._level_ns = level_ns + pages * self._limit_ns // READ_AROUND_PAGES
        self._level_at_ns = now_ns
