"""How long readers of files wait."""

from __future__ import annotations

import attrs
import pytest

from lmk.config import device
from lmk.sim.process import READ_AROUND_PAGES
from lmk.sim.storage import Storage
from lmk.units import MIB, NS_PER_S
from tests.sim.device import config, published


def storage(limit_mib_per_s: int) -> Storage:
    """One whose own speed does not matter."""
    fast = attrs.evolve(published(), storage_read_kib_per_s=10**9, storage_request_us=0, storage_burst_ms=0)
    limit = device.Storage(read_bytes_per_s=limit_mib_per_s * MIB, iops=10**9)
    return Storage(config("phone-2gb", storage=limit), fast)


@pytest.mark.parametrize("cpu_ns", [0, 5_000, 15_000, 16_000, 20_000])
def test_the_next_read_is_under_way_while_this_one_is_mapped(cpu_ns: int) -> None:
    # 250 MiB/s are 15.6 us a page.
    page_ns = NS_PER_S * 4 // 1024 // 250
    wait_ns = storage(250).wait_ns(cpu_ns, 1, 0)
    assert abs(cpu_ns + wait_ns - max(cpu_ns, page_ns)) <= 1


def test_readers_share_the_limit() -> None:
    assert storage(250).wait_ns(0, 2, 0) == pytest.approx(2 * storage(250).wait_ns(0, 1, 0), abs=1)


def test_a_burst_comes_as_fast_as_storage_gives_it() -> None:
    calibration = attrs.evolve(published(), storage_burst_ms=100)
    limited = Storage(config("phone-2gb", storage=device.Storage(read_bytes_per_s=10 * MIB, iops=10**6)), calibration)
    free = Storage(config("phone-2gb", storage=None), calibration)
    assert limited.wait_ns(0, 1, 0) == free.wait_ns(0, 1, 0)
    limited.note(10 * READ_AROUND_PAGES, 0)
    assert limited.wait_ns(0, 1, 0) > free.wait_ns(0, 1, 0)
