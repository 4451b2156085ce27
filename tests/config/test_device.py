"""Device configs: what a file means, and one exact line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.config.android import BUILD_VERSIONS, LAST_RELEASE
from lmk.config.device import KERNEL_BASES, DeviceConfig, load_device_config
from lmk.kernel.bases import BASES
from lmk.policy.lmkd.versions import TAGS
from lmk.units import MIB
from tests.config.helpers import VALID, errors_of, write


def load(tmp_path: Path, more: str = "", **replaced: str) -> DeviceConfig:
    """VALID with top-level lines replaced by key and ``more`` appended."""
    return load_device_config(write(tmp_path, config_text(more, **replaced)))


def config_text(more: str = "", **replaced: str) -> str:
    lines = [
        f"{key}: {replaced[key]}" if (key := line.partition(":")[0]) in replaced else line
        for line in VALID.splitlines()
    ]
    return "\n".join(lines) + "\n" + more


def test_a_small_config_with_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.name == "test-phone"
    assert config.memory_bytes == 2048 * MIB
    assert config.zram is not None
    assert (config.zram.size_bytes, config.zram.algorithm) == (1024 * MIB, "lz4")
    assert (config.kernel.base, config.kernel.mglru, config.kernel.memcg) == ("6.12", True, "v2")
    assert config.storage is None
    assert (config.system, config.unreclaimable_bytes) == ((), 0)
    assert config.swap_bytes == 1024 * MIB
    assert not config.low_ram


def test_a_full_config(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "description: all of it\n"
        "arch: arm64\n"
        "storage: {read: 250MB/s, iops: 11000}\n"
        "kernel: {base: 5.10, mglru: false, memcg: v1}\n"
        "system:\n"
        "  system_server: {adj: -900, anon: 100MiB, file: 50MiB, hot: 0.6, compressibility: 3}\n"
        "  unreclaimable: 150MiB\n"
        "vm: {swappiness: 100, page-cluster: 0}\n"
        "properties: {ro.config.low_ram: true, ro.lmk.thrashing_limit: 0x1e, ro.lmk.debug: on}\n",
        zram="{size: 75%, algorithm: zstd}",
        source="[{memory: 'seen: a', 'zram, vm': 'seen: b'}, 'measured: c']",
    )
    assert config.zram is not None
    assert config.zram.size_bytes == 1536 * MIB
    assert config.storage is not None
    assert config.storage.read_bytes_per_s == 250_000_000
    assert config.kernel.base == "5.10"
    (server,) = config.system
    assert (server.name, server.adj, server.hot, server.compressibility) == ("system_server", -900, 0.6, 3.0)
    assert config.unreclaimable_bytes == 150 * MIB
    assert config.vm == {"swappiness": 100, "page-cluster": 0}
    assert config.own_properties["ro.lmk.thrashing_limit"] == "0x1e"
    assert config.own_properties["ro.lmk.debug"] == "on"
    assert config.low_ram
    assert [source.fields for source in config.sources] == [("memory",), ("zram", "vm"), ()]


def test_derived_properties(tmp_path: Path) -> None:
    own = "properties: {ro.config.low_ram: true, ro.product.model: Redmi, ro.lmk.medium: 700}\n"
    answers = load(tmp_path, own, android='"13.0"').properties
    assert answers["ro.build.version.release"] == "13"
    assert answers["ro.build.version.sdk"] == "33"
    assert answers["ro.boot.config.low_ram"] == "true"
    assert answers["ro.product.device"] == "test-phone"
    assert answers["ro.product.model"] == "Redmi"
    assert answers["ro.product.cpu.abi"] == "x86_64"
    assert answers["sys.boot_completed"] == "1"
    assert answers["ro.lmk.medium"] == "700"
    assert list(answers) == sorted(answers)


@pytest.mark.parametrize(("number", "tag"), LAST_RELEASE.items())
def test_a_bare_android_is_its_last_quarterly_release(tmp_path: Path, number: str, tag: str) -> None:
    assert load(tmp_path, android=number).android == tag


@pytest.mark.parametrize("tag", sorted(set(TAGS) - set(LAST_RELEASE)))
def test_every_quoted_tag_is_itself(tmp_path: Path, tag: str) -> None:
    assert load(tmp_path, android=f'"{tag}"').android == tag


@pytest.mark.parametrize(
    ("replaced", "more", "line"),
    [
        ({"android": "14.0"}, "", "5: android: found the number 14.0, expected a whole number or a tag; "
         'write 14 for its last quarterly release or "14.0" in quotes for that tag'),
        ({"android": "14.1"}, "", "5: android: found the number 14.1, expected a whole number or a tag; "
         "write 14 for its last quarterly release"),
        ({"android": "9.0"}, "", "5: android: found the number 9.0, expected a whole number or a tag; "
         "write a release such as 14"),
        ({"android": "9"}, "", "5: android: found the number 9; known: 11, 12, 13, 14, 15, 16"),
        ({"android": "14Q3"}, "", "5: android: found '14Q3'; did you mean 14Q2?"),
        ({"android": "tiramisu"}, "", "5: android: found 'tiramisu'; known tags: 11.0, 11Q1, 11Q3, 12, 12L, "
         "13.0, 13Q1, 13Q2, 14.0, 14Q2, 15.0, 15Q1, 15Q2, 16, N1, N2, N3"),
        ({"android": "[14]"}, "", "5: android: found a list, expected an Android release such as 14"),
        ({"name": "Test Phone"}, "", "1: name: found 'Test Phone', expected lower-case letters, digits, '.', '_' "
         "or '-'"),
        ({"memory": "2048"}, "", "3: memory: found the number 2048 without a unit, "
         "expected a size such as 2GiB or 350MB"),
        ({"memory": "2GB"}, "", "3: memory: found '2GB', which is not a whole number of MiB; did you mean 2GiB?"),
        ({"memory": "64MiB"}, "", "3: memory: found '64MiB', expected 256MiB to 1TiB"),
        ({"memory": "5s"}, "", "3: memory: found '5s', which is a time, expected a size in B, kB, KiB, MB, MiB, "
         "GB, GiB, TB, TiB"),
        ({"cpus": "0"}, "", "4: cpus: found 0, expected a number from 1 to 64"),
        ({"cpus": "four"}, "", "4: cpus: found 'four', expected a whole number from 1 to 64"),
        ({"zram": "{size: 1GiB}"}, "", "6: zram.algorithm: is missing; add `algorithm:`"),
        ({"zram": "{algorithm: lz4}"}, "", "6: zram.size: is missing; add `size:`"),
        ({"zram": "{sise: 1GiB, algorithm: lz4}"}, "", "6: zram.sise: unknown key; did you mean size?"),
        ({"zram": "{size: 1GiB, algorithm: lz77eh}"}, "", "6: zram.algorithm: found 'lz77eh'; "
         "allowed: lzo, lzo-rle, lz4, zstd"),
        ({"zram": "{size: 0B, algorithm: lz4}"}, "", "6: zram.size: found no size at all; "
         "leave out `zram:` for a device without swap"),
        ({"zram": "1GiB"}, "", "6: zram: found '1GiB', expected keys with values"),
        ({}, "arch: x86\n", "7: arch: found 'x86'; did you mean x86_64?"),
        ({}, "kernel: {base: 6.2}\n", "7: kernel.base: found the number 6.2; did you mean 6.12?"),
        ({}, "kernel: {mglru: 1}\n", "7: kernel.mglru: found the number 1, expected true or false"),
        ({}, "kernel: {memcg: v3}\n", "7: kernel.memcg: found 'v3'; allowed: v1, v2"),
        ({}, "storage: {read: 250MB/s}\n", "7: storage.iops: is missing; add `iops:`"),
        ({}, "storage: {read: 250MB, iops: 1}\n", "7: storage.read: found '250MB', "
         "expected a size per time such as 250MB/s or 2MiB/min"),
        ({}, "storage: {read: 1B/min, iops: 1}\n", "7: storage.read: found '1B/min', "
         "less than one byte per second"),
        ({}, "system:\n  init: {adj: -1001, anon: 1MiB}\n", "8: system.init.adj: found -1001, "
         "expected a number from -1000 to -700"),
        ({}, "system:\n  app: {adj: 0, anon: 1MiB}\n", "8: system.app.adj: found 0, "
         "expected a number from -1000 to -700"),
        ({}, "system:\n  init: {adj: -1000, anon: 1MiB, hot: 1.5}\n", "8: system.init.hot: found 1.5, "
         "expected a number from 0 to 1"),
        ({}, "system:\n  init: {adj: -1000, anon: 1MiB, color: red}\n", "8: system.init.color: unknown key; "
         "known: adj, anon, file, hot, compressibility"),
        ({}, "system:\n  unreclaimable: 2GiB\n", "7: system: the base load of 2GiB does not leave any of 2GiB "
         "of memory; lower anon or unreclaimable, or raise memory"),
        ({}, "vm: {swapiness: 60}\n", "7: vm.swapiness: unknown key; did you mean swappiness?"),
        ({}, "vm: {swappiness: 201}\n", "7: vm.swappiness: found 201, expected a number from 0 to 200"),
        ({}, "vm: {page_cluster: 0}\n", "7: vm.page_cluster: unknown key; did you mean page-cluster?"),
        ({}, "properties: {ro.x: }\n", "7: properties.ro.x: found no value, expected one value"),
        ({}, "properties: {ro..x: 1}\n", "7: properties.ro..x: not a property name; "
         "letters, digits and . _ - @ : only, no empty part"),
        ({}, f"properties: {{persist.x: {'y' * 92}}}\n", "7: properties.persist.x: "
         "the value is longer than 91 bytes, which init refuses"),
        ({}, "properties: {a.b: 1, a.b: 2}\n", "7: properties.a.b: given twice, first on line 7; "
         "remove one of the two"),
        ({}, "propertys: {}\n", "7: propertys: unknown key; did you mean properties?"),
        ({"source": "{a: []}"}, "", "2: source.a: found a list, expected text"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(tmp_path: Path, replaced: dict[str, str], more: str, line: str) -> None:
    path = write(tmp_path, config_text(more, **replaced))
    assert errors_of(load_device_config, path) == [f"c.yaml:{line}"]


def test_every_tag_has_a_build_version() -> None:
    assert tuple(BUILD_VERSIONS) == TAGS


def test_every_base_of_a_config_can_be_built() -> None:
    assert set(KERNEL_BASES) == set(BASES)
