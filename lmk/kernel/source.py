"""Where kernel source comes from: Debian's linux-source packages, a ``.deb`` file, or a tree of the user's own.

Packages are fetched from the machine's own Debian mirrors (suite replaced) through an apt state of our own in the
cache, with apt checking every signature; /etc/apt is read and never written. No root is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs

from lmk import resources, subproc
from lmk.errors import HostError, InfraError, UserError
from lmk.kernel import aptsources
from lmk.kernel.aptsources import AptSource
from lmk.kernel.bases import DEBIAN_CODENAMES, Base
from lmk.progress import Progress

_APT_TIMEOUT_S = 900.0
_UNPACK_TIMEOUT_S = 900.0
#: Turned off, `apt-get update` fetches the signed Release files only.
_PACKAGE_INDEX = "Acquire::IndexTargets::deb::Packages::DefaultEnabled"
#: $1: the package file; $2: an empty directory for the tree inside its tarball.
#: Further arguments: the only files wanted, as patterns.
_UNPACK_SCRIPT = r"""
set -euo pipefail
deb=$1 directory=$2
shift 2
name=$(dpkg-deb --fsys-tarfile "$deb" | tar t | grep '/linux-source-[^/]*\.tar\.xz$')
dpkg-deb --fsys-tarfile "$deb" | tar xO "$name" | tar xJ --strip-components=1 -C "$directory" --wildcards "$@"
"""


@attrs.frozen(kw_only=True)
class KernelSource:
    """Source that can be unpacked. ``version``: package version, or the tree's own; ``digest``: of its content."""

    kind: str  # "package", "deb" or "tree"
    path: Path
    version: str
    digest: str


# --- Debian packages


def read_machine_sources(etc_apt: Path = Path("/etc/apt")) -> list[AptSource]:
    """Every archive in the machine's apt configuration, in apt's own order."""
    found: list[AptSource] = []
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        found += aptsources.parse_sources(file.read_text(errors="replace"), deb822=file.suffix == ".sources")
    return found


@attrs.frozen(kw_only=True)
class AptState:
    """An apt of our own: sources, lists and archives under one directory of the cache."""

    root: Path

    def configure(self, sources: list[AptSource]) -> None:
        """Write the sources this apt will see (and make its directories)."""
        for directory in ("lists/partial", "archives/partial", "etc/sources.list.d"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        (self.root / "etc/sources.list.d/lmk.sources").write_text(aptsources.render_deb822(sources))

    def options(self) -> list[str]:
        """Command-line options that keep apt inside ``root``; keyrings stay those of the machine."""
        settings = {
            "Dir::State": self.root,
            "Dir::State::lists": self.root / "lists",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root,
            "Dir::Cache::archives": self.root / "archives",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": self.root / "etc/sources.list.d",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Get::List-Cleanup": "0",
            # Our directories are private; apt's own sandbox user could not enter them.
            "APT::Sandbox::User": "root",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def origins(self, sources: list[AptSource]) -> dict[AptSource, str]:
        """Origin of each archive's signed Release file; an archive that cannot be fetched has none."""
        self.configure(sources)
        subproc.run(
            [
                "apt-get",
                *self.options(),
                "-o",
                f"{_PACKAGE_INDEX}=false",
                "-q",
                "update",
            ],
            timeout_s=_APT_TIMEOUT_S,
            check=False,  # some third-party archive may be down; what matters is which Release files came
        )
        found = {}
        for source in sources:
            release = self.root / "lists" / aptsources.release_file_name(source)
            if release.is_file():
                found[source] = aptsources.release_origin(release.read_text(errors="replace"))
        return found

    def update(self) -> None:
        """Fetch the package lists; InfraError with apt's words when an archive fails or is not signed."""
        subproc.run(
            [
                "apt-get",
                *self.options(),
                "-q",
                "-o",
                "APT::Update::Error-Mode=any",
                "update",
            ],
            timeout_s=_APT_TIMEOUT_S,
        )

    def candidate(self, package: str) -> str | None:
        """Version apt would install, or None."""
        done = subproc.run(["apt-cache", *self.options(), "policy", package], timeout_s=60, check=False)
        match = re.search(
            r"^\s+Candidate:\s*(\S+)",
            done.stdout.decode(errors="replace"),
            re.MULTILINE,
        )
        return match[1] if match and match[1] != "(none)" else None

    def download(self, package: str, version: str, directory: Path) -> Path:
        """Fetch one package file; apt checks its hash against the signed lists."""
        subproc.run(
            ["apt-get", *self.options(), "-q", "download", f"{package}={version}"],
            timeout_s=_APT_TIMEOUT_S,
            cwd=directory,
        )
        files = sorted(directory.glob(f"{package}_*.deb"))
        if not files:
            raise InfraError(f"apt-get download {package}={version} left no file in {directory}")
        return files[0]


def debian_sources(state: AptState, machine: list[AptSource], suite: str) -> list[AptSource]:
    """The machine's Debian archives with the suite replaced; HostError where it has none.

    Only archives whose signed Release says ``Origin: Debian`` count, whatever their suite is called.
    """
    candidates = aptsources.for_suite(machine, suite, DEBIAN_CODENAMES)
    origins = state.origins(candidates) if candidates else {}
    return [source for source in candidates if origins.get(source) == "Debian"]


def fetch_package(base: Base, progress: Progress, *, etc_apt: Path = Path("/etc/apt")) -> KernelSource:
    """Download the newest linux-source package of a base (or reuse the file already in the cache)."""
    subproc.require_tool("apt-get", "apt")
    machine = read_machine_sources(etc_apt)
    own = aptsources.machine_codename(machine, DEBIAN_CODENAMES)
    suites = sorted(base.suites, key=lambda suite: suite != own)
    for suite in suites:
        progress(f"looking for {base.package} in Debian {suite}", None)
        state = AptState(root=resources.cache_dir("apt", suite))
        sources = debian_sources(state, machine, suite)
        if not sources:
            continue
        state.configure(sources)
        state.update()
        version = state.candidate(base.package)
        if version is not None:
            return _download(state, base.package, version, progress)
    raise HostError(
        f"no Debian archive in {etc_apt} offers {base.package} (looked in {', '.join(suites)})",
        "give the source yourself with --deb FILE or --source DIR",
    )


def _download(state: AptState, package: str, version: str, progress: Progress) -> KernelSource:
    directory = resources.cache_dir("kernel", "packages")
    file = directory / f"{package}_{version.replace(':', '%3a')}_all.deb"
    if not file.is_file():
        progress(f"downloading {package} {version}", None)
        scratch = resources.cache_dir("kernel", "packages", f"partial-{os.getpid()}")
        try:
            state.download(package, version, scratch).rename(file)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
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
    return KernelSource(kind="tree", path=directory, version=version, digest=_tree_digest(directory))


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
    if source.kind == "tree":
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
