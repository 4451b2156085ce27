"""Our patches and the kernel's style check, where a source package is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk import resources
from lmk.kernel.bases import BASES
from lmk.kernel.checkpatch import cached_package, checkpatch_of, complaints
from lmk.kernel.series import load_series


def scripts_of(base: str) -> Path:
    deb = cached_package(BASES[base].package)
    if deb is None:
        pytest.skip(f"no {BASES[base].package} is cached: lmk kernel build --base {base}")
    return checkpatch_of(deb)


@pytest.mark.parametrize("base", BASES)
def test_checkpatch_strict_has_nothing_to_say(base: str) -> None:
    scripts = scripts_of(base)
    series = load_series(resources.data_dir("android-kernel-patch"), base)
    patches = dict.fromkeys((*series.patches, *series.if_mrelease))
    assert {patch.name: complaints(patch, scripts) for patch in patches} == {patch.name: "" for patch in patches}


def test_a_patch_in_bad_style_is_noticed(tmp_path: Path) -> None:
    scripts = scripts_of("6.12")
    good = load_series(resources.data_dir("android-kernel-patch"), "6.12").patches[1].read_text()
    bad = tmp_path / "bad.patch"
    bad.write_text(good.replace("+\tlong anon;", "+    long anon;"))
    assert "WARNING" in complaints(bad, scripts)
