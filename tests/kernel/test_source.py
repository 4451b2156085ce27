"""Kernel source: Debian packages, package files, trees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmk import apt
from lmk.errors import HostError, UserError
from lmk.kernel import source
from lmk.kernel.bases import get_base
from lmk.progress import silent
from tests.test_apt import local_archive

MAKEFILE = "# SPDX-License-Identifier: GPL-2.0\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 7\nEXTRAVERSION =\n"


def make_tree(path: Path, makefile: str = MAKEFILE) -> Path:
    (path / "mm").mkdir(parents=True)
    (path / "Makefile").write_text(makefile)
    (path / "mm" / "oom_kill.c").write_text("int x;\n")
    return path


def test_without_debian_sources_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(HostError, match=r"linux-source-6\.1.*no Debian mirror.*--deb FILE or --source DIR"):
        source.fetch_package(get_base("6.1"), silent)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not installed")
def test_the_package_of_the_suite_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    archive = local_archive(tmp_path / "archive", {"linux-source-6.12": ""})
    monkeypatch.setattr(apt, "machine_sources", lambda: (archive,))
    found = source.fetch_package(get_base("6.12"), silent)
    assert (found.kind, found.version, found.path.name) == ("package", "1", "linux-source-6.12_1_all.deb")
    assert found.path.stat().st_size > 0
    assert source.fetch_package(get_base("6.12"), silent) == found


def test_a_tree_tells_its_version(tmp_path: Path) -> None:
    found = source.from_tree(make_tree(tmp_path / "linux"), get_base("6.12"))
    assert (found.kind, found.version) == ("tree", "6.12.7")


def test_a_changed_tree_has_another_digest(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    before = source.from_tree(tree, get_base("6.12")).digest
    assert source.from_tree(tree, get_base("6.12")).digest == before
    (tree / "mm" / "oom_kill.c").write_text("int xy;\n")
    assert source.from_tree(tree, get_base("6.12")).digest != before


def test_a_tree_of_another_base_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    with pytest.raises(UserError, match=r"Linux 6\.12\.7, but the base is 6\.1;"):
        source.from_tree(tree, get_base("6.1"))


@pytest.mark.parametrize("makefile", ["", "all:\n\ttrue\n"])
def test_what_is_no_kernel_tree_is_refused(tmp_path: Path, makefile: str) -> None:
    with pytest.raises(UserError, match="not a kernel source tree"):
        source.from_tree(make_tree(tmp_path / "x", makefile), get_base("6.12"))
    with pytest.raises(UserError, match="not a kernel source tree"):
        source.from_tree(tmp_path / "missing", get_base("6.12"))


def test_a_missing_or_wrong_package_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        source.from_deb(tmp_path / "none.deb", get_base("6.12"))
    (tmp_path / "text.deb").write_text("this is no package")
    with pytest.raises(UserError, match="not a Debian package"):
        source.from_deb(tmp_path / "text.deb", get_base("6.12"))
