"""Watermarks and reserves against numbers that real kernels print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.sim.zone import HIGH, LOW, MIN, Zones, bounce_bytes, reserved_bytes
from lmk.units import GIB, MIB


def test_marks_are_those_of_setup_per_zone_wmarks() -> None:
    # mm/page_alloc.c by hand: 2 GiB, min_free_kbytes 8192 -> 2048 pages; scale 65/10000 of 524288 is 3407
    zones = Zones(2 * GIB, 0, "x86_64", {"min_free_kbytes": 8192, "watermark_scale_factor": 65})
    assert [zone.name for zone in zones.zones] == ["DMA32"]
    assert zones.zones[0].marks == [2048, 2048 + 3407, 2048 + 2 * 3407]
    assert zones.room(LOW) == 524288 - 5455


def test_min_free_kbytes_is_what_khugepaged_wants() -> None:
    # set_recommended_min_free_kbytes: 512 pages * 1 zone * (2 + 3 * 3); a quarter of it between the marks, unless a
    # scale factor of 10 asks for more: 524. 22,528 kB is also what the guest's kernel prints with 2 GiB.
    zones = Zones(2 * GIB, 0, "x86_64", {})
    assert zones.zones[0].marks == [5632, 5632 + 1408, 5632 + 2816]
    # two zones: twice as much, in proportion to their sizes
    assert [zone.marks[MIN] for zone in Zones(4 * GIB, 0, "x86_64", {}).zones] == [5632, 5632]


def test_khugepaged_takes_at_most_a_twentieth_of_memory() -> None:
    # calculate_min_free_kbytes: sqrt(16 * 262144 kB) = 2048 kB: 512 pages, high mark 768; (65536 - 768) / 20
    zones = Zones(256 * MIB, 0, "x86_64", {})
    assert zones.zones[0].marks[MIN] == 3238


def test_min_free_kbytes_is_the_kernels_own_square_root_if_that_is_more() -> None:
    # calculate_min_free_kbytes: sqrt(16 * 268435456 kB) = 65536 kB, above the 45056 kB of khugepaged's two zones
    zones = Zones(256 * GIB, 0, "x86_64", {})
    assert sum(zone.marks[MIN] for zone in zones.zones) in (16383, 16384)


def test_memory_above_4_gib_has_a_zone_of_its_own_and_protects_the_lower() -> None:
    # q35 maps 2 GiB below 4 GiB; lowmem_reserve_ratio of DMA32 is 256: 524288 // 256
    zones = Zones(4 * GIB, 0, "x86_64", {"min_free_kbytes": 8192, "watermark_scale_factor": 10})
    dma32, normal = zones.zones
    assert (dma32.protection, normal.protection) == ((0, 2048, 2048), (0, 0, 0))
    assert dma32.marks[MIN] == normal.marks[MIN] == 1024
    assert dma32.user_marks[MIN] == 1024 + 2048


def test_devices_that_reach_4_gib_need_bounce_buffers_for_what_lies_above() -> None:
    # MemTotal of the emulated guests: 2 GiB has 2044552 kB of it, 4 GiB 4039552 kB; 62 MiB less than twice that, less
    # what does not grow with memory
    assert [bounce_bytes(gib * GIB, "x86_64") for gib in (1, 2, 3, 4)] == [0, 0, 64 * MIB, 64 * MIB]
    assert [bounce_bytes(gib * GIB, "arm64") for gib in (3, 4)] == [0, 64 * MIB]
    small, large = (reserved_bytes(gib * GIB, "x86_64", 14852, 18) for gib in (2, 4))
    assert abs((2 * GIB - small) // 1024 - 2044552) < 1024
    assert abs((4 * GIB - large) // 1024 - 4039552) < 2048


def test_allocations_take_the_upper_zone_first_and_kswapd_is_content_with_one() -> None:
    zones = Zones(4 * GIB, 0, "x86_64", {"min_free_kbytes": 8192})
    dma32, normal = zones.zones
    zones.take(normal.managed - normal.user_marks[LOW])
    assert (normal.free, dma32.free) == (normal.user_marks[LOW], dma32.managed)
    zones.take(zones.room(LOW))
    assert not zones.balanced()
    normal.free = normal.user_marks[HIGH]
    assert zones.balanced()


@given(
    memory_mib=st.integers(256, 16384),
    moves=st.lists(st.integers(0, 400_000), max_size=30),
    arch=st.sampled_from(["x86_64", "arm64"]),
)
def test_pages_are_neither_lost_nor_made(memory_mib: int, moves: list[int], arch: str) -> None:
    zones = Zones(memory_mib * MIB, 30 * MIB, arch, {})
    taken = 0
    for index, pages in enumerate(moves):
        if index % 3 == 2:
            back = min(pages, taken)
            zones.give(back)
            taken -= back
        else:
            part = min(pages, zones.room(MIN))
            zones.take(part)
            taken += part
        assert zones.free == zones.managed - taken == sum(zone.free for zone in zones.zones)
        assert all(0 <= zone.free <= zone.managed for zone in zones.zones)


def test_available_is_si_mem_available() -> None:
    zones = Zones(2 * GIB, 0, "x86_64", {"min_free_kbytes": 8192, "watermark_scale_factor": 65})
    zones.take(500_000)
    low, high = 5455, 8862
    assert zones.available(100_000, 0) == 24288 - high + 100_000 - low
    assert zones.available(6_000, 0) == 24288 - high + 6_000 - 3_000


@pytest.mark.parametrize("memory", [2 * GIB, 4 * GIB])
def test_the_kernel_may_go_below_every_mark(memory: int) -> None:
    zones = Zones(memory, 0, "x86_64", {})
    zones.take(zones.managed)
    assert zones.free == 0
    assert all(zone.free == 0 for zone in zones.zones)


def test_cpus_keep_free_pages_on_lists_that_no_mark_counts() -> None:
    zones = Zones(2 * GIB, 0, "x86_64", {"min_free_kbytes": 8192, "watermark_scale_factor": 65})
    low = zones.zones[0].marks[LOW]
    zones.fill_lists(2, "6.12")
    assert zones.free == zones.managed - low // 2
    zones.take(100_000)
    # While kswapd runs a list holds four batches of 63 pages; what ends then gives everything back.
    zones.reclaim(active=True)
    assert zones.free == zones.managed - 100_000 - 2 * 4 * 63
    zones.give(1000)
    zones.keep(1000)
    assert zones.free == zones.managed - 99_000 - 2 * 4 * 63
    # After that they are filled by what the next process gives back.
    zones.reclaim(active=False)
    zones.give(99_000)
    zones.keep(99_000)
    assert zones.free == zones.managed - low // 2


def test_lists_of_old_kernels_hold_six_batches() -> None:
    zones = Zones(2 * GIB, 0, "x86_64", {})
    zones.fill_lists(4, "5.10")
    assert zones.managed - zones.free == 4 * 6 * 63 // 2
