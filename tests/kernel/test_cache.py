"""The cache of built kernels: what is in its key, and that entries appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.kernel import cache
from lmk.kernel.source import KernelSource


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))


def recipe(
    tmp_path: Path,
    *,
    patch: str = "a patch",
    base: str = "6.12",
    arch: str = "x86_64",
    debug: bool = False,
    config: str = "CONFIG_A=y\n",
    compiler: str = "gcc 12",
) -> str:
    file = tmp_path / "0001.patch"
    file.write_text(patch)
    return cache.recipe_key(base=base, arch=arch, debug=debug, patches=[file], config=config, compiler=compiler)


def package(version: str = "6.12.1-1", kind: str = "package", digest: str = "d") -> KernelSource:
    return KernelSource(kind=kind, path=Path("x"), version=version, digest=digest)


def test_every_input_changes_the_key(tmp_path: Path) -> None:
    keys = {
        recipe(tmp_path),
        recipe(tmp_path, patch="another patch"),
        recipe(tmp_path, base="6.1"),
        recipe(tmp_path, arch="arm64"),
        recipe(tmp_path, debug=True),
        recipe(tmp_path, config="CONFIG_A=n\n"),
        recipe(tmp_path, compiler="gcc 14"),
    }
    assert len(keys) == 7
    assert recipe(tmp_path) == recipe(tmp_path)


def test_a_reworded_message_needs_no_other_kernel(tmp_path: Path) -> None:
    said = "Subject: one\n\nWhy.\n---\ndiff --git a/mm/a.c b/mm/a.c\n+int a;\n"
    assert recipe(tmp_path, patch=said) == recipe(tmp_path, patch=said.replace("Why.", "Why, and how much: 7."))
    assert recipe(tmp_path, patch=said) != recipe(tmp_path, patch=said.replace("int a", "int b"))


def test_the_source_is_part_of_the_full_key() -> None:
    assert cache.full_key("r", package()) != cache.full_key("r", package("6.12.2-1"))
    assert cache.full_key("r", package()) == cache.full_key("r", package(kind="deb", digest="other"))
    tree = package("6.12.1", kind="tree", digest="one")
    assert cache.full_key("r", tree) != cache.full_key("r", package("6.12.1", kind="tree", digest="two"))


def put(tmp_path: Path, key: str, recipe_name: str = "r") -> cache.KernelImage:
    built = tmp_path / f"built-{key}"
    built.write_bytes(b"kernel " + key.encode())
    image = cache.KernelImage(
        image=Path("bzImage"),
        config=Path("config"),
        release="6.12.1-lmk",
        base="6.12",
        arch="x86_64",
        key=key,
        patched=True,
        source="package 6.12.1-1",
    )
    files = {"bzImage": built, "config": built, "selftests/kselftest.h": built}
    return cache.store(files, recipe=recipe_name, image=image)


def test_a_stored_kernel_is_found_by_key_and_recipe(tmp_path: Path) -> None:
    stored = put(tmp_path, "k1")
    assert stored.image.read_bytes() == b"kernel k1"
    assert (stored.selftests / "kselftest.h").is_file()
    assert cache.find_by_key("k1") == stored
    assert cache.find_by_recipe("r") == stored
    assert cache.find_by_recipe("other") is None
    assert cache.find_by_key("k2") is None


def test_the_kernel_asked_for_last_wins(tmp_path: Path) -> None:
    first, second = put(tmp_path, "k1"), put(tmp_path, "k2")
    assert cache.find_by_recipe("r") == second
    cache.find_by_key("k1")
    assert cache.find_by_recipe("r") == first


def test_an_incomplete_entry_is_no_kernel(tmp_path: Path) -> None:
    stored = put(tmp_path, "k1")
    stored.image.unlink()
    assert cache.all_images() == []
    (cache.images_dir() / "k1" / "kernel.json").write_text("{")
    assert cache.find_by_key("k1") is None


def test_only_one_build_at_a_time(tmp_path: Path) -> None:
    told: list[str] = []

    class StopWaitingError(Exception):
        pass

    def progress(stage: str, fraction: float | None) -> None:
        told.append(stage)
        raise StopWaitingError

    with (
        cache.build_lock(lambda stage, fraction: None),
        pytest.raises(StopWaitingError),
        cache.build_lock(progress),
    ):
        pass
    assert told == ["waiting for another kernel build on this machine"]
