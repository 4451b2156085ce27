"""A patch series: which patches, in which order, known to apply to which package versions; and applying it.

``series`` lists one patch file name per line. Header lines ``# package: NAME VERSION`` name the source packages the
series is known to apply to without fuzz; on other versions a fuzz of up to 2 is accepted with a warning. A patch
followed by ``[with process_mrelease]`` or ``[without process_mrelease]`` is for trees that have that system call, or
lack it: Android's 5.10 has it, mainline's has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import attrs

from lmk import subproc
from lmk.errors import InfraError, UserError
from lmk.kernel.source import KernelSource

_PACKAGE_LINE = re.compile(r"^#\s*package:\s*(?P<name>\S+)\s+(?P<version>\S+)\s*$")
_FILE_LINE = re.compile(r"^(?:checking|patching) file '?(?P<file>[^'\s]+)'?")
_PATCH_LINE = re.compile(r"^(?P<name>\S+)(?:\s+\[(?P<condition>with|without) process_mrelease\])?$")
_MRELEASE = re.compile(r"^SYSCALL_DEFINE2\(process_mrelease\b", re.MULTILINE)
_FAILED = re.compile(r"^Hunk #(?P<hunk>\d+) FAILED")
_FUZZ = re.compile(r"^Hunk #(?P<hunk>\d+) succeeded at .*with fuzz (?P<fuzz>\d+)")
_TOUCHED = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)
_PATCH_TIMEOUT_S = 120.0
#: Rejected hunks are read from the output; no .orig or .rej files are left in the tree.
_PATCH_OPTIONS = ("-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-r", "-")


@attrs.frozen(kw_only=True)
class Series:
    """``versions``: package versions on which every patch applies with zero fuzz.

    ``patches`` are those for Debian's source of this base; ``if_mrelease`` those for a tree with process_mrelease,
    where the two differ.
    """

    base: str
    patches: tuple[Path, ...]
    versions: tuple[str, ...]
    if_mrelease: tuple[Path, ...] = ()

    def for_tree(self, tree: Path) -> Series:
        """The series for this tree: what is in its source decides, not its version."""
        differs = bool(self.if_mrelease) and has_mrelease(tree)
        return attrs.evolve(self, patches=self.if_mrelease, if_mrelease=()) if differs else self

    @property
    def image_patches(self) -> tuple[Path, ...]:
        """Those that can change the image: not the ones that only add tests or documentation."""
        return tuple(patch for patch in self.patches if not _only_tests(patch))


def has_mrelease(tree: Path) -> bool:
    """Whether a kernel tree has the system call process_mrelease."""
    file = tree / "mm" / "oom_kill.c"
    return file.is_file() and _MRELEASE.search(file.read_text(errors="replace")) is not None


def touched_files(patch: Path) -> list[str]:
    """Paths in the tree that a patch changes or adds."""
    return _TOUCHED.findall(patch.read_text())


def applied_part(patch: Path) -> bytes:
    """What a patch does to a tree: everything but its message, which may be reworded without another kernel."""
    content = patch.read_bytes()
    _, found, rest = content.partition(b"\ndiff --git ")
    return rest if found else content


def _only_tests(patch: Path) -> bool:
    return all(file.startswith(("tools/testing/", "Documentation/")) for file in touched_files(patch))


def load_series(directory: Path, base: str) -> Series:
    """Read ``directory/BASE/series``; UserError where the base has none, InfraError where it is broken."""
    file = directory / base / "series"
    if not file.is_file():
        raise UserError(
            f"no patch series for kernel base {base} in {directory}",
            "choose another --base",
        )
    versions: list[str] = []
    patches: dict[str, list[Path]] = {"with": [], "without": []}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        package = _PACKAGE_LINE.match(line)
        entry = line.split("#", 1)[0].strip()
        if package is not None:
            versions.append(package["version"])
        elif entry:
            match = _PATCH_LINE.match(entry)
            patch = file.parent / (match["name"] if match is not None else entry)
            if match is None or not patch.is_file():
                raise InfraError(f"{file}:{number}: no such patch: {entry}")
            for condition in (match["condition"],) if match["condition"] else ("with", "without"):
                patches[condition].append(patch)
    without, with_mrelease = tuple(patches["without"]), tuple(patches["with"])
    differs = with_mrelease != without
    return Series(base=base, patches=without, versions=tuple(versions), if_mrelease=with_mrelease if differs else ())


def apply_series(series: Series, source: KernelSource, tree: Path, warn: Callable[[str], None]) -> None:
    """Apply every patch to ``tree``; an InfraError names patch, file, hunk and base when one does not apply."""
    for patch in series.patches:
        apply_patch(patch, series, source, tree, warn=warn)


def apply_patch(patch: Path, series: Series, source: KernelSource, tree: Path, *, warn: Callable[[str], None]) -> None:
    """Apply one patch of the series; see ``apply_series``. No fuzz is tolerated on the versions that it lists."""
    subproc.require_tool("patch", "patch")
    listed = not source.is_tree and source.version in series.versions
    fuzz = 0 if listed else 2
    done = subproc.run(
        ["patch", *_PATCH_OPTIONS, f"--fuzz={fuzz}", "-i", patch],
        cwd=tree,
        timeout_s=_PATCH_TIMEOUT_S,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    where = f"kernel base {series.base} ({source.version})"
    if done.returncode != 0:
        failures = failed_hunks(output)
        what = ", ".join(f"{file} hunk {hunk}" if hunk else file for file, hunk in failures) or "see below"
        raise InfraError(
            f"{patch.name} does not apply to {where}: {what}",
            "use one of the package versions listed in the series file, with --deb FILE or --source DIR",
            detail=output.strip(),
        )
    for line in output.splitlines():
        match = _FUZZ.match(line)
        if match is not None:
            warn(f"{patch.name} applied to {where} with fuzz {match['fuzz']} (hunk {match['hunk']})")


def failed_hunks(output: str) -> list[tuple[str, int]]:
    """(file, hunk) of each failure in the output of patch(1); hunk 0: the whole file (missing, or patched before)."""
    failures: list[tuple[str, int]] = []
    file = "?"
    for line in output.splitlines():
        named = _FILE_LINE.match(line)
        missing = re.match(r"^\|?(?:diff --git a/(\S+)|--- a/(\S+))", line)
        if named is not None:
            file = named["file"]
        elif missing is not None:
            file = missing[1] or missing[2]
        failed = _FAILED.match(line)
        if failed is not None:
            failures.append((file, int(failed["hunk"])))
        elif "No file to patch" in line or "previously applied" in line or "can't find file" in line:
            failures.append((file, 0))
    return list(dict.fromkeys(failures))
