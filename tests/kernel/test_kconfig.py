"""Config fragments: merging, and the proof that every wish was granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk import resources
from lmk.errors import InfraError
from lmk.kernel import kconfig
from lmk.kernel.bases import ARCHES, BASES


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_later_fragments_override_earlier_ones(tmp_path: Path) -> None:
    first = write(tmp_path / "a.config", "# about\nCONFIG_A=y\nCONFIG_B=y\n")
    second = write(tmp_path / "b.config", '# CONFIG_B is not set\nCONFIG_NAME="x"\n')
    wishes = kconfig.merge([first, second])
    assert {w.name: w.value for w in wishes} == {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_NAME": '"x"'}
    assert kconfig.render(wishes) == 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_NAME="x"\n'


def test_a_line_that_is_no_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"a\.config:2: not a config line: CONFG_B=y"):
        kconfig.merge([write(tmp_path / "a.config", "CONFIG_A=y\nCONFG_B=y\n")])


def test_verification_passes_when_all_is_granted(tmp_path: Path) -> None:
    wishes = kconfig.merge(
        [write(tmp_path / "a.config", "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_GONE is not set\n")]
    )
    kconfig.verify(wishes, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_OTHER=m\n", "Linux")


@pytest.mark.parametrize(
    ("config", "found"), [("# CONFIG_GOLDFISH is not set\n", "n"), ("", "n"), ("CONFIG_GOLDFISH=m\n", "m")]
)
def test_verification_names_option_origin_and_what_was_found(tmp_path: Path, config: str, found: str) -> None:
    wishes = kconfig.merge([write(tmp_path / "goldfish.config", "CONFIG_X=y\nCONFIG_GOLDFISH=y\n")])
    with pytest.raises(InfraError) as caught:
        kconfig.verify(wishes, "CONFIG_X=y\n" + config, "Linux 6.12 for x86_64")
    assert caught.value.cause == (
        f"Linux 6.12 for x86_64: goldfish.config:2 wants 'CONFIG_GOLDFISH=y', the final configuration has {found}"
    )


def test_an_option_switched_on_against_our_wish_is_found(tmp_path: Path) -> None:
    wishes = kconfig.merge([write(tmp_path / "a.config", "# CONFIG_B is not set\n")])
    assert [(w.name, found) for w, found in kconfig.unmet(wishes, "CONFIG_B=y\n")] == [("CONFIG_B", "y")]


def test_fragments_by_arch_and_base(tmp_path: Path) -> None:
    for name in ("goldfish", "goldfish-arm64", "goldfish-6.1", "lmk", "lmk-x86_64", "patched", "debug"):
        write(tmp_path / f"{name}.config", "")

    def names(**options: bool) -> list[str]:
        return [f.stem for f in kconfig.fragment_files(tmp_path, "6.1", "arm64", **options)]

    assert names() == ["goldfish", "goldfish-arm64", "goldfish-6.1", "lmk", "patched"]
    assert names(patched=False) == ["goldfish", "goldfish-arm64", "goldfish-6.1", "lmk"]
    assert names(debug=True)[-1] == "debug"


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("base", BASES)
def test_shipped_fragments_are_well_formed(base: str, arch: str) -> None:
    data = resources.data_dir("android-kernel-patch")
    wishes = {w.name: w.value for w in kconfig.merge(kconfig.fragment_files(data, base, arch, debug=True))}
    needed = ("PSI", "MEMCG", "ZRAM", "USERFAULTFD", "EXT4_FS", "VIRTIO_BLK", "GOLDFISH", "CGROUP_FREEZER", "FTRACE")
    assert all(wishes.get(f"CONFIG_{name}") == "y" for name in needed)
