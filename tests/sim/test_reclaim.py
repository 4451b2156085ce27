"""Reclaim, zram and regions: what swapping frees, what comes back, and what counts as a stall."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.sim.lru_memcg import MemcgLru
from lmk.sim.memory import Memory, per_app_memcg
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.zone import MIN, PAGE_BYTES
from lmk.sim.zram import Zram, stored_bytes
from lmk.units import MIB, NS_PER_S
from tests.sim.device import config, published

DRAW = Random(0).getrandbits
FOR_EVER_NS = 10**15


def filled(name: str = "phone-4gb", **changes: object) -> tuple[Memory, Region, Region]:
    """A device with half its memory anonymous and a quarter file cache, nothing of it in use."""
    memory = Memory(config(name, **changes), published(), DRAW)
    anon, file = Region("anon", ANON, 0, stored_bytes(2000)), Region("file", FILE, 10**7)
    memory.write_new(anon, memory.zones.managed // 2, 0)
    memory.read_file(file, memory.zones.managed // 4, 0, 0)
    return memory, anon, file


@pytest.mark.parametrize(("permille", "expected"), [(1000, 4096), (2000, 2048), (4000, 1024), (500, 4096), (0, 0)])
def test_a_page_takes_its_share_of_the_pool(permille: int, expected: int) -> None:
    assert stored_bytes(permille) == expected


@given(moves=st.lists(st.integers(-400, 400), max_size=40), overhead=st.integers(1000, 1200))
def test_the_pool_is_never_smaller_than_what_it_holds(moves: list[int], overhead: int) -> None:
    zram = Zram(100 * MIB, overhead)
    pool = 0
    for move in moves:
        if move >= 0:
            pool += zram.store(min(move, zram.free), 1500)
        else:
            pool -= zram.drop(min(-move, zram.used), 1500)
        assert pool == zram.pool_pages
        assert zram.pool_pages * PAGE_BYTES * 1000 >= zram.compressed_bytes * overhead
        assert 0 <= zram.used <= zram.slots
    assert zram.compressed_bytes == zram.used * 1500


def test_swapping_out_frees_what_compression_saves() -> None:
    memory, anon, _ = filled()
    before = memory.zones.free
    pages, _ = memory.page_out(anon, 100_000, NS_PER_S)
    assert pages == 100_000
    # half of it, and 5.7 % of the other half for zsmalloc
    assert memory.zones.free - before == pytest.approx(100_000 - 50_000 * 1.057, abs=2)
    memory.swap_in(anon, 100_000, 2 * NS_PER_S)
    assert memory.zones.free == before
    assert (memory.events.pswpout, memory.events.pswpin) == (100_000, 100_000)


def test_reclaim_stops_at_its_budget_or_its_goal() -> None:
    memory, _, _ = filled()
    freed, spent = memory.reclaim(50_000, FOR_EVER_NS, kswapd=True, now_ns=NS_PER_S)
    while not freed:  # the first passes only age
        freed, spent = memory.reclaim(50_000, FOR_EVER_NS, kswapd=True, now_ns=NS_PER_S)
    assert freed <= 50_000 + 64
    assert spent >= freed * memory.calibration.reclaim_file_ns
    budget = 2_000_000
    _, spent = memory.reclaim(50_000, budget, kswapd=True, now_ns=NS_PER_S)
    assert spent <= budget + 2 * memory.usual_swap_out_ns + 60_000_000  # a walk may exceed it, a page at most once


def test_a_short_budget_makes_no_page_young() -> None:
    memory, anon, file = filled()
    while file.resident or not memory.lru.counts(ANON)[1]:
        memory.reclaim(10_000, FOR_EVER_NS, kswapd=True, now_ns=NS_PER_S)
    active, inactive = memory.lru.counts(ANON)
    freed = 0
    for _ in range(20):
        # Enough for a hundred pages of a file, and for a few of these.
        freed += memory.reclaim(100, 100 * memory.calibration.reclaim_file_ns, kswapd=True, now_ns=NS_PER_S)[0]
    assert freed
    assert memory.lru.counts(ANON) == (active, inactive - freed) and anon.accessed(NS_PER_S) == 0


def test_what_a_dead_process_mapped_is_not_in_use_and_costs_less() -> None:
    memory, _, file = filled(zram=None)
    now_ns = NS_PER_S
    while not memory.lru.counts(FILE)[1]:
        memory.reclaim(64, FOR_EVER_NS, kswapd=True, now_ns=now_ns)
    file.touch(file.resident, now_ns)
    before, calibration = file.resident, memory.calibration
    memory.reclaim(64, FOR_EVER_NS, kswapd=True, now_ns=now_ns)
    assert before - file.resident < 64  # all of it was touched
    file.touch(file.resident, now_ns)
    file.unmap(now_ns)
    freed, spent = memory.reclaim(64, FOR_EVER_NS, kswapd=True, now_ns=now_ns)
    while not freed:
        freed, spent = memory.reclaim(64, FOR_EVER_NS, kswapd=True, now_ns=now_ns)
    assert freed and spent == freed * calibration.reclaim_cache_ns < freed * calibration.reclaim_file_ns


def test_without_swap_reclaim_leaves_anonymous_memory_alone() -> None:
    memory, anon, file = filled(zram=None)
    resident = anon.resident
    for second in range(1, 40):
        memory.reclaim(100_000, FOR_EVER_NS, kswapd=True, now_ns=second * NS_PER_S)
    assert anon.resident == resident
    assert file.resident == 0
    assert memory.reclaim(1000, FOR_EVER_NS, kswapd=True, now_ns=NS_PER_S) == (0, 0)


def test_a_full_zram_takes_no_more() -> None:
    memory, anon, _ = filled()
    assert memory.zram is not None
    memory.page_out(anon, 10**9, NS_PER_S)
    assert memory.zram.free == 0 or anon.resident == 0
    assert memory.page_out(anon, 1000, NS_PER_S) == (0, 0) or anon.resident > 0
    assert memory.can_swap == (memory.zram.free > 0)


def test_files_read_again_soon_are_a_stall_and_read_first_are_not() -> None:
    memory, _, file = filled()
    assert memory.events.refault_file == 0
    while not file.out:
        memory.reclaim(20_000, FOR_EVER_NS, kswapd=True, now_ns=NS_PER_S)
    again = file.out
    assert memory.read_file(file, again, again, 2 * NS_PER_S)
    assert memory.events.refault_file == memory.events.restore_file == again


def reopened(memory: Memory, file: Region, group: int) -> Region:
    file.pages = file.resident + file.out
    return memory.open_files((file, Region("other", FILE, 0)), group)[0]


def test_a_group_of_its_own_forgets_what_the_last_one_evicted() -> None:
    memory, _, file = filled("go-1gb")
    assert isinstance(memory.lru, MemcgLru)
    memory.page_out(file, 10_000, NS_PER_S)
    opened = reopened(memory, file, 4711)
    assert (opened.out, opened.absent, opened.group) == (0, 10_000, 4711)


def test_cache_stays_charged_to_the_group_that_read_it() -> None:
    memory, _, file = filled("go-1gb")
    opened = reopened(memory, file, 4711)
    assert (opened.resident, opened.cached, opened.absent) == (0, file.resident, 0)
    assert opened.former == (file,) and file.group == 0
    # Nothing has to be read again until reclaim takes it from the group that is gone.
    memory.lru.offline(file.group)
    while not file.out:
        memory.reclaim(5_000, FOR_EVER_NS, kswapd=True, now_ns=NS_PER_S)
    lost = file.out
    assert opened.absent == lost
    memory.read_file(opened, lost, 0, 2 * NS_PER_S)
    assert (opened.resident, opened.absent) == (lost, 0)
    assert sum(memory.lru.counts(FILE)) == opened.cached
    # A third life finds both; what is empty is let go of.
    assert reopened(memory, opened, 4712).former == (opened, file)


def test_a_file_of_a_former_life_that_is_in_use_is_kept() -> None:
    memory, _, file = filled("go-1gb")
    opened = reopened(memory, file, 4711)
    opened.use(NS_PER_S, 0)
    assert file.in_use
    assert file.accessed(2 * NS_PER_S) == file.resident
    opened.use(0, 2 * NS_PER_S)
    assert not file.in_use


def test_per_app_groups_follow_the_property() -> None:
    assert per_app_memcg(config("go-1gb"))
    assert not per_app_memcg(config("phone-4gb"))
    go = config("go-1gb")
    assert not per_app_memcg(config("go-1gb", properties={**go.properties, "ro.config.per_app_memcg": "false"}))


def test_accessed_pages_grow_while_a_region_is_in_use() -> None:
    region = Region("hot", ANON, 1000)
    region.resident = 1000
    region.touch(100, 0)
    assert region.accessed(5 * NS_PER_S) == 100
    region.use(2 * NS_PER_S, 5 * NS_PER_S)
    assert [region.accessed((5 + s) * NS_PER_S) for s in (0, 1, 2, 3)] == [100, 600, 1000, 1000]
    region.set_accessed(0, 6 * NS_PER_S)
    assert region.accessed(7 * NS_PER_S) == 500
    region.use(0, 7 * NS_PER_S)
    assert region.accessed(99 * NS_PER_S) == 500


def test_room_is_what_the_marks_leave() -> None:
    memory, anon, _ = filled()
    memory.write_new(anon, memory.zones.room(MIN), NS_PER_S)
    assert memory.zones.room(MIN) == 0
    assert memory.available_pages() > 0
