"""The build as a whole, on a source tree so small that make takes no time: cache, resume, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk import resources
from lmk.cli import main as cli
from lmk.errors import InfraError, UserError
from lmk.kernel import build, cache

#: A "kernel" that takes every wish but CONFIG_REFUSED, and counts how often it was built.
MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 7
EXTRAVERSION =
mrproper:
allnoconfig:
	grep -v REFUSED $(KCONFIG_ALLCONFIG) > .config
olddefconfig:
bzImage:
	echo '  CC      a.o'
	mkdir -p arch/x86/boot include/config
	cat mm/oom_kill.c > arch/x86/boot/bzImage
	echo 6.12.7-tiny > include/config/kernel.release
	touch System.map
	test ! -e fail
"""
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
Subject: [PATCH] mm: change

---
diff --git a/mm/oom_kill.c b/mm/oom_kill.c
--- a/mm/oom_kill.c
+++ b/mm/oom_kill.c
@@ -1 +1 @@
-old
+new
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A patch directory and a source tree of our own; returns the directory that holds both."""
    data = tmp_path / "data"
    (data / "6.12").mkdir(parents=True)
    (data / "6.12" / "0001-change.patch").write_text(PATCH)
    (data / "6.12" / "series").write_text("# package: linux-source-6.12 6.12.7-1\n0001-change.patch\n")
    (data / "lmk.config").write_text("CONFIG_A=y\n")
    tree = tmp_path / "linux"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm" / "oom_kill.c").write_text("old\n")
    (tree / "Makefile").write_text(MAKEFILE)
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(resources, "data_dir", lambda name: data)
    return tmp_path


def build_tree(world: Path) -> cache.KernelImage:
    return build.build_kernel("6.12", source=world / "linux", jobs=1)


def test_a_tree_is_built_patched_and_left_alone(world: Path) -> None:
    stages: list[str] = []
    image = build.build_kernel("6.12", source=world / "linux", progress=lambda stage, fraction: stages.append(stage))
    assert image.image.read_text() == "new\n"
    assert (image.release, image.base, image.arch, image.patched) == ("6.12.7-tiny", "6.12", "x86_64", True)
    assert image.config.read_text() == "CONFIG_A=y\n"
    assert (world / "linux" / "mm" / "oom_kill.c").read_text() == "old\n"
    assert stages[-1] == "kernel 6.12.7-tiny is ready"
    assert not list(resources.cache_dir("kernel", "work").iterdir())


def test_the_second_time_it_comes_from_the_cache(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = build_tree(world)
    monkeypatch.setattr(build, "_build", lambda *args: pytest.fail("built again"))
    assert build_tree(world) == image
    assert build.find_kernel("6.12") == image
    assert build.build_kernel("6.12") == image


def test_a_changed_patch_or_fragment_is_another_kernel(world: Path) -> None:
    image = build_tree(world)
    (world / "data" / "lmk.config").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    assert build.find_kernel("6.12") is None
    assert build_tree(world).key != image.key


def test_without_our_patches(world: Path) -> None:
    image = build.build_kernel("6.12", source=world / "linux", patched=False)
    assert (image.image.read_text(), image.patched) == ("old\n", False)


def test_an_option_that_is_not_granted_stops_the_build(world: Path) -> None:
    (world / "data" / "lmk.config").write_text("CONFIG_A=y\nCONFIG_REFUSED=y\n")
    with pytest.raises(InfraError, match=r"lmk\.config:2 wants 'CONFIG_REFUSED=y'"):
        build_tree(world)
    assert cache.all_images() == []


def test_a_patch_that_does_not_apply_stops_the_build(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "linux" / "mm" / "oom_kill.c").write_text("something else\n")
    assert cli.main(["kernel", "build", "--source", str(world / "linux"), "--json"]) == 3
    out, err = capsys.readouterr()
    assert "0001-change.patch does not apply to kernel base 6.12 (6.12.7): mm/oom_kill.c hunk 1" in err
    assert json.loads(out)["error"]["owner"] == "infra"


def test_a_failed_build_goes_on_where_it_stopped(world: Path) -> None:
    (world / "linux" / "fail").touch()
    with pytest.raises(InfraError, match=r"building Linux 6\.12 for x86_64 failed"):
        build_tree(world)
    (tree,) = resources.cache_dir("kernel", "work").iterdir()
    (tree / "fail").unlink()
    stages: list[str] = []
    build.build_kernel("6.12", source=world / "linux", progress=lambda stage, fraction: stages.append(stage))
    assert stages[0] == "going on with an interrupted build"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "4.19"], "no kernel base '4.19'; choose one of: 6.12, 6.1, 5.10"),
        (["--arch", "mips"], "no kernel for architecture 'mips'; choose one of: x86_64, arm64"),
        (["--source", "/nonexistent"], "/nonexistent: not a kernel source tree"),
        (["--deb", "/nonexistent.deb"], "/nonexistent.deb: no such file"),
        (["--deb", "a", "--source", "b"], "both --source and --deb are given"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    world: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["kernel", "build", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_user_errors_are_users_errors(world: Path) -> None:
    with pytest.raises(UserError):
        build.build_kernel("6.12", source=world / "linux", deb=world / "x.deb")


def test_list_shows_what_is_built(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernel", "list"]) == 0
    assert "lmk kernel build" in capsys.readouterr().out
    image = build_tree(world)
    assert cli.main(["kernel", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["kernels"][0]["image"] == str(image.image)
    assert cli.main(["kernel", "list"]) == 0
    assert str(image.image) in capsys.readouterr().out


def test_an_android_common_tree_keeps_its_own_defaults(world: Path) -> None:
    (world / "data" / "virtual-device.config").write_text("CONFIG_VIRTIO_BLK=y\n")
    configs = world / "linux" / "arch" / "x86" / "configs"
    configs.mkdir(parents=True)
    (configs / "gki_defconfig").write_text("CONFIG_ANDROID=y\n# CONFIG_VIRTIO_BLK is not set\n")
    makefile = MAKEFILE.replace("allnoconfig:\n", "gki_defconfig:\n\tcp arch/x86/configs/gki_defconfig .config\nno:\n")
    (world / "linux" / "Makefile").write_text(makefile)
    image = build_tree(world)
    assert image.source == "android 6.12.7"
    # Kconfig takes the last of several lines; what is not an Android tree's business (lmk.config) is left out.
    assert image.config.read_text() == "CONFIG_ANDROID=y\n# CONFIG_VIRTIO_BLK is not set\nCONFIG_VIRTIO_BLK=y\n"
