"""/proc as text and as values: parsing what is printed gives what is handed out, for any state and every kernel."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.config.calibration import find_calibration, load_calibration
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.procfs.meminfo import parse_meminfo
from lmk.procfs.psi import parse_pressure
from lmk.procfs.vmstat import parse_vmstat
from lmk.procfs.zoneinfo import parse_zoneinfo
from lmk.sim import procfs
from lmk.sim.memory import Memory
from lmk.sim.psi import Psi
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.zone import MIN
from lmk.units import NS_PER_MS, NS_PER_S

CALIBRATION = load_calibration(find_calibration("published"))
DEVICES = [load_device_config(find_config(name)) for name in ("go-1gb", "phone-4gb")]
BASES = ("5.10", "6.1", "6.12")


@settings(deadline=None, max_examples=60)
@given(
    device=st.sampled_from(DEVICES),
    base=st.sampled_from(BASES),
    moves=st.lists(st.tuples(st.sampled_from("afrl"), st.integers(1, 60_000)), max_size=12),
)
def test_text_parses_into_the_values(device: object, base: str, moves: list[tuple[str, int]]) -> None:
    assert isinstance(device, type(DEVICES[0]))
    memory = Memory(attrs.evolve(device, kernel=attrs.evolve(device.kernel, base=base)), CALIBRATION)
    anon, file = Region("anon", ANON, 0, 1500), Region("file", FILE, 10**6)
    for index, (move, wanted) in enumerate(moves):
        now_ns = index * NS_PER_S
        pages = min(wanted, memory.zones.room(MIN))
        if move == "a" and pages:
            memory.write_new(anon, pages, now_ns)
        elif move == "f" and pages:
            memory.read_file(file, pages, min(pages, file.out), now_ns)
        elif move == "l" and pages:
            memory.lock_new(pages)
        elif move == "r":
            memory.reclaim(wanted, NS_PER_S, kswapd=True, now_ns=now_ns)
    meminfo, vmstat, zoneinfo = procfs.meminfo(memory), procfs.vmstat(memory, base), procfs.zoneinfo(memory, base)
    assert parse_meminfo(procfs.meminfo_text(meminfo)) == meminfo
    assert parse_vmstat(procfs.vmstat_text(vmstat)) == vmstat
    assert parse_zoneinfo(procfs.zoneinfo_text(zoneinfo, procfs.zones_free(memory))) == zoneinfo


@given(stall=st.integers(0, 10), seconds=st.integers(0, 40))
def test_pressure_text_parses_into_the_value(stall: int, seconds: int) -> None:
    psi = Psi(2, lambda _: None)
    for step in range(seconds * 100):
        psi.account(0, (stall * NS_PER_MS, stall * NS_PER_MS, 0, 0, 0, 10 * NS_PER_MS), step * 10 * NS_PER_MS)
    for resource in ("memory", "io", "cpu"):
        value = psi.pressure(resource, seconds * NS_PER_S)
        assert parse_pressure(procfs.pressure_text(value)) == value


@pytest.mark.parametrize("base", BASES)
def test_names_are_those_of_the_kernel(base: str) -> None:
    memory = Memory(DEVICES[0], CALIBRATION)
    names = set(procfs.vmstat(memory, base).counters)
    assert {"workingset_refault_file", "pgscan_kswapd", "pgscan_direct", "pgrefill", "nr_inactive_file"} <= names
    assert ("pgdemote_kswapd" in names) == (base != "5.10")
    fields = procfs.zoneinfo(memory, base).zones[0].fields
    assert ("boost" in fields, "promo" in fields) == (base != "5.10", base == "6.12")
