"""Built kernels in the cache: one directory per key, the key a hash of every input.

The *recipe* is everything but the source (patches, fragments, compiler, build steps); the key adds the source. So a
cached kernel can be found again without asking apt which package version is current: the newest one built with the
present recipe is taken, and ``lmk kernel build --update`` looks for newer source.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from lmk import resources
from lmk.kernel.series import applied_part
from lmk.kernel.source import KernelSource
from lmk.progress import Progress

#: Raise when the build steps themselves change what comes out.
_BUILD_STEPS = 1


@attrs.frozen(kw_only=True)
class KernelImage:
    """A bootable kernel. ``key`` names every input; ``release`` is what uname -r says."""

    image: Path
    config: Path
    release: str
    base: str
    arch: str
    key: str
    patched: bool
    debug: bool = False
    source: str = ""

    @property
    def symbols(self) -> Path:
        """System.map of this kernel."""
        return self.image.with_name("System.map")

    @property
    def selftests(self) -> Path:
        """The parts of tools/testing/selftests of this kernel's source that our tests build upon."""
        return self.image.with_name("selftests")


def recipe_key(
    *,
    base: str,
    arch: str,
    debug: bool,
    patches: Sequence[Path],
    config: str,
    compiler: str,
) -> str:
    """Hash of everything but the source."""
    digest = hashlib.sha256()
    for part in (str(_BUILD_STEPS), base, arch, str(debug), config, compiler):
        digest.update(f"{len(part)}:{part}".encode())
    for patch in patches:
        content = applied_part(patch)
        digest.update(f"{patch.name}:{len(content)}:".encode() + content)
    return digest.hexdigest()[:16]


def full_key(recipe: str, source: KernelSource) -> str:
    """Recipe and source."""
    kind = "tree" if source.is_tree else "package"
    # The same package gives the same kernel, however its file came here.
    content = source.digest if source.is_tree else source.version
    return hashlib.sha256(f"{recipe} {kind} {content}".encode()).hexdigest()[:16]


def images_dir() -> Path:
    """Directory of finished kernels."""
    return resources.cache_dir("kernel", "images")


def load(directory: Path) -> KernelImage | None:
    """The kernel in one cache directory, or None where it is not complete."""
    try:
        meta = json.loads((directory / "kernel.json").read_text())
        image = KernelImage(
            image=directory / meta["image"],
            config=directory / "config",
            release=meta["release"],
            base=meta["base"],
            arch=meta["arch"],
            key=meta["key"],
            patched=meta["patched"],
            debug=meta["debug"],
            source=meta["source"],
        )
    except (OSError, ValueError, KeyError):
        return None
    return image if image.image.is_file() else None


def all_images() -> list[KernelImage]:
    """Every finished kernel, the one used last first."""
    directories = sorted(images_dir().iterdir(), key=lambda d: d.stat().st_mtime, reverse=True)
    found = (load(directory) for directory in directories if not directory.name.startswith("."))
    return [image for image in found if image is not None]


def find_by_recipe(recipe: str) -> KernelImage | None:
    """The kernel built or asked for last with this recipe, whatever source it came from."""
    for image in all_images():
        meta = json.loads((image.image.parent / "kernel.json").read_text())
        if meta.get("recipe") == recipe:
            return image
    return None


def find_by_key(key: str) -> KernelImage | None:
    """The kernel of exactly these inputs; finding it makes it the one used last."""
    directory = images_dir() / key
    image = load(directory) if directory.is_dir() else None
    if image is not None:
        os.utime(directory)
    return image


def store(files: dict[str, Path], *, recipe: str, image: KernelImage) -> KernelImage:
    """Copy a finished build into the cache, atomically. ``files``: name in the cache to file in the tree."""
    scratch = images_dir() / f".{image.key}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name, file in files.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, scratch / name)
    meta = {
        "schema": 1,
        "image": image.image.name,
        "release": image.release,
        "base": image.base,
        "arch": image.arch,
        "key": image.key,
        "recipe": recipe,
        "patched": image.patched,
        "debug": image.debug,
        "source": image.source,
    }
    (scratch / "kernel.json").write_text(json.dumps(meta, indent=1) + "\n")
    final = images_dir() / image.key
    shutil.rmtree(final, ignore_errors=True)
    scratch.rename(final)
    stored = load(final)
    assert stored is not None
    return stored


@contextlib.contextmanager
def build_lock(progress: Progress) -> Iterator[None]:
    """Only one kernel builds at a time on a machine; waiting says so."""
    with (resources.cache_dir("kernel") / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for another kernel build on this machine", None)
                time.sleep(1)
        yield
