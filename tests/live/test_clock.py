"""The device clock: the shortest round trip decides, and time never goes back."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from lmk.live.clock import DeviceClock

MS = 1_000_000


def test_shortest_round_trip_is_believed() -> None:
    clock = DeviceClock()
    base = time.monotonic_ns()
    clock.observe(base, 5_000 * MS + base, base + 40 * MS)  # wrong by up to 20 ms
    clock.observe(base + 50 * MS, 7_000 * MS + base + 51 * MS, base + 52 * MS)
    offset_ms = (clock.now_ns() - time.monotonic_ns()) / MS
    assert abs(offset_ms - 7_000) < 5


@given(st.lists(st.integers(0, 10**12), max_size=20))
def test_time_never_goes_back(reached: list[int]) -> None:
    clock = DeviceClock()
    last = clock.now_ns()
    for device_ns in reached:
        now = clock.reached(device_ns)
        assert now >= last
        assert now >= device_ns
        last = clock.now_ns()
        assert last >= now
