"""What may move: parsing, ranges that lie inside the property table's, and settings that cannot matter."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.change import value_of, with_settings
from lmk.config.device import VM_SYSCTLS, DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.errors import UserError
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTY_BY_NAME
from lmk.tune.space import AXES, Axis, check_strategy, make_space


@pytest.fixture(scope="module")
def phone() -> DeviceConfig:
    return load_device_config(find_config("phone-2gb"))


@pytest.mark.parametrize("axis", AXES.values(), ids=lambda axis: axis.name)
def test_ranges_lie_inside_what_lmkd_and_the_kernel_take(axis: Axis) -> None:
    if axis.name.startswith("vm."):
        lowest, highest = VM_SYSCTLS[axis.name.removeprefix("vm.")]
    else:
        row = PROPERTY_BY_NAME[axis.name]
        lowest = row.minimum if row.minimum is not None else -(2**31)
        highest = row.maximum if row.maximum is not None else 2**31 - 1
    assert all(lowest <= int(value) <= highest for value in axis.grid(9))


@given(
    low=st.integers(1, 500), span=st.integers(1, 500), step=st.integers(1, 50), log=st.booleans(), n=st.integers(1, 30)
)
def test_a_grid_stays_on_its_range(low: int, span: int, step: int, log: bool, n: int) -> None:
    axis = Axis(name="x", low=low, high=low + span, step=min(step, span), log=log and step == 1)
    grid = axis.grid(n)
    assert grid[0] == low
    assert list(grid) == sorted(set(grid))
    assert all(low <= int(value) <= low + span for value in grid)


def test_settings_are_read_and_written_where_lmkd_takes_them(phone: DeviceConfig) -> None:
    moved = with_settings(
        phone, {"thrashing_limit": 45, "vm.swappiness": 150, "kill_heaviest_task": True}, "measured: x"
    )
    assert value_of(moved, "thrashing_limit") == 45
    assert value_of(moved, "kill_heaviest_task") is True
    assert moved.vm["swappiness"] == 150
    assert moved.sources[0].fields == (
        "properties.ro.lmk.thrashing_limit",
        "vm.swappiness",
        "properties.ro.lmk.kill_heaviest_task",
    )
    assert not any("vm.swappiness" in source.fields for source in moved.sources[1:])
    override = PERSIST_PREFIX + "thrashing_limit"
    own = {**phone.own_properties, override: "20"}
    overridden = attrs.evolve(phone, own_properties=own, properties={**phone.properties, override: "20"})
    assert with_settings(overridden, {"thrashing_limit": 45}).own_properties[override] == "45"


def test_the_same_values_are_the_same_config(phone: DeviceConfig) -> None:
    space = make_space([], phone)
    assert with_settings(phone, space.stock(phone), "measured: x") == phone


def test_what_cannot_matter_is_named_and_not_searched(phone: DeviceConfig) -> None:
    space = make_space(["thrashing_limit", "upgrade_pressure=10..90", "lowmem_min_oom_score"], phone)
    assert [axis.name for axis in space.axes] == ["thrashing_limit"]
    assert "vmpressure" in space.dead["upgrade_pressure"]
    assert "15.0" in space.dead["lowmem_min_oom_score"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thrashing_limt=1..5", "did you mean thrashing_limit"),
        ("thrashing_limit=5..5", "empty range"),
        ("thrashing_limit=1..9:20", "empty range"),
        ("thrashing_limit=low,high", "whole number"),
        ("kill_heaviest_task=1..2", "true or false"),
        ("kill_heaviest_task=yes", "expected true or false"),
        ("debug", "no range of its own"),
        ("psi_complete_stall_ms=50..1500", "PSI window"),
        ("swap_free_low_percentage=0..150", "allowed is 0 to 100"),
        ("vm.swappiness=0..500", "swappiness"),
        ("vm.swapiness=0..50", "did you mean vm.swappiness"),
        ("upgrade_pressure=1..99", "nothing that could matter"),
    ],
)
def test_mistakes_are_named(text: str, words: str, phone: DeviceConfig) -> None:
    with pytest.raises(UserError) as caught:
        make_space([text], phone)
    assert words in str(caught.value)


def test_old_strategies_are_refused() -> None:
    with pytest.raises(UserError, match="vmpressure"):
        check_strategy(load_device_config(find_config("galaxy-a10")))
