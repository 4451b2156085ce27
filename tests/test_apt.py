"""The private apt state: which of the machine's sources it follows, and what it never touches."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lmk import apt
from lmk.apt import AptSource, AptState, parse_targets
from lmk.errors import HostError


def target(uri: str, release: str, origin: str, label: str, entry: str = "", component: str = "main") -> str:
    return f"{uri}|{release}|{origin}|{label}|{entry}|{component}"


def test_only_debians_own_archives_are_followed(tmp_path: Path) -> None:
    lines = [
        target("http://mirror/debian/", "bookworm", "Debian", "Debian"),
        target("http://mirror/debian/", "bookworm", "Debian", "Debian", component="non-free-firmware"),
        target("http://mirror/debian/", "bookworm-updates", "Debian", "Debian"),
        target("http://mirror/debian/", "bookworm-backports", "Debian", "Debian Backports"),
        target("http://mirror/security/", "bookworm-security", "Debian", "Debian-Security"),
        target("http://vendor/apt/", "nodistro", "Vendor", "Vendor"),
        "$(REPO_URI)|garbage",
    ]
    sources = parse_targets("\n".join(lines))
    assert [(s.uri, s.security, s.components) for s in sources] == [
        ("http://mirror/debian/", False, ("main", "non-free-firmware")),
        ("http://mirror/security/", True, ("main",)),
    ]
    assert sources[0].line("trixie", ("main",)) == "deb http://mirror/debian/ trixie main"
    assert sources[1].line("trixie", ("main",)) == "deb http://mirror/security/ trixie-security main"


@pytest.mark.parametrize("style", ["deb822", "one-line"])
def test_keyrings_of_the_source_are_kept(tmp_path: Path, style: str) -> None:
    keyring = tmp_path / "corp.gpg"
    keyring.write_bytes(b"")
    if style == "deb822":
        entry = tmp_path / "debian.sources"
        entry.write_text(
            "# mirror\nTypes: deb\nURIs: http://other\nSuites: x\nComponents: y\n\n"
            f"Types: deb\nURIs: http://mirror/debian\nSuites: bookworm\nComponents: main\nSigned-By: {keyring}\n"
        )
        number = 2
    else:
        entry = tmp_path / "debian.list"
        entry.write_text(f"# mirror\ndeb [arch=amd64 signed-by={keyring}] http://mirror/debian bookworm main\n")
        number = 2
    (source,) = parse_targets(target("http://mirror/debian/", "bookworm", "Debian", "Debian", f"{entry}:{number}"))
    assert source.signed_by[0] == str(keyring)
    assert source.line("trixie").startswith(f"deb [signed-by={keyring}")


def test_a_machine_without_debian_mirror_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(HostError, match="no Debian mirror") as caught:
        apt.machine_sources()
    assert caught.value.exit_code == 2


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")
def test_a_mirror_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    source = AptSource(uri=f"copy:{tmp_path}/no-such-mirror", security=False, components=("main",))
    with pytest.raises(HostError, match="apt could not read the mirror") as caught:
        apt.open_state("trixie", root=tmp_path, sources=[source])
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not installed")
def test_resolve_and_download_from_a_local_archive(tmp_path: Path) -> None:
    archive = local_archive(tmp_path / "archive", {"app": "library", "library": ""})
    state = apt.open_state("trixie", root=tmp_path / "state", sources=[archive])
    wanted = ["app_1_amd64.deb", "library_1_amd64.deb"]
    assert [package.file_name for package in state.resolve(["app"])] == wanted
    paths = state.download(["app"])
    assert [path.name for path in paths] == wanted and all(path.is_file() for path in paths)
    # What is there already is still resolved, and not fetched again.
    assert [package.name for package in state.resolve(["app"])] == ["app", "library"]
    assert state.download_one("library").name == "library_1_amd64.deb"
    assert state.version_of("app") == "1"
    with pytest.raises(HostError, match="has no package nothing"):
        state.version_of("nothing")
    with pytest.raises(HostError, match="Unable to locate package nothing"):
        state.resolve(["nothing"])


def test_unknown_architectures_pass_through(tmp_path: Path) -> None:
    assert AptState(suite="trixie", arch="riscv64", root=tmp_path).arch == "riscv64"


def local_archive(folder: Path, packages: Mapping[str, str]) -> AptSource:
    """A tiny trusted archive of packages by name, each with what it depends on."""
    pool = folder / "pool"
    stanzas = []
    for name, depends in packages.items():
        tree = folder / name
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x>\nDescription: x\n"
        control += f"Depends: {depends}\n" if depends else ""
        (tree / "DEBIAN/control").write_text(control)
        pool.mkdir(exist_ok=True)
        deb = pool / f"{name}_1_amd64.deb"
        subprocess.run(["dpkg-deb", "-b", str(tree), str(deb)], check=True, capture_output=True)
        data = deb.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        stanzas.append(f"{control}Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n")
    index = folder / "dists/trixie/main/binary-amd64"
    index.mkdir(parents=True)
    listed = "".join(f"{stanza}\n" for stanza in stanzas).encode()
    (index / "Packages").write_bytes(listed)
    release = "Origin: Debian\nLabel: Debian\nSuite: trixie\nCodename: trixie\nComponents: main\n"
    release += "Architectures: amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
    release += f" {hashlib.sha256(listed).hexdigest()} {len(listed)} main/binary-amd64/Packages\n"
    (folder / "dists/trixie/Release").write_text(release)
    return _Trusted(uri=f"copy:{folder}", security=False, components=("main",))


class _Trusted(AptSource):
    """Unsigned, which only a test may be."""

    def line(self, suite: str, components: object = ()) -> str:
        return f"deb [trusted=yes] {self.uri} {suite} main"
