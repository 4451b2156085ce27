"""What a run adds to the image, made from a device config."""

from __future__ import annotations

import attrs

from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.guest.overlay import boot_conf, build_prop, make_overlay
from tests.guest.test_cpio import entries


def test_boot_conf_has_every_setting_of_the_config() -> None:
    config = load_device_config(find_config("phone-2gb"))
    assert config.zram is not None
    lines = boot_conf(config, epoch_s=1).splitlines()
    assert lines[:2] == ["epoch 1", "hostname phone-2gb"]
    assert f"zram {config.zram.size_bytes} {config.zram.algorithm}" in lines
    assert f"mglru {int(config.kernel.mglru)}" in lines
    assert f"memcg {config.kernel.memcg}" in lines
    for name, value in config.vm.items():
        assert f"sysctl vm/{name} {value}" in lines
    assert "data /dev/vda ext4" in lines
    assert not any(line.startswith("idle") for line in lines)


def test_no_zram_and_an_idle_limit() -> None:
    config = attrs.evolve(load_device_config(find_config("go-1gb")), zram=None)
    lines = boot_conf(config, idle_s=60).splitlines()
    assert not any(line.startswith("zram") for line in lines)
    assert "idle 60" in lines


def test_build_prop_leaves_boot_completed_to_init() -> None:
    text = build_prop({"sys.boot_completed": "1", "dev.bootcomplete": "1", "ro.b": "2", "ro.a": "x=y"})
    assert text == "ro.a=x=y\nro.b=2\n"


def test_extra_properties_win() -> None:
    config = load_device_config(find_config("go-1gb"))
    archive = make_overlay(config, extra_properties={"ro.lmk.debug": "true", "ro.build.type": "eng"})
    files = {name: data for name, _, data, _ in entries(archive)}
    lines = files["system/build.prop"].decode().splitlines()
    assert "ro.lmk.debug=true" in lines and "ro.build.type=eng" in lines
    assert "ro.build.type=userdebug" not in lines
