"""Build a kernel: source, patches, configuration, make; cached by every input, safe to interrupt and to run twice.

An interrupted build goes on where it stopped: its tree stays in the cache's ``work`` directory, named by the key, until
the image is stored. Only image, config and symbol map are kept after that.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError, UserError
from lmk.kernel import cache, kconfig
from lmk.kernel import source as kernel_source
from lmk.kernel.bases import Base, check_arch, get_base
from lmk.kernel.cache import KernelImage
from lmk.kernel.kconfig import Wish
from lmk.kernel.series import Series, apply_series, load_series
from lmk.kernel.source import KernelSource
from lmk.kernel.toolchain import Toolchain, find_toolchain
from lmk.progress import Progress, silent

__all__ = ["KernelImage", "build_kernel", "find_kernel"]

_NICE = 10
_CONFIG_TIMEOUT_S = 600.0
_BUILD_TIMEOUT_S = 4 * 3600.0
#: Fixed identity, so that equal inputs give equal bytes.
_BUILD_ENV = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "lmk",
    "KBUILD_BUILD_HOST": "lmk",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C",
}
_READY = ".lmk-ready"


@attrs.frozen(kw_only=True)
class _Recipe:
    """Everything about a build but its source."""

    base: Base
    toolchain: Toolchain
    series: Series
    wishes: tuple[Wish, ...]
    debug: bool
    patched: bool
    key: str
    #: An Android common tree: its own gki_defconfig comes first.
    android: bool = False


def _recipe(base_name: str, arch: str, *, debug: bool, patched: bool, tree: Path | None = None) -> _Recipe:
    """``tree``: the user's own source, whose content may ask for other patches than Debian's."""
    base = get_base(base_name)
    toolchain = find_toolchain(check_arch(arch))
    data = resources.data_dir("android-kernel-patch")
    series = load_series(data, base.name)
    if tree is not None:
        series = series.for_tree(tree)
    if not patched:
        series = attrs.evolve(series, patches=())
    android = tree is not None and kernel_source.is_android_common(tree)
    wishes = kconfig.merge(kconfig.fragment_files(data, base.name, arch, debug=debug, patched=patched, android=android))
    key = cache.recipe_key(
        base=base.name,
        arch=arch,
        debug=debug,
        patches=series.image_patches,
        config=kconfig.render(wishes),
        compiler=toolchain.version,
    )
    return _Recipe(
        base=base,
        toolchain=toolchain,
        series=series,
        wishes=tuple(wishes),
        debug=debug,
        patched=patched,
        key=key,
        android=android,
    )


def find_kernel(base: str, arch: str = "x86_64", *, debug: bool = False, patched: bool = True) -> KernelImage | None:
    """The cached kernel of this base made from the present patches and fragments; asks no network."""
    return cache.find_by_recipe(_recipe(base, arch, debug=debug, patched=patched).key)


def build_kernel(
    base: str,
    arch: str = "x86_64",
    *,
    source: Path | None = None,
    deb: Path | None = None,
    jobs: int | None = None,
    debug: bool = False,
    patched: bool = True,
    update: bool = False,
    progress: Progress = silent,
) -> KernelImage:
    """A kernel of this base, from the cache or built now.

    ``source``: a kernel tree (copied, never touched); ``deb``: a linux-source package file; neither: Debian's package,
    fetched only when nothing suitable is cached or ``update`` asks for the newest. ``patched=False`` leaves our series
    out (for comparison). UserError on wrong input before anything is fetched; InfraError when a step fails.
    """
    if source is not None and deb is not None:
        raise UserError("both --source and --deb are given", "give one of them")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: must be at least 1", "leave it out to use every core")
    recipe = _recipe(base, arch, debug=debug, patched=patched)
    chosen = _users_source(recipe.base, source, deb)
    if source is not None:
        recipe = _recipe(base, arch, debug=debug, patched=patched, tree=source)
    if chosen is None and not update:
        cached = cache.find_by_recipe(recipe.key)
        if cached is not None:
            return cached
    with cache.build_lock(progress):
        if chosen is None:
            # Somebody else may have built it while we waited for the lock.
            cached = None if update else cache.find_by_recipe(recipe.key)
            if cached is not None:
                return cached
            chosen = kernel_source.fetch_package(recipe.base, progress)
        key = cache.full_key(recipe.key, chosen)
        return cache.find_by_key(key) or _build(recipe, chosen, key, jobs or os.cpu_count() or 1, progress)


def _users_source(base: Base, source: Path | None, deb: Path | None) -> KernelSource | None:
    if source is not None:
        return kernel_source.from_tree(source, base)
    if deb is not None:
        return kernel_source.from_deb(deb, base)
    return None


def _build(recipe: _Recipe, source: KernelSource, key: str, jobs: int, progress: Progress) -> KernelImage:
    tree = _prepare(recipe, source, key, progress)
    what = f"building Linux {source.version} for {recipe.toolchain.arch}"
    _make(tree, recipe, jobs, lambda fraction: progress(what, fraction))
    release = (tree / "include/config/kernel.release").read_text().strip()
    image_name = Path(recipe.toolchain.image).name
    files = {image_name: tree / recipe.toolchain.image, "config": tree / ".config"}
    files["System.map"] = tree / "System.map"
    stored = cache.store(
        files | _selftest_files(tree),
        recipe=recipe.key,
        image=KernelImage(
            image=Path(image_name),
            config=Path("config"),
            release=release,
            base=recipe.base.name,
            arch=recipe.toolchain.arch,
            key=key,
            patched=recipe.patched,
            debug=recipe.debug,
            source=f"{source.kind} {source.version}",
        ),
    )
    shutil.rmtree(tree)
    progress(f"kernel {release} is ready", 1.0)
    return stored


def _selftest_files(tree: Path) -> dict[str, Path]:
    """Sources of upstream's tests that touch what we change, and the headers of all selftests."""
    top = tree / "tools/testing/selftests"
    patterns = [
        *("kselftest.h", "kselftest_harness.h", "cgroup/*.[ch]", "pidfd/*.[ch]", "clone3/*.h"),
        *("mm/mrelease_test.c", "vm/mrelease_test.c", "mm/vm_util.h", "vm/util.h"),
    ]
    found = [file for pattern in patterns for file in top.glob(pattern)]
    return {f"selftests/{file.relative_to(top)}": file for file in found}


def _prepare(recipe: _Recipe, source: KernelSource, key: str, progress: Progress) -> Path:
    """A patched, configured tree for this key: the one an interrupted build left, or a new one."""
    work = resources.cache_dir("kernel", "work")
    tree = work / key
    for other in work.iterdir():
        if other != tree or not (tree / _READY).is_file():
            shutil.rmtree(other, ignore_errors=True)
    if tree.is_dir():
        progress("going on with an interrupted build", None)
        return tree
    progress(f"unpacking Linux {source.version}", None)
    kernel_source.unpack(source, tree)
    progress(f"applying {len(recipe.series.patches)} patches for {recipe.base.name}", None)
    apply_series(
        recipe.series,
        source,
        tree,
        warn=lambda text: progress(f"warning: {text}", None),
    )
    progress("configuring", None)
    _configure(tree, recipe)
    (tree / _READY).touch()
    return tree


def _configure(tree: Path, recipe: _Recipe) -> None:
    """allnoconfig (Android: gki_defconfig) plus our fragments, then olddefconfig; stops when a wish was not granted."""
    fragment = tree / ".lmk-fragment"
    fragment.write_text(kconfig.render(recipe.wishes))
    environment = {**os.environ, **_BUILD_ENV}
    if not recipe.android:
        environment["KCONFIG_ALLCONFIG"] = str(fragment)
    for target in ("gki_defconfig" if recipe.android else "allnoconfig", "olddefconfig"):
        subproc.run(
            ["make", "-s", *recipe.toolchain.make_arguments, target],
            cwd=tree,
            env=environment,
            timeout_s=_CONFIG_TIMEOUT_S,
            nice=_NICE,
        )
        if target == "gki_defconfig":
            # The last of several lines counts (scripts/kconfig/confdata.c), with a warning that nobody needs.
            with (tree / ".config").open("a") as config:
                config.write(fragment.read_text())
    kconfig.verify(
        recipe.wishes,
        (tree / ".config").read_text(),
        f"Linux {recipe.base.name} for {recipe.toolchain.arch}",
    )


def _make(tree: Path, recipe: _Recipe, jobs: int, report: Callable[[float], None]) -> None:
    """Run make to the end, telling the fraction done by counting its lines; InfraError with the compiler's words."""
    toolchain = recipe.toolchain
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as output:
        with os.fdopen(writer, "wb") as sink:
            process = subproc.spawn_tied(
                ["make", f"-j{jobs}", *toolchain.make_arguments, "-C", tree, toolchain.make_image],
                stdout=sink,
                env={**os.environ, **_BUILD_ENV},
                nice=_NICE,
            )
        watchdog = threading.Timer(_BUILD_TIMEOUT_S, subproc.stop, [process])
        watchdog.daemon = True
        watchdog.start()
        tail: deque[str] = deque(maxlen=500)
        told_s = 0.0
        try:
            for count, line in enumerate(output):
                tail.append(line.decode(errors="replace").rstrip())
                if time.monotonic() - told_s >= 0.5:
                    told_s = time.monotonic()
                    report(min(count / recipe.base.build_lines, 0.99))
            code = process.wait()
        finally:
            watchdog.cancel()
            subproc.stop(process)
    if code != 0:
        errors = [text for text in tail if "error:" in text or "Error " in text or "***" in text]
        raise InfraError(
            f"building Linux {recipe.base.name} for {toolchain.arch} failed" + (f": {errors[0]}" if errors else ""),
            "see the compiler's output below",
            detail="\n".join(list(tail)[-30:]),
        )
