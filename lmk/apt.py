"""A private apt state for another Debian suite, derived from the machine's own apt configuration.

The mirrors are those the machine already uses: apt itself is asked for its index targets, entries whose
Release file does not say ``Origin: Debian`` are left out, and the suite name is replaced. Everything lives in
lmk's cache; /etc/apt and /var/lib/apt are only read, signatures are checked, root is not needed.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from attrs import field, frozen

from lmk import subproc
from lmk.errors import HostError, InfraError
from lmk.progress import Progress, silent
from lmk.resources import cache_dir

#: Package lists younger than this are used as they are.
LISTS_FRESH_S = 24 * 3600
_UPDATE_TIMEOUT_S = 600.0
_DOWNLOAD_TIMEOUT_S = 1800.0
_DEBIAN_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
_DEB_ARCH = {"x86_64": "amd64", "arm64": "arm64"}
_TARGET_FORMAT = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(LABEL)|$(SOURCESENTRY)|$(COMPONENT)"


@frozen(kw_only=True)
class AptSource:
    """One Debian repository of the machine, without its suite."""

    uri: str
    security: bool
    components: tuple[str, ...]
    #: Keyring files that may sign it; empty means the machine's trusted keys.
    signed_by: tuple[str, ...] = ()

    def line(self, suite: str, components: Iterable[str] = ()) -> str:
        """One-line sources.list entry for ``suite`` (its -security sibling for a security archive)."""
        name = f"{suite}-security" if self.security else suite
        option = f" [signed-by={','.join(self.signed_by)}]" if self.signed_by else ""
        wanted = tuple(components) or self.components
        return f"deb{option} {self.uri} {name} {' '.join(wanted)}"


@frozen(kw_only=True)
class Package:
    """One package as apt resolved it."""

    name: str
    file_name: str
    size_bytes: int
    #: Digest as apt prints it, e.g. "MD5Sum:…"; apt itself checks the signed SHA256 on download.
    digest: str


@frozen(kw_only=True)
class AptState:
    """Private apt state of one suite and architecture; made by ``open_state``."""

    suite: str
    arch: str
    root: Path = field(converter=Path)

    def resolve(self, packages: Sequence[str]) -> tuple[Package, ...]:
        """The packages and everything they depend on, sorted by name; HostError for an unknown package."""
        # apt leaves out what is already in the archives directory, so it is shown an empty one.
        nowhere = f"Dir::Cache::archives={self.root / 'empty'}"
        command = ["-o", nowhere, "--print-uris", "-qq", "-y", "install", *packages]
        output = self._apt_get(command, timeout_s=120.0)
        return tuple(sorted(_parse_print_uris(output), key=lambda package: package.file_name))

    def download(self, packages: Sequence[str], progress: Progress = silent) -> tuple[Path, ...]:
        """The .deb files of ``resolve(packages)``, checked against the signed lists; kept in the cache."""
        wanted = self.resolve(packages)
        archives = self.root / "archives"
        size_mb = sum(package.size_bytes for package in wanted) / 1e6
        progress(f"downloading {len(wanted)} {self.suite} packages ({size_mb:.1f} MB)", None)
        self._apt_get(["-qq", "-y", "--download-only", "install", *packages], timeout_s=_DOWNLOAD_TIMEOUT_S)
        return tuple(archives / package.file_name for package in wanted)

    def download_one(self, package: str, progress: Progress = silent) -> Path:
        """One .deb alone, without its dependencies (a kernel source package, for example)."""
        output = self._apt_get(["--print-uris", "-qq", "download", package], timeout_s=120.0)
        (wanted,) = _parse_print_uris(output)
        archives = self.root / "archives"
        path = archives / wanted.file_name
        if not (path.is_file() and path.stat().st_size == wanted.size_bytes):
            progress(f"downloading {package} ({wanted.size_bytes / 1e6:.1f} MB)", None)
            self._apt_get(["-qq", "download", package], timeout_s=_DOWNLOAD_TIMEOUT_S, cwd=archives)
        return path

    def version_of(self, package: str) -> str:
        """The candidate version of a package; HostError when the suite has none."""
        output = self._apt("apt-cache", ["policy", package], timeout_s=60.0)
        found = re.search(r"Candidate: (\S+)", output)
        if found is None or found.group(1) == "(none)":
            raise HostError(f"Debian {self.suite} has no package {package} for {self.arch}")
        return found.group(1)

    def update(self, progress: Progress = silent) -> None:
        """Fetch the package lists; HostError with apt's own words when no mirror answers."""
        progress(f"reading Debian's package lists for {self.suite}", None)
        self._apt_get(["-q", "update", "-o", "APT::Update::Error-Mode=any"], timeout_s=_UPDATE_TIMEOUT_S)
        (self.root / "updated").touch()

    def _apt_get(self, arguments: Sequence[str], *, timeout_s: float, cwd: Path | None = None) -> str:
        return self._apt("apt-get", arguments, timeout_s=timeout_s, cwd=cwd)

    def _apt(self, tool: str, arguments: Sequence[str], *, timeout_s: float, cwd: Path | None = None) -> str:
        return _run_apt(tool, ["-c", str(self.root / "apt.conf"), *arguments], timeout_s=timeout_s, cwd=cwd)


def open_state(
    suite: str,
    arch: str = "x86_64",
    *,
    root: Path | None = None,
    sources: Sequence[AptSource] | None = None,
    progress: Progress = silent,
) -> AptState:
    """The private state of ``suite``, its package lists at most a day old.

    Raises HostError when the machine has no Debian mirror, or none of them answers for this suite.
    """
    subproc.require_tool("apt-get", "apt")
    deb_arch = _DEB_ARCH.get(arch, arch)
    base = root if root is not None else cache_dir("apt", f"{suite}-{deb_arch}")
    state = AptState(suite=suite, arch=deb_arch, root=base)
    stamp = base / "updated"
    if stamp.is_file() and time.time() - stamp.stat().st_mtime < LISTS_FRESH_S:
        return state
    found = tuple(sources) if sources is not None else machine_sources()
    _write_state(state, found)
    state.update(progress)
    return state


def machine_sources() -> tuple[AptSource, ...]:
    """The machine's Debian mirrors, as apt itself reads its configuration.

    A machine whose lists were deleted (a container image) is asked through a private state that fetches them.
    """
    output = _run_apt("apt-get", ["indextargets", "--format", _TARGET_FORMAT, "Created-By: Packages"], timeout_s=60.0)
    sources = parse_targets(output)
    if not sources:
        with tempfile.TemporaryDirectory(prefix="lmk-apt-") as scratch:
            options = _private_options(Path(scratch))
            _run_apt("apt-get", [*options, "-q", "update"], timeout_s=_UPDATE_TIMEOUT_S, check=False)
            command = [*options, "indextargets", "--format", _TARGET_FORMAT, "Created-By: Packages"]
            sources = parse_targets(_run_apt("apt-get", command, timeout_s=60.0))
    if not sources:
        raise HostError(
            "apt on this machine has no Debian mirror (no source whose Release says Origin: Debian)",
            "add one to /etc/apt/sources.list.d and run apt-get update",
        )
    return sources


def parse_targets(output: str) -> tuple[AptSource, ...]:
    """Index targets (one ``_TARGET_FORMAT`` line each) to distinct Debian repositories, order kept."""
    merged: dict[tuple[str, bool], tuple[list[str], tuple[str, ...]]] = {}
    for line in output.splitlines():
        fields = line.split("|")
        if len(fields) != 6 or fields[2] != "Debian":
            continue
        uri, release, _, label, entry, component = fields
        # Backports and proposed-updates carry Origin: Debian too, but no packages of a whole suite.
        if "backports" in release or "proposed" in release:
            continue
        security = label == "Debian-Security"
        components, _ = merged.setdefault((uri, security), ([], _signed_by(entry)))
        if component not in components:
            components.append(component)
    return tuple(
        AptSource(uri=uri, security=security, components=tuple(components), signed_by=keys)
        for (uri, security), (components, keys) in merged.items()
    )


def _signed_by(entry: str) -> tuple[str, ...]:
    """Keyring paths named by the source entry ``file:number`` (line, or stanza in a deb822 file)."""
    name, _, number = entry.rpartition(":")
    path = Path(name)
    if not (number.isdigit() and path.is_file()):
        return ()
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".sources":
        stanzas = [s for s in re.split(r"\n[ \t]*\n", text) if re.search(r"(?mi)^uris:", s)]
        stanza = stanzas[int(number) - 1] if int(number) <= len(stanzas) else ""
        found = re.search(r"(?mi)^signed-by:[ \t]*(/\S[^\n]*)$", stanza)
    else:
        lines = text.splitlines()
        line = lines[int(number) - 1] if int(number) <= len(lines) else ""
        found = re.search(r"signed-by=([^\]\s]+)", line)
    if found is None:
        return ()
    named = [key for key in re.split(r"[,\s]+", found.group(1)) if key]
    # A keyring that names only the installed release's keys would refuse its neighbours.
    both = dict.fromkeys([*named, *_DEBIAN_KEYRINGS])
    return tuple(key for key in both if Path(key).is_file())


def _private_options(root: Path) -> list[str]:
    """apt options that keep every written file below ``root``."""
    for part in ("lists/partial", "archives/partial", "empty"):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    values = {
        "Dir::State": root,
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root,
        "Dir::Cache::archives": root / "archives",
        "Dir::Log": root,
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    return [part for name, value in values.items() for part in ("-o", f"{name}={value}")]


def _write_state(state: AptState, sources: Sequence[AptSource]) -> None:
    """Write apt.conf and sources.list of a private state."""
    root = state.root
    lines = [
        # The machine's hooks tidy the machine's own apt; they have no business here.
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
        "#clear APT::Update::Pre-Invoke;",
        "#clear DPkg::Post-Invoke;",
        "#clear DPkg::Pre-Install-Pkgs;",
        "#clear APT::Architectures;",
        "#clear APT::Default-Release;",
    ]
    options = _private_options(root)[1::2]
    options += [
        f"Dir::Etc::SourceList={root / 'sources.list'}",
        f"Dir::Etc::SourceParts={root / 'empty'}",
        f"Dir::Etc::Preferences={root / 'empty' / 'none'}",
        f"Dir::Etc::PreferencesParts={root / 'empty'}",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
        f"APT::Architecture={state.arch}",
        "APT::Install-Recommends=false",
        "APT::Keep-Downloaded-Packages=true",
        "APT::Get::Always-Include-Phased-Updates=true",
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        "Debug::NoLocking=1",
    ]
    for option in options:
        name, _, value = option.partition("=")
        lines.append(f'{name} "{value}";')
    lines.append(f'APT::Architectures {{ "{state.arch}"; }};')
    (root / "apt.conf").write_text("\n".join(lines) + "\n")
    entries = [source.line(state.suite, ("main",)) for source in sources]
    (root / "sources.list").write_text("\n".join(entries) + "\n")


def _parse_print_uris(output: str) -> list[Package]:
    packages = []
    for uri, file_name, size, digest in re.findall(r"^'([^']+)' (\S+) (\d+) ?(\S*)$", output, re.MULTILINE):
        name = unquote(file_name).partition("_")[0]
        packages.append(Package(name=name, file_name=file_name, size_bytes=int(size), digest=digest or Path(uri).name))
    return packages


def _run_apt(
    tool: str, arguments: Sequence[str], *, timeout_s: float, cwd: Path | None = None, check: bool = True
) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subproc.run([tool, *arguments], timeout_s=timeout_s, cwd=cwd, env=environment, check=False)
    if check and done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        errors = [line for line in words if line.startswith("E:")] or words or ["no reason given"]
        unknown = next((line for line in errors if "Unable to locate package" in line), None)
        if unknown is not None:
            raise HostError(f"apt: {unknown[3:]}", "see whether the mirror carries that Debian suite")
        if any(word in " ".join(errors) for word in ("Failed to fetch", "NO_PUBKEY", "not signed", "Release file")):
            raise HostError(
                f"apt could not read the mirror: {errors[0][3:]}",
                "check the network and the debian-archive-keyring package",
            )
        raise InfraError(f"{tool} failed: {errors[0]}", detail="\n".join(words[-20:]))
    return done.stdout.decode(errors="replace")
