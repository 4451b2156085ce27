"""Patch series: reading, applying, and what is said when a patch does not apply."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk import resources
from lmk.errors import InfraError, UserError
from lmk.kernel.bases import BASES
from lmk.kernel.series import Series, apply_series, failed_hunks, load_series, touched_files
from lmk.kernel.source import KernelSource

BODY = "".join(f"line {n}\n" for n in range(1, 41))
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@b.example>
Subject: [PATCH] change two places

---
diff --git a/mm/file.c b/mm/file.c
--- a/mm/file.c
+++ b/mm/file.c
@@ -2,7 +2,7 @@
 line 2
 line 3
 line 4
-line 5
+line five
 line 6
 line 7
 line 8
@@ -30,7 +30,7 @@
 line 30
 line 31
 line 32
-line 33
+line thirty-three
 line 34
 line 35
 line 36
"""


def make_series(tmp_path: Path, patch: str = PATCH) -> Series:
    directory = tmp_path / "patches" / "6.12"
    directory.mkdir(parents=True)
    (directory / "0001-change.patch").write_text(patch)
    (directory / "series").write_text("# about\n# package: linux-source-6.12 6.12.1-1\n\n0001-change.patch\n")
    return load_series(tmp_path / "patches", "6.12")


def make_tree(tmp_path: Path, body: str = BODY) -> Path:
    tree = tmp_path / "tree"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm" / "file.c").write_text(body)
    return tree


def package(tmp_path: Path, version: str = "6.12.1-1") -> KernelSource:
    return KernelSource(kind="package", path=tmp_path / "x.deb", version=version, digest=version)


def test_what_the_tree_has_decides_not_its_version(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    directory = series.patches[0].parent
    (directory / "0001-next-to-it.patch").write_text(PATCH)
    lines = "0001-change.patch [without process_mrelease]\n0001-next-to-it.patch [with process_mrelease]\n"
    (directory / "series").write_text(lines)
    series = load_series(tmp_path / "patches", "6.12")
    tree = make_tree(tmp_path)
    assert [patch.name for patch in series.for_tree(tree).patches] == ["0001-change.patch"]
    (tree / "mm" / "oom_kill.c").write_text("/* process_mrelease */\n")
    assert [patch.name for patch in series.for_tree(tree).patches] == ["0001-change.patch"]
    (tree / "mm" / "oom_kill.c").write_text("SYSCALL_DEFINE2(process_mrelease, int, pidfd, unsigned int, flags)\n")
    assert [patch.name for patch in series.for_tree(tree).patches] == ["0001-next-to-it.patch"]
    (directory / "series").write_text("0001-change.patch [perhaps]\n")
    with pytest.raises(InfraError, match=r"series:1: no such patch: 0001-change.patch \[perhaps\]"):
        load_series(tmp_path / "patches", "6.12")


def unexpected(text: str) -> None:
    raise AssertionError(text)


def test_series_lists_patches_and_known_versions(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    assert [patch.name for patch in series.patches] == ["0001-change.patch"]
    assert series.versions == ("6.12.1-1",)


def test_a_patch_that_fits_is_applied_and_leaves_nothing_behind(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    apply_series(make_series(tmp_path), package(tmp_path), tree, warn=unexpected)
    assert "line five\n" in (tree / "mm" / "file.c").read_text()
    assert [p.name for p in (tree / "mm").iterdir()] == ["file.c"]


def test_failure_names_patch_file_hunk_and_base(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, BODY.replace("line 33", "something else"))
    with pytest.raises(InfraError) as caught:
        apply_series(make_series(tmp_path), package(tmp_path), tree, warn=unexpected)
    assert "0001-change.patch does not apply to kernel base 6.12 (6.12.1-1): mm/file.c hunk 2" in caught.value.cause
    assert "--source" in caught.value.remedy


def test_failure_for_a_missing_file_names_it(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree / "mm" / "file.c").unlink()
    with pytest.raises(InfraError, match=r"kernel base 6\.12 .*mm/file\.c"):
        apply_series(make_series(tmp_path), package(tmp_path), tree, warn=unexpected)


def test_applying_twice_is_a_failure(tmp_path: Path) -> None:
    tree, series = make_tree(tmp_path), make_series(tmp_path)
    apply_series(series, package(tmp_path), tree, warn=unexpected)
    with pytest.raises(InfraError, match=r"mm/file\.c"):
        apply_series(series, package(tmp_path), tree, warn=unexpected)


def test_fuzz_is_an_error_on_a_listed_version_and_a_warning_on_another(tmp_path: Path) -> None:
    changed = BODY.replace("line 36", "line 36 of a newer release")
    tree, series = make_tree(tmp_path, changed), make_series(tmp_path)
    with pytest.raises(InfraError, match=r"mm/file\.c hunk 2"):
        apply_series(series, package(tmp_path), tree, warn=unexpected)
    (tree / "mm" / "file.c").write_text(changed)
    warnings: list[str] = []
    apply_series(series, package(tmp_path, "6.12.2-1"), tree, warn=warnings.append)
    assert warnings == ["0001-change.patch applied to kernel base 6.12 (6.12.2-1) with fuzz 1 (hunk 2)"]


def test_unknown_base_and_broken_series(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"kernel base 4\.19"):
        load_series(tmp_path, "4.19")
    (tmp_path / "6.12").mkdir()
    (tmp_path / "6.12" / "series").write_text("missing.patch\n")
    with pytest.raises(InfraError, match=r"series:1: no such patch: missing\.patch"):
        load_series(tmp_path, "6.12")


def test_hunks_are_read_from_patchs_own_words() -> None:
    output = (
        "patching file a.c\nHunk #1 succeeded at 4.\nHunk #3 FAILED at 9.\n1 out of 3 hunks FAILED\npatching file b.c\n"
    )
    assert failed_hunks(output) == [("a.c", 3)]


def shipped() -> list[str]:
    data = resources.data_dir("android-kernel-patch")
    return [base for base in BASES if (data / base / "series").is_file()]


@pytest.mark.parametrize("base", shipped())
def test_shipped_series(base: str) -> None:
    series = load_series(resources.data_dir("android-kernel-patch"), base)
    assert series.versions, "the series names no package version"
    assert "mm/oom_kill.c" in touched_files(series.patches[0])
    listed = {patch.name for patch in (*series.patches, *series.if_mrelease)}
    assert listed == {file.name for file in series.patches[0].parent.glob("*.patch")}
    for number, patch in [*enumerate(series.patches, 1), *enumerate(series.if_mrelease, 1)]:
        text = patch.read_text()
        assert patch.name.startswith(f"{number:04d}-")
        assert text.startswith("From 0000000000000000000000000000000000000000 ")
        assert "\nSigned-off-by: " in text
        assert "\nSubject: [PATCH] " in text


@pytest.mark.parametrize("base", shipped())
def test_tests_do_not_make_a_new_image(base: str) -> None:
    series = load_series(resources.data_dir("android-kernel-patch"), base)
    names = [patch.name for patch in series.image_patches]
    assert names
    assert not any("selftests" in name for name in names)
