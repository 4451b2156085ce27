"""The kernel's own style check, ``scripts/checkpatch.pl --strict``, on our patches."""

from __future__ import annotations

from pathlib import Path

from lmk import resources, subproc
from lmk.kernel import source

#: All a run without a tree reads.
_FILES = ("scripts/checkpatch.pl", "scripts/spelling.txt", "scripts/const_structs.checkpatch")
_TIMEOUT_S = 120.0
#: Asks for a change of MAINTAINERS with every new file; the directories of ours are listed there already.
_IGNORED = "FILE_PATH_CHANGES"


def complaints(patch: Path, scripts: Path) -> str:
    """What checkpatch.pl of the tree (or of ``checkpatch_of``) says about a patch; "" if nothing."""
    # Inside a tree it would also run spdxcheck.py, which wants a Python package of its own.
    options = ("--no-tree", "--strict", "-q", "--ignore", _IGNORED)
    # Under a relative name that git knows it would take the patch itself for the source to check.
    argv: list[str | Path] = ["perl", scripts / "scripts/checkpatch.pl", *options, patch.resolve()]
    done = subproc.run(argv, timeout_s=_TIMEOUT_S, check=False)
    return (done.stdout + done.stderr).decode(errors="replace").strip()


def cached_package(package: str) -> Path | None:
    """The source package fetched last, if any is in the cache."""
    files = resources.cache_dir("kernel", "packages").glob(f"{package}_*.deb")
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def checkpatch_of(deb: Path) -> Path:
    """A directory with checkpatch.pl as it is in this source package; unpacked once."""
    directory = resources.cache_dir("kernel", "checkpatch") / deb.stem
    if not directory.is_dir():
        source.unpack_files(deb, _FILES, directory)
    return directory
