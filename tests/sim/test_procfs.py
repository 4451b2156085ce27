"""/proc as text and as values: parsing what is printed gives what is handed out, for any state and every kernel."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.config.calibration import find_calibration, load_calibration
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.procfs.meminfo import parse_meminfo
from lmk.procfs.psi import parse_pressure
from lmk.procfs.vmstat import parse_vmstat
from lmk.procfs.zoneinfo import parse_zoneinfo
from lmk.record.counters import counter_row
from lmk.sim import procfs
from lmk.sim.listener import counter_row as sampled
from lmk.sim.memory import Memory
from lmk.sim.psi import Psi
from lmk.sim.region import ANON, FILE, Region
from lmk.sim.zone import MIN
from lmk.units import NS_PER_MS, NS_PER_S

DRAW = Random(0).getrandbits
CALIBRATION = load_calibration(find_calibration("published"))
DEVICES = [load_device_config(find_config(name)) for name in ("go-1gb", "phone-4gb")]
BASES = ("5.10", "6.1", "6.12")
DATA = Path(__file__).resolve().parents[1] / "data" / "vmstat"


@settings(deadline=None, max_examples=60)
@given(
    device=st.sampled_from(DEVICES),
    base=st.sampled_from(BASES),
    moves=st.lists(st.tuples(st.sampled_from("afrl"), st.integers(1, 60_000)), max_size=12),
)
def test_text_parses_into_the_values(device: object, base: str, moves: list[tuple[str, int]]) -> None:
    assert isinstance(device, type(DEVICES[0]))
    memory = Memory(attrs.evolve(device, kernel=attrs.evolve(device.kernel, base=base)), CALIBRATION, DRAW)
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
    # A sample of the record is what a live run would have made of the texts.
    live = counter_row(1, procfs.meminfo_text(meminfo), procfs.vmstat_text(vmstat), None)
    assert sampled(1, memory, (0, 0)) == attrs.evolve(live, psi_some_us=0, psi_full_us=0)


@given(stall=st.integers(0, 10), seconds=st.integers(0, 40))
def test_pressure_text_parses_into_the_value(stall: int, seconds: int) -> None:
    psi = Psi(2, lambda _: None)
    for step in range(seconds * 100):
        psi.account(0, (stall * NS_PER_MS, stall * NS_PER_MS, 0, 0, 0, 10 * NS_PER_MS), step * 10 * NS_PER_MS)
    for resource in ("memory", "io", "cpu"):
        value = psi.pressure(resource, seconds * NS_PER_S)
        assert parse_pressure(procfs.pressure_text(value)) == value


def kernels_names(base: str) -> tuple[list[str], list[str]]:
    """Fields of zoneinfo and names of vmstat, in the kernel's order (tests/data/vmstat/SOURCE)."""
    head, *names = (DATA / f"{base}.txt").read_text().splitlines()
    return head.split()[1:], names


@pytest.mark.parametrize("base", BASES)
def test_names_are_those_of_the_kernel_in_its_order(base: str) -> None:
    names = list(procfs.vmstat(Memory(DEVICES[0], CALIBRATION, DRAW), base).counters)
    assert {"workingset_refault_file", "pgscan_kswapd", "pgscan_direct", "pgrefill", "nr_inactive_file"} <= set(names)
    known = [name.removesuffix("_movable") + "_*" if name.endswith("_movable") else name for name in names]
    order = kernels_names(base)[1]
    assert set(known) <= set(order)
    assert known == sorted(known, key=order.index)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_zoneinfo_is_laid_out_as_by_the_kernel(base: str, device: DeviceConfig) -> None:
    memory = Memory(device, CALIBRATION, DRAW)
    text = procfs.zoneinfo_text(procfs.zoneinfo(memory, base), procfs.zones_free(memory))
    blocks = text.split("Node 0, zone ")[1:]
    # Every zone that the kernel is built with, with memory or without.
    assert [block.split()[0] for block in blocks] == ["DMA32", "Normal", "Movable"]
    fields, order = kernels_names(base)
    for index, block in enumerate(blocks):
        lines = block.splitlines()
        body = lines[lines.index(next(line for line in lines if line.startswith("  pages free"))) :]
        assert [line.split()[-2] for line in body[: len(fields)]] == fields
        protection = body[len(fields)].strip()
        assert protection.startswith("protection: (")
        assert protection.count(",") == 2
        stats = [line.split()[0] for line in lines if line.startswith("      ") and line.split()[0] in order]
        assert bool(stats) == (index == 0 or "present  0" not in block)
    node = blocks[0].split("pages free")[0].splitlines()[2:]
    known = [line.split()[0] for line in node if line.strip()]
    assert known == sorted(known, key=order.index)
