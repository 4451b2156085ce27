"""Where kernel source comes from: Debian's linux-source packages, a ``.deb`` file, or a tree of the user's own.

Packages are fetched from the machine's own Debian mirrors (suite replaced) through an apt state of our own in the
cache, with apt checking every signature; /etc/apt is read and never written. No root is needed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs

from lmk import apt, resources, subproc
from lmk.errors import HostError, UserError
from lmk.kernel.bases import Base
from lmk.progress import Progress

#: A minute on an idle machine; on one that does other things, too, nothing shorter means that something is wrong.
_UNPACK_TIMEOUT_S = 4 * 3600.0
#: $1: the package file; $2: an empty directory for the tree inside its tarball.
#: Further arguments: the only files wanted, as patterns.
_UNPACK_SCRIPT = r"""
set -euo pipefail
deb=$1 directory=$2
shift 2
name=$(dpkg-deb --fsys-tarfile "$deb" | tar t | grep '/linux-source-[^/]*\.tar\.xz$')
dpkg-deb --fsys-tarfile "$deb" | tar xO "$name" | tar xJ --strip-components=1 -C "$directory" --wildcards "$@"
"""


#: A tree with Android's own defaults (arch/*/configs/gki_defconfig).
ANDROID = "android"


@attrs.frozen(kw_only=True)
class KernelSource:
    """Source that can be unpacked. ``version``: package version, or the tree's own; ``digest``: of its content."""

    kind: str  # "package", "deb", "tree" or ANDROID
    path: Path
    version: str
    digest: str

    @property
    def is_tree(self) -> bool:
        """A directory of the user's own."""
        return self.kind in ("tree", ANDROID)


def is_android_common(tree: Path) -> bool:
    """Whether a kernel tree is an Android common kernel: it brings gki_defconfig."""
    return any(tree.glob("arch/*/configs/gki_defconfig"))


# --- Debian packages


def fetch_package(base: Base, progress: Progress) -> KernelSource:
    """The newest linux-source package of a base, from this machine's own suite if that has it; kept in the cache.

    HostError where no Debian mirror of this machine offers it.
    """
    own = _own_suite()
    looked: list[str] = []
    for suite in sorted(base.suites, key=lambda suite: suite != own):
        progress(f"looking for {base.package} in Debian {suite}", None)
        try:
            state = apt.open_state(suite, progress=progress)
            return _download(state, base.package, state.version_of(base.package), progress)
        except HostError as error:
            looked.append(f"{suite}: {error.cause}")
    raise HostError(
        f"no Debian mirror of this machine offers {base.package} ({'; '.join(looked)})",
        "give the source yourself with --deb FILE or --source DIR",
    )


def _own_suite() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def _download(state: apt.AptState, package: str, version: str, progress: Progress) -> KernelSource:
    directory = resources.cache_dir("kernel", "packages")
    file = directory / f"{package}_{version.replace(':', '%3a')}_all.deb"
    if not file.is_file():
        shutil.move(state.download_one(package, progress), file)
    # apt verified the content when it fetched it; the version names it from then on.
    return KernelSource(kind="package", path=file, version=version, digest=version)


# --- the user's own


def from_deb(file: Path, base: Base) -> KernelSource:
    """A linux-source package the user already has; UserError unless it is one of this base."""
    if not file.is_file():
        raise UserError(f"{file}: no such file", "give --deb the path of a linux-source-X.Y_….deb")
    subproc.require_tool("dpkg-deb", "dpkg")
    done = subproc.run(["dpkg-deb", "-f", file, "Package", "Version"], timeout_s=60, check=False)
    fields = dict(line.split(": ", 1) for line in done.stdout.decode(errors="replace").splitlines() if ": " in line)
    if done.returncode != 0 or "Package" not in fields:
        raise UserError(
            f"{file}: not a Debian package",
            "give --deb the path of a linux-source-X.Y_….deb",
        )
    if fields["Package"] != base.package:
        raise UserError(
            f"{file}: package {fields['Package']}, but base {base.name} needs {base.package}",
            "choose the matching --base or another file",
        )
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return KernelSource(kind="deb", path=file, version=fields["Version"], digest=digest.hexdigest())


def from_tree(directory: Path, base: Base) -> KernelSource:
    """A kernel tree of the user's own; it is copied, never built or patched in place."""
    makefile = directory / "Makefile"
    text = makefile.read_text(errors="replace") if makefile.is_file() else ""
    numbers = [re.search(rf"^{name} = (\d+)$", text, re.MULTILINE) for name in _VERSION_LINES]
    if numbers[0] is None or numbers[1] is None or not (directory / "mm" / "oom_kill.c").is_file():
        raise UserError(
            f"{directory}: not a kernel source tree",
            "give --source the top of a Linux tree",
        )
    version = ".".join(match[1] for match in numbers if match is not None)
    if not (version + ".").startswith(base.name + "."):
        raise UserError(
            f"{directory}: Linux {version}, but the base is {base.name}",
            f"choose --base {'.'.join(version.split('.')[:2])} if lmk has patches for it",
        )
    kind = ANDROID if is_android_common(directory) else "tree"
    return KernelSource(kind=kind, path=directory, version=version, digest=_tree_digest(directory))


_VERSION_LINES = ("VERSION", "PATCHLEVEL", "SUBLEVEL")


def _tree_digest(directory: Path) -> str:
    """Hash of every file's path, size and mtime: a second over a whole tree, where the contents would take a minute."""
    digest = hashlib.sha256(str(directory.resolve()).encode())
    for root, directories, files in os.walk(directory):
        directories[:] = sorted(d for d in directories if d != ".git")
        for name in sorted(files):
            status = (Path(root) / name).lstat()
            digest.update(f"{root}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def unpack(source: KernelSource, destination: Path) -> None:
    """Put the source tree at ``destination`` (which must not exist), whole or not at all."""
    scratch = destination.with_name(destination.name + ".unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    if source.is_tree:
        subproc.run(
            ["cp", "-a", "--reflink=auto", f"{source.path}/.", scratch],
            timeout_s=_UNPACK_TIMEOUT_S,
            nice=10,
        )
        shutil.rmtree(scratch / ".git", ignore_errors=True)
        # Old results of the user's own builds must not leak into ours.
        subproc.run(
            ["make", "-s", "mrproper"],
            cwd=scratch,
            timeout_s=_UNPACK_TIMEOUT_S,
            nice=10,
        )
    else:
        _unpack_deb(source.path, scratch)
    scratch.rename(destination)


def unpack_files(file: Path, patterns: Sequence[str], destination: Path) -> None:
    """Only those files of a linux-source package, at ``destination`` (which must not exist), whole or not at all."""
    scratch = destination.with_name(destination.name + ".unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    _unpack_deb(file, scratch, [f"*/{pattern}" for pattern in patterns])
    scratch.rename(destination)


def _unpack_deb(file: Path, scratch: Path, patterns: Sequence[str] = ()) -> None:
    for tool, package in (("dpkg-deb", "dpkg"), ("tar", "tar"), ("xz", "xz-utils")):
        subproc.require_tool(tool, package)
    subproc.run(
        ["bash", "-c", _UNPACK_SCRIPT, "unpack", file, scratch, *patterns],
        timeout_s=_UNPACK_TIMEOUT_S,
        env={**os.environ, "XZ_DEFAULTS": "-T0"},
        nice=10,
    )
