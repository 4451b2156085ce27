"""Each patch of a series by itself: it applies, pleases checkpatch, and compiles with its options on and off.

Only the objects that a patch touches are compiled, with warnings as errors. What passed is remembered by everything it
depends on (source, patches up to there, configuration, compiler), and the patched tree is kept until all is well; so an
interrupted or failed check goes on with what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError, UserError
from lmk.kernel import kconfig
from lmk.kernel import source as kernel_source
from lmk.kernel.checkpatch import complaints
from lmk.kernel.series import Series, applied_part, apply_patch, touched_files
from lmk.kernel.source import KernelSource
from lmk.kernel.toolchain import Toolchain
from lmk.progress import Progress

#: As for a whole kernel: on a machine that does other things, too, nothing shorter means that something is wrong.
_TIMEOUT_S = 4 * 3600.0
#: Raise when the checks themselves change.
_CHECKS = 1
_APPLIES, _STYLE = "applies without fuzz", "checkpatch"
#: Objects that show whether a header of ours still fits; the system call tables come with the entry code.
_BY_HEADER = {
    "include/linux/oom.h": ("mm/oom_kill.o", "kernel/cgroup/cgroup.o", "fs/proc/base.o"),
    "include/trace/events/oom.h": ("mm/oom_kill.o",),
    "include/linux/sched/signal.h": ("kernel/signal.o",),
    "include/linux/syscalls.h": ("kernel/sys_ni.o",),
    "include/uapi/asm-generic/unistd.h": ("kernel/sys_ni.o",),
    "arch/x86/entry/syscalls/syscall_64.tbl": ("arch/x86/entry/syscall_64.o",),
    "arch/x86/entry/syscalls/syscall_32.tbl": ("arch/x86/entry/syscall_32.o",),
    "mm/Kconfig.debug": ("mm/oom_kill.o",),
}
#: Options that the patches touch or depend on, turned off one group at a time, once a file of theirs was touched. The
#: entry holds all that must go with the first one.
_OFF = {
    "no tracing": (
        "include/trace/events/oom.h",
        ("CONFIG_FTRACE", "CONFIG_EVENT_TRACING", "CONFIG_TRACING", "CONFIG_ENABLE_DEFAULT_TRACERS"),
    ),
    "no DEBUG_MM_SHARING": ("mm/Kconfig.debug", ("CONFIG_DEBUG_MM_SHARING",)),
    "no cgroups": ("kernel/cgroup/cgroup.c", ("CONFIG_CGROUPS",)),
}


@attrs.frozen(kw_only=True)
class Check:
    """One thing to see about patch ``number``; ``objects`` to compile with the options ``off``, if it is that."""

    number: int
    patch: str
    what: str
    key: str
    off: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.patch}: {self.what}" + (f", {len(self.objects)} objects" if self.objects else "")


@attrs.frozen(kw_only=True)
class Subject:
    """What is checked, and with what. ``wishes``: the configuration with everything on."""

    series: Series
    source: KernelSource
    toolchain: Toolchain
    wishes: tuple[kconfig.Wish, ...]

    def state(self, applied: int) -> str:
        """Name of a tree with so many patches, as a hash of everything that a check there depends on."""
        facts = (_CHECKS, self.source.version, self.source.digest, self.toolchain.version, kconfig.render(self.wishes))
        digest = hashlib.sha256(repr(facts).encode())
        for patch in self.series.patches[:applied]:
            content = applied_part(patch)
            digest.update(f"{len(content)}:".encode() + content)
        return digest.hexdigest()[:16]

    def checks(self) -> list[Check]:
        """All of them, in order."""
        found: list[Check] = []
        seen: set[str] = set()
        for number, patch in enumerate(self.series.patches):
            files = touched_files(patch)
            seen.update(files)
            state = self.state(number + 1)
            ways: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [(_APPLIES, (), ()), (_STYLE, (), ())]
            ways += [("all on", (), objects(files))] if objects(files) else []
            for name, (file, off) in _OFF.items():
                if file in seen and objects(files):
                    ways.append((name, off, objects(files, off)))
            for what, off, wanted in ways:
                key = f"{state}-{what.replace(' ', '-')}"
                if what == _STYLE:
                    key += f"-{hashlib.sha256(patch.read_bytes()).hexdigest()[:16]}"
                found.append(Check(number=number, patch=patch.name, what=what, key=key, off=off, objects=wanted))
        return found


def objects(files: Sequence[str], off: Sequence[str] = ()) -> tuple[str, ...]:
    """Objects to compile after a patch that touches these files, where the options ``off`` leave them there."""
    found = [f"{file[:-2]}.o" for file in files if file.endswith(".c") and not file.startswith("tools/")]
    for file in files:
        found += _BY_HEADER.get(file, ())
    gone = "kernel/cgroup/" if "CONFIG_CGROUPS" in off else "\0"
    return tuple(sorted({name for name in found if not name.startswith(gone)}))


@attrs.frozen(kw_only=True)
class Place:
    """Where a base's tree is kept while it is checked, and what has passed."""

    directory: Path
    subject: Subject

    @staticmethod
    def of(subject: Subject) -> Place:
        """In the cache."""
        return Place(directory=resources.cache_dir("kernel", "check", subject.series.base), subject=subject)

    @property
    def tree(self) -> Path:
        """The kernel tree."""
        return self.directory / "tree"

    @property
    def _state(self) -> Path:
        return self.directory / "state"

    def passed(self, check: Check) -> bool:
        """Seen before."""
        return (self.directory / "passed" / check.key).is_file()

    def store(self, check: Check) -> None:
        """It passed."""
        (self.directory / "passed").mkdir(exist_ok=True)
        (self.directory / "passed" / check.key).touch()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Two checks in one tree would configure it under each other's feet; UserError for the second."""
        with self.directory.with_name(f"{self.directory.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                name = self.subject.series.base
                raise UserError(f"the series for {name} is being checked already", "wait until that is over") from None
            yield

    def forget(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()

    def open(self, applied_max: int, progress: Progress) -> int:
        """A tree with at most so many patches: the kept one, or a new one. How many it has."""
        known = self._state.read_text() if self._state.is_file() else ""
        for applied in range(applied_max, -1, -1):
            if self.tree.is_dir() and known == self.subject.state(applied):
                return applied
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.tree, ignore_errors=True)
        progress(f"unpacking Linux {self.subject.source.version}", None)
        kernel_source.unpack(self.subject.source, self.tree)
        self._state.write_text(self.subject.state(0))
        return 0

    def apply(self, number: int, warn: Callable[[str], None]) -> None:
        """One more patch. Interrupted here, the tree is not one that is known."""
        self._state.unlink()
        apply_patch(self.subject.series.patches[number], self.subject.series, self.subject.source, self.tree, warn=warn)
        self._state.write_text(self.subject.state(number + 1))

    def remove_tree(self) -> None:
        """It is not needed any more."""
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.tree, ignore_errors=True)

    def compile(self, check: Check, jobs: int) -> str:
        """What the compiler said, "" if all is well. InfraError where the configuration cannot be had."""
        wishes = [wish for wish in self.subject.wishes if wish.name not in check.off]
        fragment = self.tree / ".lmk-fragment"
        fragment.write_text(kconfig.render(wishes) + "".join(f"# {name} is not set\n" for name in check.off))
        for target in ("allnoconfig", "olddefconfig"):
            failed = self._make([target], 1, {"KCONFIG_ALLCONFIG": str(fragment)})
            if failed:
                raise InfraError(f"make {target} failed", detail=failed)
        found = kconfig.parse_config((self.tree / ".config").read_text())
        still = [name for name in check.off if found.get(name, "n") != "n"]
        if still:
            raise InfraError(f"{still[0]} cannot be turned off: something selects it")
        return self._make(["prepare", *check.objects], jobs, {"KCFLAGS": "-Werror"})

    def _make(self, targets: Sequence[str], jobs: int, environment: dict[str, str]) -> str:
        done = subproc.run(
            ["make", "-s", f"-j{jobs}", *self.subject.toolchain.make_arguments, *targets],
            cwd=self.tree,
            env={**os.environ, "LC_ALL": "C", **environment},
            timeout_s=_TIMEOUT_S,
            check=False,
            nice=10,
        )
        return "" if done.returncode == 0 else (done.stdout + done.stderr).decode(errors="replace").strip()


def run_checks(place: Place, jobs: int, progress: Progress, say: Callable[[str], None]) -> list[str]:
    """Make the checks that are left, saying how each went; what is wrong, one entry each."""
    checks = place.subject.checks()
    left = [check for check in checks if not place.passed(check)]
    for check in checks:
        if check not in left:
            say(f"{check.label}: passed before")
    if not left:
        return []
    first = left[0]
    bad: list[str] = []
    # Whether a patch applies is only seen by applying it.
    applied = place.open(first.number + (first.what != _APPLIES), progress)
    for index, check in enumerate(left):
        progress(f"{check.label} ({index + 1} of {len(left)})", index / len(left))
        said: list[str] = []
        while applied <= check.number:
            place.apply(applied, said.append)
            applied += 1
        if check.what == _STYLE:
            said.append(complaints(place.subject.series.patches[check.number], place.tree))
        elif check.objects:
            said.append(place.compile(check, jobs))
        wrong = "\n".join(text for text in said if text)
        say(f"{check.label}: {'FAILED' if wrong else 'ok'}")
        if wrong:
            bad.append(f"{check.label}: {wrong}")
        else:
            place.store(check)
    if not bad:
        place.remove_tree()
    return bad
