"""Android's own files in and out: what is read, what is refused, and that nothing is lost between them."""

from __future__ import annotations

from pathlib import PurePath

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.assemble import Facts, assemble_device
from lmk.config.device import DeviceConfig, Zram
from lmk.config.exporting import FORMATS, export_device_config
from lmk.config.importing import Imported, Note, Setting, parse_fstab, parse_make, parse_prop, parse_rc, parser_for
from lmk.errors import UserError
from lmk.policy.lmkd.params import PROPERTIES
from lmk.units import GIB, MIB

FACTS = Facts(name="t", memory_bytes=2 * GIB, cpus=4, android="14Q2")


def settings(found: object) -> dict[str, str]:
    assert isinstance(found, list)
    return {one.name: one.text for one in found if isinstance(one, Setting)}


def notes(found: object) -> list[str]:
    assert isinstance(found, list)
    return [str(one) for one in found if isinstance(one, Note)]


def test_property_files() -> None:
    found = list(parse_prop(
        "# ro.lmk.debug=true\n\nimport /vendor/x.prop\n  ro.lmk.low = 1001 \nro.lmk.medium?=800\n"
        "ro.lmk.critical=0 # not a comment\r\nro.x=\nno property\n",
        "v.prop",
    ))  # fmt: skip
    assert settings(found) == {
        "ro.lmk.low": "1001", "ro.lmk.medium": "800", "ro.lmk.critical": "0 # not a comment", "ro.x": "",
    }  # fmt: skip
    assert notes(found) == ["v.prop:8: not a property: no property"]


def test_makefiles() -> None:
    found = list(parse_make(
        "PRODUCT_PACKAGES += \\\n    lmkd \\\n    ro.lmk.no=1\n"
        "PRODUCT_PROPERTY_OVERRIDES += \\\n    ro.lmk.low=1001 \\\n    ro.lmk.medium?=700 # c \n"
        "#PRODUCT_VENDOR_PROPERTIES += ro.lmk.off=1 \\\n    ro.lmk.also_off=1\n"
        "PRODUCT_DEFAULT_PROPERTY_OVERRIDES := ro.config.low_ram=true\n"
        "ifeq ($(X),y)\nPRODUCT_VENDOR_PROPERTIES += ro.lmk.debug=true ro.lmk.log_stats=$(Y)\nendif\n"
        "PRODUCT_SYSTEM_PROPERTIES += ro.price=5$$ plain\n",
        "d.mk",
    ))  # fmt: skip
    assert settings(found) == {
        "ro.lmk.low": "1001", "ro.lmk.medium": "700", "ro.config.low_ram": "true", "ro.lmk.debug": "true",
        "ro.price": "5$",
    }  # fmt: skip
    assert notes(found) == [
        "d.mk:11: ro.lmk.debug stands in a condition, taken as true",
        "d.mk:11: ro.lmk.log_stats depends on a make variable and is left out",
        "d.mk:13: not a property: plain",
    ]


def test_init_fragments() -> None:
    found = list(parse_rc(
        'on boot\n    write /proc/sys/vm/swappiness 100 # why\n    write /proc/sys/vm/nonsense 1\n'
        "    write /sys/block/zram0/comp_algorithm lz4\n    write /sys/block/zram0/disksize 3g\n"
        '    setprop ro.lmk.note "two words"\n    setprop ro.lmk.low \\\n        1001\n'
        "on property:vendor.x=1\n    setprop ro.lmk.medium 700\n    setprop ro.lmk.critical ${x}\n"
        'service a /b\n    setprop\n    write "unended\n',
        "i.rc",
    ))  # fmt: skip
    assert settings(found) == {
        "vm.swappiness": "100", "zram.algorithm": "lz4", "zram.size": "3GiB", "ro.lmk.note": "two words",
        "ro.lmk.low": "1001", "ro.lmk.medium": "700",
    }  # fmt: skip
    assert notes(found) == [
        "i.rc:10: ro.lmk.medium is set only `on property:vendor.x=1`, taken as always",
        "i.rc:11: ro.lmk.critical depends on a property and is left out",
        'i.rc:14: a quote without its end:     write "unended',
    ]


@pytest.mark.parametrize(
    ("entry", "size"),
    [("zramsize=75%", "75%"), ("wait,zramsize=2147483648,max_comp_streams=8", "2147483648B"), ("wait", None)],
)
def test_fstab(entry: str, size: str | None) -> None:
    text = f"#x\n/dev/block/by-name/data /data f2fs zramsize=1% wait\n/dev/block/zram0 none swap defaults {entry}\n"
    assert settings(list(parse_fstab(text))).get("zram.size") == size


def test_parsers_by_file_name() -> None:
    names = ["vendor.prop", "device.mk", "init.target.rc", "fstab.qcom", "README"]
    parsers = [parser_for(PurePath("a") / name) for name in names]
    assert parsers == [parse_prop, parse_make, parse_rc, parse_fstab, None]


def assembled(*files: tuple[str, str], facts: Facts = FACTS) -> tuple[DeviceConfig, list[str]]:
    imported = Imported()
    for name, text in files:
        parse = parser_for(PurePath(name))
        assert parse is not None
        imported.add(name, parse(text, name))
    return assemble_device(imported, facts, [name for name, _ in files])


def test_the_last_file_wins_and_optional_values_give_way() -> None:
    config, said = assembled(
        ("a.prop", "ro.lmk.low=1\nro.lmk.medium?=2\nro.lmk.critical=3\nro.lmk.critical?=4\n"),
        ("b.prop", "ro.lmk.low=5\nro.lmk.medium=6\nro.other=1\n"),
    )
    assert config.own_properties == {"ro.lmk.low": "5", "ro.lmk.medium": "6", "ro.lmk.critical": "3"}
    assert said == [
        "b.prop:1: ro.lmk.low is 5, and was 1 before: the last one counts",
        "1 settings have nothing to do with killing and are left out",
    ]


def test_values_as_lmkd_reads_them() -> None:
    config, said = assembled((
        "a.prop",
        "ro.lmk.kill_timeout_ms=100ms\nro.lmk.swap_util_max=150\nro.lmk.thrashing_limit=many\nro.lmk.debug=True\n"
        "ro.lmk.swap_free_low_percentage=20\n",
    ), ("i.rc", "write /proc/sys/vm/swappiness 300\nwrite /sys/block/zram0/comp_algorithm lz77eh\n"))  # fmt: skip
    assert config.own_properties == {"ro.lmk.kill_timeout_ms": "100"}
    assert config.vm == {}
    assert said == [
        "ro.lmk.kill_timeout_ms is '100ms', which lmkd takes for 100",
        "ro.lmk.swap_util_max is '150', which lmkd takes for 100",
        "ro.lmk.thrashing_limit is 'many', which lmkd takes for unset: left out",
        "ro.lmk.debug is 'True', which lmkd takes for unset: left out",
        "vm.swappiness is '300', which the kernel refuses: left out",
        "zram has an algorithm (lz77eh) and no size: left out",
        "ro.lmk.swap_util_max limits swap, and no file sets up any: left out",
        "ro.lmk.swap_free_low_percentage limits swap, and no file sets up any: left out",
    ]


def test_the_old_strategy_gets_its_cgroups() -> None:
    config, said = assembled(("a.prop", "ro.lmk.use_minfree_levels=true\n"))
    assert config.kernel.memcg == "v1"
    assert said == ["these properties choose the minfree strategy, so kernel.memcg is v1"]


KNOBS = st.sampled_from([row.full_name for row in PROPERTIES if row.prefix == "ro.lmk." and row.kind != "bool"])
VALUES = st.integers(0, 100).map(str)
SOME_VM = st.fixed_dictionaries({}, optional={"swappiness": st.integers(0, 200), "page-cluster": st.integers(0, 3)})
SOME_ZRAM = st.none() | st.builds(
    Zram, size_bytes=st.integers(1, 10**6).map(lambda pages: pages * 4096), algorithm=st.sampled_from(["lz4", "zstd"])
)


def device(own: dict[str, str], vm: dict[str, int], zram: Zram | None) -> DeviceConfig:
    config, _ = assemble_device(Imported(), FACTS, ["x"])
    return attrs.evolve(config, own_properties=own, vm=vm, zram=zram)


@given(
    st.dictionaries(KNOBS, VALUES, max_size=6), SOME_VM, SOME_ZRAM, st.sampled_from(["prop", "mk", "rc"])
)  # fmt: skip
def test_what_is_exported_is_imported_again(
    own: dict[str, str], vm: dict[str, int], zram: Zram | None, form: str
) -> None:
    exported = FORMATS[form](device(own, vm, zram))
    parse = parser_for(PurePath(f"x.{form}"))
    assert parse is not None
    found = settings(list(parse(exported, "x")))
    assert {name: text for name, text in found.items() if name.startswith("ro.")} == own
    if form == "rc":
        assert {name: text for name, text in found.items() if name.startswith("vm.")} == {
            f"vm.{name}": str(number) for name, number in vm.items()
        }
        assert (found.get("zram.algorithm"), found.get("zram.size")) == (
            (zram.algorithm, f"{zram.size_bytes}B") if zram else (None, None)
        )


ODD = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cc", "Zs", "Zl", "Zp")), max_size=12
)


@given(ODD, st.sampled_from(["prop", "mk", "rc"]))
def test_odd_values_survive_or_are_said_to_be_missing(text: str, form: str) -> None:
    exported = FORMATS[form](device({"ro.lmk.odd": text}, {}, None))
    parse = parser_for(PurePath(f"x.{form}"))
    assert parse is not None
    found = settings(list(parse(exported, "x")))
    assert found.get("ro.lmk.odd") == text or "cannot carry its value" in exported


@given(st.text(max_size=200), st.sampled_from(["x.prop", "x.mk", "x.rc", "fstab.x"]))
def test_any_text_is_read_without_an_exception(text: str, name: str) -> None:
    assembled((name, text))


def test_overrides_as_a_script() -> None:
    own = {
        "ro.lmk.thrashing_limit": "0x1e",
        "persist.device_config.lmkd_native.swap_util_max": "150",
        "ro.lmk.swap_util_max": "10",
        "ro.lmk.use_psi": "on",
        "ro.lmk.log_stats": "true",
        "ro.lmk.enhance_batch_kill": "true",
        "ro.config.low_ram": "true",
    }
    lines = export_device_config(device(own, {"swappiness": 100}, Zram(size_bytes=MIB, algorithm="lz4"))).splitlines()
    assert lines == [
        "#!/system/bin/sh",
        "# lmk device config t, Android 14Q2",
        "cmd device_config set_sync_disabled_for_tests until_reboot",
        "cmd device_config put lmkd_native thrashing_limit 30",
        "cmd device_config put lmkd_native swap_util_max 100",
        "cmd device_config put lmkd_native use_psi true",
        "setprop lmkd.reinit 1",
        "# ro.lmk.log_stats: lmkd takes no override for it; needs a reboot",
        "# ro.lmk.enhance_batch_kill: not a property of AOSP's lmkd",
        "# not a property: vm.swappiness=100 (init rc: write)",
        "# not a property: zram 1048576 bytes lz4 (fstab: zramsize=1048576)",
    ]
    with pytest.raises(UserError, match="lmkd of Android 12 reads no device_config overrides"):
        export_device_config(attrs.evolve(device(own, {}, None), android="12"))
