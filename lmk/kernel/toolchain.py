"""The compiler and tools of a kernel build."""

from __future__ import annotations

import platform
from pathlib import Path

import attrs

from lmk import subproc
from lmk.errors import HostError

#: Tools every build uses, with their Debian packages.
_TOOLS = {
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "patch": "patch",
    "perl": "perl",
    "xz": "xz-utils",
    "lz4": "lz4",
    "gcc": "gcc",
    "ld": "binutils",
}
_CROSS = {
    "x86_64": ("x86-64-linux-gnu", "x86_64-linux-gnu-"),
    "arm64": ("aarch64-linux-gnu", "aarch64-linux-gnu-"),
}
_MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}


@attrs.frozen(kw_only=True)
class Toolchain:
    """``make_arguments`` choose the architecture; ``version`` goes into the cache key."""

    arch: str
    compiler: str
    make_arguments: tuple[str, ...]
    version: str
    make_image: str  # make's target
    image: str  # path of the result in the tree


def find_toolchain(arch: str) -> Toolchain:
    """The compiler for ``arch``; HostError naming the Debian package of the first thing missing."""
    for tool, package in _TOOLS.items():
        subproc.require_tool(tool, package)
    if arch == "x86_64" and not any(Path(p).is_file() for p in _LIBELF_HEADERS):
        raise HostError("libelf.h is not installed", "install it with: apt-get install libelf-dev")
    package_part, prefix = _CROSS[arch]
    native = _MACHINES.get(platform.machine()) == arch
    compiler = "gcc" if native else f"{prefix}gcc"
    subproc.require_tool(compiler, "gcc" if native else f"gcc-{package_part}")
    version = subproc.run([compiler, "--version"], timeout_s=60).stdout.decode().splitlines()[0]
    linker = subproc.run([("" if native else prefix) + "ld", "--version"], timeout_s=60)
    arguments = [f"ARCH={arch}"] + ([] if native else [f"CROSS_COMPILE={prefix}"])
    target, image = {
        "x86_64": ("bzImage", "arch/x86/boot/bzImage"),
        "arm64": ("Image", "arch/arm64/boot/Image"),
    }[arch]
    return Toolchain(
        arch=arch,
        compiler=compiler,
        make_arguments=tuple(arguments),
        version=f"{version}; {linker.stdout.decode().splitlines()[0]}",
        make_image=target,
        image=image,
    )


_LIBELF_HEADERS = ("/usr/include/libelf.h", "/usr/include/x86_64-linux-gnu/libelf.h")
