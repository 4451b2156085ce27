"""A config written as YAML loads as the same config."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.device import (
    DEFAULT_COMPRESSIBILITY,
    KERNEL_BASES,
    VM_SYSCTLS,
    ZRAM_ALGORITHMS,
    DeviceConfig,
    KernelChoice,
    Source,
    Storage,
    SystemProcess,
    Zram,
    load_device_config,
    read_device_config,
)
from lmk.config.dump import dump_device, quoted
from lmk.config.find import shipped_configs
from lmk.config.load import parse_document
from lmk.config.properties import effective_properties
from lmk.policy.lmkd.versions import TAGS
from lmk.units import MIB

TEXT = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() != "")
LINE = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
PROPERTY_NAMES = st.from_regex(r"[A-Za-z0-9_@:-]{1,8}(\.[A-Za-z0-9_@:-]{1,8}){0,3}", fullmatch=True)
FIELDS = st.sampled_from(["memory", "zram.size", "vm", "properties.ro.lmk.low"])
SIZES = st.integers(0, 4096 * MIB)


@st.composite
def processes(draw: st.DrawFn) -> SystemProcess:
    return SystemProcess(
        name=draw(TEXT.filter(lambda name: name != "unreclaimable")),
        adj=draw(st.integers(-1000, -700)),
        anon_bytes=draw(SIZES),
        file_bytes=draw(SIZES),
        hot=draw(st.floats(0, 1, allow_subnormal=False).map(lambda hot: round(hot, 6))),
        compressibility=draw(st.sampled_from([DEFAULT_COMPRESSIBILITY, 1.0, 3.25])),
    )


@st.composite
def configs(draw: st.DrawFn) -> DeviceConfig:
    name, android, memcg = draw(NAMES), draw(st.sampled_from(TAGS)), draw(st.sampled_from(["v1", "v2"]))
    own = draw(st.dictionaries(PROPERTY_NAMES, LINE, max_size=5))
    return DeviceConfig(
        name=name,
        description=draw(st.one_of(st.just(""), TEXT)),
        sources=tuple(
            Source(fields=tuple(fields), text=text)
            for fields, text in draw(st.lists(st.tuples(st.lists(FIELDS, max_size=2), TEXT), max_size=3))
        ),
        memory_bytes=draw(st.integers(256, 65536)) * MIB,
        cpus=draw(st.integers(1, 64)),
        arch=draw(st.sampled_from(["x86_64", "arm64"])),
        android=android,
        zram=draw(st.none() | st.builds(
            Zram, size_bytes=st.integers(1, 2**21).map(lambda pages: pages * 4096),
            algorithm=st.sampled_from(ZRAM_ALGORITHMS))),
        storage=draw(st.none() | st.builds(
            Storage, read_bytes_per_s=st.integers(1, 10**11), iops=st.integers(1, 10**6))),
        kernel=KernelChoice(
            base=draw(st.sampled_from(KERNEL_BASES)), mglru=draw(st.booleans()), memcg=memcg
        ),
        system=tuple(draw(st.lists(processes(), max_size=3, unique_by=lambda one: one.name))),
        unreclaimable_bytes=draw(SIZES),
        vm={sysctl: draw(st.integers(*VM_SYSCTLS[sysctl])) for sysctl in sorted(draw(
            st.sets(st.sampled_from(sorted(VM_SYSCTLS)), max_size=3)))},
        own_properties=own,
        properties=effective_properties(own, name=name, android=android, arch="x86_64"),
    )  # fmt: skip


@given(configs())
def test_round_trip(config: DeviceConfig) -> None:
    document = parse_document(dump_device(config), "dumped")
    again = read_device_config(document)
    assert not document.problems.errors
    assert again == attrs.evolve(config, properties=again.properties)
    assert {name: again.properties[name] for name in config.own_properties} == config.own_properties


@pytest.mark.parametrize("path", shipped_configs().values(), ids=shipped_configs())
def test_shipped_configs_survive(path: Path) -> None:
    config = load_device_config(path)
    assert read_device_config(parse_document(dump_device(config), "dumped")) == config


@given(st.text(max_size=40))
def test_any_text_survives_quoting(text: str) -> None:
    value = parse_document(f"key: {quoted(text)}\n", "quoted").root.entries()["key"]
    assert value.text == text
