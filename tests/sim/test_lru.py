"""Both page replacement algorithms: nothing is lost, and what is used survives what is not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.sim.lru import DEF_PRIORITY, KSWAPD_PRIORITY, Batch, Lru
from lmk.sim.lru_classic import ClassicLru
from lmk.sim.lru_gen import GenerationLru
from lmk.sim.lru_memcg import MemcgLru
from lmk.sim.region import ANON, FILE, Region
from lmk.units import NS_PER_MS, NS_PER_S

#: Pages that a pass of kswapd wants.
GOAL = 10_000


class PerApp(MemcgLru):
    """Four groups, one per region of the property below."""

    def __init__(self, swappiness: int) -> None:
        super().__init__(lambda: GenerationLru(swappiness), GOAL, Random(0).getrandbits)


ALGORITHMS = [GenerationLru, ClassicLru, PerApp]


def grow(lru: Lru, region: Region, pages: int, now_ns: int = 0) -> None:
    region.resident += pages
    lru.add(region, pages, refault=False, now_ns=now_ns)


def evict(lru: Lru, want: int, now_ns: int, *, can_swap: bool = True) -> dict[str, int]:
    """Isolate until so many pages are gone or nothing moves any more."""
    gone: dict[str, int] = {}
    idle = 0
    while want > 0 and idle < 50:
        batch = lru.isolate(want, anon=want if can_swap else 0, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=now_ns)
        for region, pages in batch.victims:
            region.resident -= pages
            region.out += pages
            region.out_mark = lru.mark(region)
            lru.note_reclaimed(region, pages)
            gone[region.name] = gone.get(region.name, 0) + pages
            want -= pages
        idle = 0 if batch.victims else idle + 1
    return gone


def total(lru: Lru) -> int:
    return sum(sum(lru.counts(kind)) for kind in (ANON, FILE))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_hot_set_in_use_outlives_cold_pages(algorithm: type[Lru]) -> None:
    lru = algorithm(100)  # type: ignore[call-arg]
    hot, cold = Region("hot", ANON, 10_000), Region("cold", ANON, 10_000)
    grow(lru, hot, 10_000)
    hot.use(NS_PER_S, 0)
    lru.follow(hot)
    grow(lru, cold, 10_000)
    now_ns = 0
    gone: dict[str, int] = {}
    for _ in range(90):
        now_ns += 200 * NS_PER_MS
        for name, pages in evict(lru, 100, now_ns).items():
            gone[name] = gone.get(name, 0) + pages
    assert gone["cold"] > 5 * gone.get("hot", 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_longest_unused_goes_first(algorithm: type[Lru]) -> None:
    lru = algorithm(100)  # type: ignore[call-arg]
    regions = [Region(f"app{index}", ANON, 5_000) for index in range(4)]
    for index, region in enumerate(regions):
        grow(lru, region, 5_000, index * NS_PER_S)
        evict(lru, 1, index * NS_PER_S)  # reclaim has seen, and aged, what came before
    gone = evict(lru, 6_000, 10 * NS_PER_S)
    assert gone.get("app0", 0) >= gone.get("app3", 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_swap_only_file_pages_go(algorithm: type[Lru]) -> None:
    lru = algorithm(100)  # type: ignore[call-arg]
    anon, file = Region("anon", ANON, 5_000), Region("file", FILE, 5_000)
    grow(lru, anon, 5_000)
    grow(lru, file, 5_000)
    gone = evict(lru, 9_000, NS_PER_S, can_swap=False)
    assert set(gone) == {"file"}
    assert anon.resident == 5_000


@pytest.mark.parametrize("swappiness", [0, 1, 200])
def test_swappiness_at_its_ends(swappiness: int) -> None:
    lru = GenerationLru(swappiness)
    anon, file = Region("anon", ANON, 5_000), Region("file", FILE, 5_000)
    grow(lru, anon, 5_000)
    grow(lru, file, 5_000)
    gone = evict(lru, 3_000, NS_PER_S)
    assert set(gone) == ({"anon"} if swappiness == 200 else {"file"})


def test_refaults_turn_reclaim_to_the_other_kind() -> None:
    lru = GenerationLru(100)
    anon, file = Region("anon", ANON, 50_000), Region("file", FILE, 50_000)
    grow(lru, anon, 50_000)
    grow(lru, file, 50_000)
    evict(lru, 1_000, NS_PER_S)
    assert file.out and lru.note_refault(file, 900)
    before = anon.out
    evict(lru, 1_000, NS_PER_S)
    assert anon.out > before


MOVES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("agret"), st.integers(1, 3_000)), max_size=60)


@settings(deadline=None)
@given(moves=MOVES, algorithm=st.sampled_from(ALGORITHMS), swappiness=st.integers(0, 200))
def test_lists_hold_exactly_what_is_resident(
    moves: list[tuple[int, str, int]], algorithm: type[Lru], swappiness: int
) -> None:
    lru = algorithm(swappiness)  # type: ignore[call-arg]
    regions = [Region(str(index), index % 2, 0, group=index) for index in range(4)]
    now_ns = 0
    for index, move, pages in moves:
        region = regions[index]
        now_ns += 50 * NS_PER_MS
        if move == "a":
            grow(lru, region, pages, now_ns)
        elif move == "g":
            evict(lru, pages, now_ns)
        elif move == "r":
            pages = min(pages, region.resident)
            lru.remove(region, pages)
            region.resident -= pages
        elif move == "e":
            back = min(pages, region.out)
            lru.note_refault(region, back)
            region.out -= back
            region.resident += back
            lru.add(region, back, refault=True, now_ns=now_ns)
        else:
            region.use(NS_PER_S if pages % 2 else 0, now_ns)
            lru.follow(region)
        assert total(lru) == sum(region.resident for region in regions)
        assert all(count >= 0 for kind in (ANON, FILE) for count in lru.counts(kind))
        assert all(region.resident >= 0 for region in regions)


def test_who_looks_from_earlier_in_the_same_step_sees_no_negative_bits() -> None:
    region = Region("hot", ANON, 100)
    region.resident = 100
    # An app that ran first in a step has come to its end; kswapd in the same step looks at its beginning.
    region.use(1 * NS_PER_S, 5 * NS_PER_MS)
    assert region.accessed(3 * NS_PER_MS) == 0
    region.touch(40, 4 * NS_PER_MS)
    assert region.accessed(4 * NS_PER_MS) == 40


def age(lru: GenerationLru, now_ns: int) -> int:
    """Let the lists age until a walk has taken place; the accessed pages that it came across."""
    for _ in range(200):
        batch = lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=now_ns)
        for region, pages in batch.victims:
            region.resident -= pages
        if batch.aged:
            return batch.walked
    raise AssertionError("nothing aged")


def test_walks_that_take_no_time_are_never_overtaken() -> None:
    lru = GenerationLru(100)
    grow(lru, Region("app", ANON, 4096), 4096, now_ns=100)
    age(lru, 100)
    # Another one in the same step, whose turn began earlier.
    assert age(lru, 50) == 0


def test_a_walk_leaves_out_page_tables_that_are_new() -> None:
    lru = GenerationLru(100)
    old, new = Region("old", ANON, 4096), Region("new", ANON, 4096)
    grow(lru, old, 4096)
    assert age(lru, 0) == 4096  # the first walk looks at every page table
    grow(lru, new, 4096)
    assert age(lru, 0) == 0 and new.accessed(0) == 4096  # tables that are new are not in its filter


def test_reclaim_tells_the_next_walk_where_it_met_accessed_pages() -> None:
    lru = GenerationLru(100)
    grow(lru, Region("first", ANON, 64), 64)
    age(lru, 0)
    region = Region("app", ANON, 4096)
    grow(lru, region, 4096)
    batches = (lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0) for _ in range(20))
    kept = next(batch.kept for batch in batches if batch.met)
    assert region.watched == kept > 0 and region.accessed(0) == 4096 - kept
    region.touch(region.resident, 0)
    assert kept < 512 <= age(lru, 0)  # whole tables


def test_reclaim_looks_no_further_than_for_what_it_wants() -> None:
    lru = GenerationLru(100)
    region = Region("app", ANON, 4096)
    grow(lru, region, 4096)
    age(lru, 0)
    age(lru, 0)
    region.touch(1024, 0)
    batches = (lru.isolate(96, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0) for _ in range(9))
    batch = next(batch for batch in batches if batch.victims)
    # One page in four is in use.
    assert (batch.pages, batch.kept, batch.met) == (72, 24, 24)


def test_a_visit_to_a_group_in_use_ends_after_as_many_pages_as_its_priority_allows() -> None:
    lru = MemcgLru(lambda: GenerationLru(100), GOAL, Random(0).getrandbits)
    busy = all_cold(lru, [20_000])[0]
    busy.touch(busy.resident, 0)
    lru.begin_pass(kswapd=True)
    batches = (lru.isolate(10_000, anon=0, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0) for _ in range(3))
    batch = next(batch for batch in batches if batch.met)
    # get_nr_to_scan: 20,000 >> 6 in batches of 64
    assert (batch.pages, batch.met) == (0, 320)


def test_direct_reclaim_goes_round_once_and_then_has_failed() -> None:
    lru = MemcgLru(lambda: GenerationLru(100), GOAL, Random(0).getrandbits)
    groups = all_cold(lru, [8192] * 3)

    def one_pass() -> list[tuple[int, int]]:
        lru.begin_pass(kswapd=False)
        batches = [lru.isolate(32, anon=0, priority=DEF_PRIORITY, kswapd=False, now_ns=0) for _ in range(5)]
        return [(batch.pages, batch.met) for batch in batches]

    for group in groups:
        group.touch(8192, 0)
    one_pass()  # the first visit may find the oldest generation empty
    for group in groups:
        group.touch(8192, 0)
    assert one_pass() == [(0, 64)] * 3 + [(0, 0)] * 2


def test_a_removed_group_is_aged_twice_before_its_turn_is_over() -> None:
    aged: list[int] = []

    class Logged(GenerationLru):
        def isolate(self, want: int, *, anon: int, priority: int, kswapd: bool, now_ns: int) -> Batch:
            batch = super().isolate(want, anon=anon, priority=priority, kswapd=kswapd, now_ns=now_ns)
            if batch.aged:
                aged.append(groups.index(self))
            return batch

    groups: list[Logged] = []

    def make() -> Logged:
        groups.append(Logged(100))
        return groups[-1]

    lru = MemcgLru(make, GOAL, Random(0).getrandbits)
    for group in range(3):
        grow(lru, Region(f"app{group}", ANON, 500, group=group), 500)
    lru.offline(1)
    while len(aged) < 4:
        lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0)
    # All have to be aged; only the one that was removed comes up again in the same round.
    assert sorted(aged) == [0, 1, 1, 2]


def test_a_removed_group_is_taken_whole_however_its_generations_are_filled() -> None:
    def next_is_aging(*, removed: bool) -> bool:
        lru = GenerationLru(100)
        cold, young = Region("cold", FILE, 64), Region("young", FILE, 4032)
        grow(lru, cold, 64)
        age(lru, 0)
        grow(lru, young, 4032)
        age(lru, 0)
        if removed:
            lru.scrape()
        # The first visit finds the oldest generation empty.
        return any(lru.isolate(32, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0).aged for _ in range(2))

    # 64 of 4096 pages lie in the oldest generation: get_nr_to_scan has the group of a living app aged.
    assert next_is_aging(removed=False)
    assert not next_is_aging(removed=True)


def test_lists_of_a_whole_device_are_no_removed_group_when_a_process_is_gone() -> None:
    lru = GenerationLru(100)
    lru.offline(7)
    grow(lru, Region("cold", FILE, 64), 64)
    age(lru, 0)
    grow(lru, Region("young", FILE, 4032), 4032)
    age(lru, 0)
    assert any(lru.isolate(32, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0).aged for _ in range(2))


def test_what_is_not_touched_again_is_cold_after_two_walks() -> None:
    lru = GenerationLru(100)
    region = Region("app", ANON, 4096)
    grow(lru, region, 4096)
    age(lru, 0)
    assert lru.counts(ANON) == (4096, 0)  # found accessed, and so in the generation before the new one
    region.touch(1024, 0)
    age(lru, 0)
    assert lru.counts(ANON) == (1024, 3072)


def test_direct_reclaim_ages_nothing_before_it_has_found_nothing() -> None:
    lru = GenerationLru(100)
    grow(lru, Region("app", ANON, 4096), 4096)
    assert lru.isolate(64, anon=10**6, priority=DEF_PRIORITY, kswapd=False, now_ns=0).empty
    assert lru.isolate(64, anon=10**6, priority=DEF_PRIORITY - 1, kswapd=False, now_ns=0).aged


def cold_group(lru: MemcgLru, group: int, pages: int) -> Region:
    """A group of file pages that a device in use has long forgotten."""
    region = Region(f"app{group}", FILE, pages, group=group)
    grow(lru, region, pages)
    return region


def all_cold(lru: MemcgLru, sizes: list[int]) -> list[Region]:
    """Such groups, aged until nothing in them is young; no page is lost on the way."""
    regions = [cold_group(lru, number, pages) for number, pages in enumerate(sizes)]
    while lru.counts(FILE)[1] < sum(sizes):
        assert not lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0).victims
    return regions


def test_direct_reclaim_takes_nothing_from_small_groups() -> None:
    lru = MemcgLru(lambda: GenerationLru(100), GOAL, Random(0).getrandbits)
    small, large = all_cold(lru, [4095, 4096])
    found = []
    for _ in range(20):
        lru.begin_pass(kswapd=False)
        found.append(lru.isolate(32, anon=10**6, priority=DEF_PRIORITY, kswapd=False, now_ns=0).victims)
    assert {region for victims in found for region, _ in victims} == {large}
    assert small.resident == 4095


def test_a_group_that_is_passed_by_while_it_is_empty_counts_as_young() -> None:
    lru = MemcgLru(lambda: GenerationLru(100), GOAL, Random(0).getrandbits)
    old = cold_group(lru, 0, 20_000)
    while not lru.counts(FILE)[1]:
        lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0)
    lru.online(1)
    gone = evict(lru, 4000, 0)
    new = cold_group(lru, 1, 20_000)
    gone |= evict(lru, 4000, 0)
    # Nobody looks at the new one as long as there is something cold in the old one.
    assert list(gone) == [old.name] and new.resident == 20_000


def test_who_comes_while_a_group_is_walked_keeps_the_rest_of_it_young() -> None:
    lru = GenerationLru(100, walk_ns=1000)
    region = Region("app", ANON, 4096)
    grow(lru, region, 4096)
    # min_seq goes up first
    while not (batch := lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0)).aged:
        pass
    assert (batch.walked, batch.until_ns) == (4096, 4096_000)
    # A quarter of the pages are behind the walker when direct reclaim comes, and finds nobody left to walk.
    other = lru.isolate(64, anon=10**6, priority=DEF_PRIORITY - 1, kswapd=False, now_ns=1024_000)
    assert other.aged and not other.walked
    age(lru, 5_000_000)
    # What the first had behind it is cold now; the rest was put into the generation after it.
    assert lru.counts(ANON) == (3072, 1024)


def test_a_walk_comes_to_files_before_the_memory_that_was_mapped_earlier() -> None:
    lru = GenerationLru(100, walk_ns=1000)
    arena, file = Region("arena", ANON, 4096), Region("file", FILE, 4096)
    grow(lru, arena, 4096)
    grow(lru, file, 4096)
    while not lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0).aged:
        pass
    # Overtaken when the walker has left the file and a quarter of the rest behind.
    assert lru.isolate(64, anon=10**6, priority=DEF_PRIORITY - 1, kswapd=False, now_ns=5120_000).aged
    age(lru, 10_000_000)
    assert lru.counts(FILE) == (0, 4096) and lru.counts(ANON) == (3072, 1024)


def looks(lru: Lru, count: int, now_ns: int) -> tuple[int, int]:
    """So many looks of kswapd at 64 pages each; victims, and pages met in use."""
    gone = met = 0
    for _ in range(count):
        batch = lru.isolate(64, anon=0, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=now_ns)
        for region, pages in batch.victims:
            region.resident -= pages
        gone, met = gone + batch.pages, met + batch.met
    return gone, met


def test_reclaim_evicts_nothing_of_what_is_wholly_in_use() -> None:
    lru = GenerationLru(100)
    region = Region("files", FILE, 4096)
    grow(lru, region, 4096)
    age(lru, 0)
    age(lru, 0)
    region.touch(4096, 0)
    # What was met is young, and no longer accessed; what lies in the oldest generation still is, to the last page.
    assert looks(lru, 25, 0) == (0, 25 * 64)


def test_half_of_a_removed_group_is_taken_at_each_visit() -> None:
    lru = MemcgLru(lambda: GenerationLru(100), GOAL, Random(0).getrandbits)
    removed, living = all_cold(lru, [8192, 8192])
    lru.offline(0)
    lru.begin_pass(kswapd=True)
    runs: list[tuple[str, int]] = []
    for _ in range(150):
        batch = lru.isolate(64, anon=0, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0)
        for region, pages in batch.victims:
            region.resident -= pages
            if runs and runs[-1][0] == region.name:
                runs[-1] = (region.name, runs[-1][1] + pages)
            else:
                runs.append((region.name, pages))
    # get_nr_to_scan is asked after each batch, and try_to_shrink_lruvec ends when it has looked at what is left
    assert next(pages for name, pages in runs if name == removed.name) == 4096
    assert living.resident < 8192


@settings(deadline=None)
@given(moves=MOVES)
def test_a_visit_ends_only_when_there_is_nothing_more_to_find_without_aging(moves: list[tuple[int, str, int]]) -> None:
    lru = GenerationLru(100)
    regions = [Region(str(index), index % 2, 0) for index in range(4)]
    empty = False
    for index, move, pages in moves:
        region = regions[index]
        if move == "a":
            grow(lru, region, pages)
        elif move == "r":
            gone = min(pages, region.resident)
            lru.remove(region, gone)
            region.resident -= gone
        else:
            batch = lru.isolate(pages, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0)
            for victim, taken in batch.victims:
                victim.resident -= taken
            # evict_folios: having left an empty generation behind counts, and the visit goes on with the next.
            assert not (empty and batch.pages)
            empty = batch.empty
            continue
        empty = False


@pytest.mark.parametrize(("at_ns", "left"), [(2048_000, 4096), (5120_000, 0)])
def test_a_walk_that_is_overtaken_ends_where_its_mapping_does(at_ns: int, left: int) -> None:
    lru = GenerationLru(100, walk_ns=1000)
    arena, file = Region("arena", ANON, 4096), Region("file", FILE, 4096)
    grow(lru, arena, 4096)
    grow(lru, file, 4096)
    while not lru.isolate(64, anon=10**6, priority=KSWAPD_PRIORITY, kswapd=True, now_ns=0).aged:
        pass
    assert lru.isolate(64, anon=10**6, priority=DEF_PRIORITY - 1, kswapd=False, now_ns=at_ns).aged
    # Within the file: the walker never comes to the arena, whose accessed bits stay.
    assert (arena.accessed(at_ns), file.accessed(at_ns)) == (left, 0)


def test_a_second_walk_beside_one_that_was_overtaken_raises_the_generation_at_once() -> None:
    lru = GenerationLru(100, walk_ns=1000)
    file = Region("file", FILE, 4096)
    grow(lru, file, 4096)
    age(lru, 0)
    for now_ns in (1024_000, 2048_000):
        assert lru.isolate(64, anon=0, priority=DEF_PRIORITY - 1, kswapd=False, now_ns=now_ns).aged
    # A quarter was found before anybody came, a quarter after the first did; the rest the walker has yet to come to.
    assert lru.counts(FILE) == (3072, 1024)
