"""Our C programs as static binaries for a device: prebuilt in the wheel, or built here by ziglang (musl).

A build is keyed by everything that goes into it (sources, headers, flags, compiler version, target) and kept
in ``cache_dir("native")``, so asking again is a few file reads. Standard library only: the wheel's build hook
uses this module before any dependency is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lmk import resources, subproc
from lmk.errors import HostError, InfraError

#: Zig target of each architecture, by the name that `uname -m` gives.
TARGETS: dict[str, str] = {
    "x86_64": "x86_64-linux-musl",
    "aarch64": "aarch64-linux-musl",
    "arm": "arm-linux-musleabi",
    "riscv64": "riscv64-linux-musl",
}
#: Other words for the same architectures: Android's ABI names, Debian's, 32-bit arm kernels'.
_ALIASES: dict[str, str] = {
    "amd64": "x86_64",
    "x86-64": "x86_64",
    "arm64": "aarch64",
    "arm64-v8a": "aarch64",
    "armv7l": "arm",
    "armv8l": "arm",
    "armeabi-v7a": "arm",
}
#: What a wheel carries ready to push.
PREBUILT_ARCHES: tuple[str, ...] = ("x86_64", "aarch64")

_FLAGS: tuple[str, ...] = (
    *("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"),
    *("-Os", "-static", "-s", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"),
)
# The first build for a target also compiles musl itself: about a minute on two slow cores.
_BUILD_TIMEOUT_S = 600.0


class Program(NamedTuple):
    """One C program: a directory in the checkout (and in the wheel's data) and what to compile in it."""

    directory: str
    #: Glob patterns inside the directory; headers count for the cache key by themselves.
    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()


#: Every C program that runs on a device.
PROGRAMS: dict[str, Program] = {
    "lmk-helper": Program("tools/lmk-helper", ("helper*.c", "common*.c")),
    "lmk-apprunner": Program("tools/lmk-helper", ("apprunner*.c", "common*.c")),
    "lmk-calibrate": Program("tools/lmk-helper", ("calibrate*.c", "common*.c", "apprunner_memory.c")),
    "lmk-guest": Program("tools/guest-tools", ("*.c",)),
}


def normal_arch(arch: str) -> str:
    """An architecture in ``uname -m``'s word; HostError for one we cannot build for."""
    name = _ALIASES.get(arch, arch)
    if name not in TARGETS:
        raise HostError(f"no native programs for architecture {arch!r}", f"known: {', '.join(TARGETS)}")
    return name


#: Directories with ready programs by architecture, asked before anything else; see ``prefer``.
_preferred: dict[str, Path] = {}


def prefer(directory: Path, arch: str) -> None:
    """Take this architecture's programs from ``directory`` (a bundle's) for as long as this process runs."""
    _preferred[normal_arch(arch)] = directory


def native_binary(name: str, arch: str) -> Path:
    """The program, ready to push: prebuilt if the installation carries it, otherwise built and cached.

    Raises HostError without a compiler (ziglang) and InfraError if the sources do not compile.
    """
    arch = normal_arch(arch)
    prebuilt = _prebuilt(name, arch)
    return prebuilt if prebuilt is not None else build(name, arch)


def content_key(name: str, arch: str) -> str:
    """Names the program that ``native_binary`` would give, without compiling anything."""
    arch = normal_arch(arch)
    prebuilt = _prebuilt(name, arch)
    if prebuilt is not None:
        return hashlib.sha256(prebuilt.read_bytes()).hexdigest()[:24]
    program = PROGRAMS[name]
    return _key(program, *_sources(name, program), arch)


def build(name: str, arch: str) -> Path:
    """Build from source (or take the cached result of the very same inputs)."""
    arch = normal_arch(arch)
    program = PROGRAMS[name]
    directory, sources = _sources(name, program)
    binary = resources.cache_dir("native", _key(program, directory, sources, arch)) / name
    if binary.exists():
        return binary
    if importlib.util.find_spec("ziglang") is None:
        raise HostError(
            f"{name} for {arch} must be compiled and ziglang is not installed",
            "install it with: pip install ziglang",
        )
    with _locked(binary.parent / "lock"):
        if not binary.exists():
            _compile(program, sources, arch, binary)
    return binary


def _prebuilt(name: str, arch: str) -> Path | None:
    preferred = _preferred.get(arch)
    if preferred is not None and (preferred / name).is_file():
        return preferred / name
    try:
        directory = resources.data_dir("prebuilt")
    except FileNotFoundError:
        return None
    path = directory / arch / name
    return path if path.is_file() else None


def _sources(name: str, program: Program) -> tuple[Path, list[Path]]:
    try:
        directory = resources.data_dir(program.directory)
    except FileNotFoundError as error:
        raise HostError(
            f"{name} is neither prebuilt here nor are its sources installed", "reinstall lmk from its wheel"
        ) from error
    sources = sorted({path for pattern in program.sources for path in directory.glob(pattern)})
    if not sources:
        raise InfraError(f"no sources of {name} in {directory}")
    return directory, sources


def _key(program: Program, directory: Path, sources: list[Path], arch: str) -> str:
    digest = hashlib.sha256()
    try:
        compiler = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        compiler = "none"
    digest.update(repr((compiler, TARGETS[arch], _FLAGS, program.flags)).encode())
    for path in (*sources, *sorted(directory.glob("*.h"))):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def _compile(program: Program, sources: list[Path], arch: str, binary: Path) -> None:
    zig_cache = str(resources.cache_dir("zig"))
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        output = Path(scratch) / binary.name
        argv = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[arch], *_FLAGS, *program.flags]
        argv += ["-o", str(output), *map(str, sources)]
        subproc.run(argv, timeout_s=_BUILD_TIMEOUT_S, env=environment, cwd=sources[0].parent)
        output.chmod(0o755)
        output.replace(binary)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two commands that want the same binary build it once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
