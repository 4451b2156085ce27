"""kswapd: what it takes in one go, and where it stops."""

from __future__ import annotations

from random import Random

import pytest

from lmk.config.calibration import EMULATOR
from lmk.sim.machine import Machine
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.zone import HIGH, LOW
from lmk.units import NS_PER_S
from tests.sim.device import config, published


def full(name: str) -> tuple[Machine, Region]:
    """A device at its low mark: a file in its upper zone, which nobody maps any more, and anonymous memory below."""
    device = Machine(config(name), published(kind=EMULATOR), events_max=10**6, draw=Random(0).getrandbits)
    memory = device.memory
    zones = memory.zones
    # What CPUs keep for themselves has been given back.
    for active in (True, False):
        zones.reclaim(active=active)
    top = zones.zones[-1]
    file, anon = Region("file", FILE, 10**7, group=1), Region("anon", ANON, 10**7, 2048, group=2)
    memory.read_file(file, (top.free - top.user_marks[LOW]) // 2, 0, 0)
    file.unmap(0)
    # Aged until there is something to take.
    while not memory.reclaim(64, NS_PER_S, kswapd=True, now_ns=0)[0]:
        pass
    memory.lru.offline(1)
    memory.write_new(anon, zones.room(LOW), 0)
    anon.use(NS_PER_S // 10, 0)
    return device, file


def reclaimed(device: Machine) -> int:
    before = device.memory.events.pgsteal_file
    device.note_allocation()
    states = [device.kswapd.awake]
    device.advance(device.now_ns + 3 * NS_PER_S)
    assert [*states, device.kswapd.awake] == [True, False]
    return device.memory.events.pgsteal_file - before


def test_a_pass_takes_as_much_as_the_high_marks_add_up_to_while_a_zone_is_not_safe() -> None:
    device, file = full("phone-4gb")
    zones = device.memory.zones
    assert file.lower == 0 and len(zones.zones) == 2
    # The upper zone is above its high mark after a sixth of that.
    assert zones.high_sum <= reclaimed(device) <= zones.high_sum + 512
    assert zones.zones[0].free < zones.zones[0].user_marks[HIGH] < zones.zones[1].free


@pytest.mark.parametrize("name", ["go-1gb", "phone-2gb"])
def test_with_one_zone_a_pass_ends_at_its_high_mark(name: str) -> None:
    device, _ = full(name)
    zone = device.memory.zones.zones[0]
    short = zone.user_marks[HIGH] - zone.free
    assert short <= reclaimed(device) <= short + 512
    assert zone.free >= zone.user_marks[HIGH]


@pytest.mark.parametrize(("ms", "goes_on"), [(50, True), (150, False)])
def test_it_looks_again_a_tenth_of_a_second_after_it_has_finished(ms: int, goes_on: bool) -> None:
    """kswapd_try_to_sleep: below the high mark by then it goes on, after that only the low mark wakes it."""
    device, file = full("phone-2gb")
    memory = device.memory
    (zone,) = memory.zones.zones
    device.note_allocation()
    while device.kswapd.awake:
        device.advance(device.now_ns + NS_PER_S // 1000)
    device.advance(device.now_ns + ms * NS_PER_S // 1000)
    # Between low and high.
    memory.zones.take((zone.user_marks[HIGH] - zone.user_marks[LOW]) // 2)
    device.note_allocation()
    assert zone.user_marks[LOW] < zone.free < zone.user_marks[HIGH] and not device.kswapd.awake
    before = memory.events.pgsteal_file
    device.advance(device.now_ns + NS_PER_S)
    reclaimed = memory.events.pgsteal_file - before
    assert (zone.free >= zone.user_marks[HIGH]) == goes_on == (reclaimed > 0)
    assert file.resident > 0


def test_what_cpus_keep_for_themselves_comes_back_with_the_first_pages_reclaimed() -> None:
    device, _ = full("phone-2gb")
    zones = device.memory.zones
    zones.keep(10_000)
    kept = zones.listed
    device.note_allocation()
    device.advance(device.now_ns + NS_PER_S // 100)
    assert zones.listed < kept // 4 and device.memory.events.pgsteal_file
