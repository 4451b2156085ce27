"""``tools/check-series``: each patch applies, pleases checkpatch and compiles by itself, with its options on and off.

Only the objects that a patch touches are compiled, with warnings as errors: minutes, where whole kernels take hours.
Exit 0: all well, 1: a patch does not compile or checkpatch complains, 3: it does not apply.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from lmk import resources, subproc
from lmk.cli.main import report_error
from lmk.cli.terminal import shown_progress
from lmk.errors import InfraError, LmkError
from lmk.kernel import kconfig
from lmk.kernel import source as kernel_source
from lmk.kernel.bases import BASES, DEFAULT_BASE, get_base
from lmk.kernel.checkpatch import complaints
from lmk.kernel.series import Series, apply_patch, load_series, touched_files
from lmk.kernel.toolchain import Toolchain, find_toolchain
from lmk.progress import Progress

_CONFIG_TIMEOUT_S = 600.0
_COMPILE_TIMEOUT_S = 1800.0
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
#: Options that the patches touch or depend on, turned off one group at a time. The entry holds all that must go with
#: the first one; the name is what is shown.
_OFF = {
    "no tracing": ("CONFIG_FTRACE", "CONFIG_EVENT_TRACING", "CONFIG_TRACING", "CONFIG_ENABLE_DEFAULT_TRACERS"),
    "no DEBUG_MM_SHARING": ("CONFIG_DEBUG_MM_SHARING",),
    "no cgroups": ("CONFIG_CGROUPS",),
}


@attrs.frozen(kw_only=True)
class _Work:
    """A tree in which the patches are applied one after the other."""

    series: Series
    tree: Path
    toolchain: Toolchain
    wishes: tuple[kconfig.Wish, ...]
    jobs: int

    def make(self, *targets: str, timeout_s: float, environment: dict[str, str] | None = None) -> str:
        """Output of a failed make, "" of one that went well."""
        argv = ["make", "-s", f"-j{self.jobs}", *self.toolchain.make_arguments, *targets]
        done = subproc.run(
            argv,
            cwd=self.tree,
            env={**os.environ, "KCFLAGS": "-Werror", "LC_ALL": "C", **(environment or {})},
            timeout_s=timeout_s,
            check=False,
            nice=10,
        )
        return "" if done.returncode == 0 else (done.stdout + done.stderr).decode(errors="replace").strip()

    def configure(self, off: Sequence[str]) -> None:
        """Our fragments without some options; what depends on those goes, too."""
        wishes = [wish for wish in self.wishes if wish.name not in off]
        fragment = self.tree / ".lmk-fragment"
        fragment.write_text(kconfig.render(wishes) + "".join(f"# {name} is not set\n" for name in off))
        for target in ("allnoconfig", "olddefconfig"):
            failed = self.make(target, timeout_s=_CONFIG_TIMEOUT_S, environment={"KCONFIG_ALLCONFIG": str(fragment)})
            if failed:
                raise InfraError(f"make {target} failed", detail=failed)
        found = kconfig.parse_config((self.tree / ".config").read_text())
        still = [name for name in off if found.get(name, "n") != "n"]
        if still:
            raise InfraError(f"{still[0]} cannot be turned off: something selects it")


def objects(files: Sequence[str]) -> list[str]:
    """Objects to compile after a patch that touches these files."""
    found = [f"{file[:-2]}.o" for file in files if file.endswith(".c") and not file.startswith("tools/")]
    for file in files:
        found += _BY_HEADER.get(file, ())
    return sorted(set(found))


def _variants(files: Sequence[str], seen: set[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Configurations that make sense after these files: an option can be turned off once something looks at it."""
    seen.update(files)
    yield "all on", ()
    if "include/trace/events/oom.h" in seen:
        yield "no tracing", _OFF["no tracing"]
    if "mm/Kconfig.debug" in seen:
        yield "no DEBUG_MM_SHARING", _OFF["no DEBUG_MM_SHARING"]
    if "kernel/cgroup/cgroup.c" in seen:
        yield "no cgroups", _OFF["no cgroups"]


def check(work: _Work, source: kernel_source.KernelSource, progress: Progress) -> list[str]:
    """Everything wrong with the series; one entry per patch and configuration."""
    bad: list[str] = []
    seen: set[str] = set()
    work.configure(())
    # Headers and tables that every object needs.
    if failed := work.make("prepare", timeout_s=_COMPILE_TIMEOUT_S):
        raise InfraError("make prepare failed", detail=failed)
    for number, patch in enumerate(work.series.patches):
        progress(patch.name, number / len(work.series.patches))
        apply_patch(patch, work.series, source, work.tree, warn=lambda text: bad.append(f"fuzz: {text}"))
        if said := complaints(patch, work.tree):
            bad.append(f"{patch.name}: checkpatch: {said}")
        files = touched_files(patch)
        if not objects(files):
            continue
        for name, off in _variants(files, seen):
            work.configure(off)
            wanted = [o for o in objects(files) if not ("CONFIG_CGROUPS" in off and o.startswith("kernel/cgroup/"))]
            failed = work.make("prepare", *wanted, timeout_s=_COMPILE_TIMEOUT_S)
            print(f"{patch.name}: {name}: {len(wanted)} objects {'FAILED' if failed else 'ok'}", flush=True)
            if failed:
                bad.append(f"{patch.name}: {name}: {failed}")
    return bad


def main(argv: list[str] | None = None) -> int:
    """Unpack, check, clean up."""
    parser = argparse.ArgumentParser(prog="tools/check-series", description=__doc__)
    parser.add_argument("--base", default=DEFAULT_BASE, metavar="BASE", help=f"one of {', '.join(BASES)}")
    parser.add_argument("--source", type=Path, metavar="DIR", help="a kernel tree of your own (copied)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="a linux-source-X.Y package file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="parallel jobs")
    args = parser.parse_args(argv)
    try:
        with shown_progress() as progress:
            bad = _check_base(args, progress)
    except LmkError as error:
        report_error(error, as_json=False)
        return error.exit_code
    print("\n\n".join(bad) or f"the series for {args.base} is in order")
    return 1 if bad else 0


def _check_base(args: argparse.Namespace, progress: Progress) -> list[str]:
    base = get_base(args.base)
    data = resources.data_dir("android-kernel-patch")
    wishes = kconfig.merge(kconfig.fragment_files(data, base.name, "x86_64"))
    toolchain = find_toolchain("x86_64")
    if args.source is not None:
        source = kernel_source.from_tree(args.source, base)
    elif args.deb is not None:
        source = kernel_source.from_deb(args.deb, base)
    else:
        source = kernel_source.fetch_package(base, progress)
    tree = resources.cache_dir("kernel", "check") / f"{base.name}-{os.getpid()}"
    try:
        progress(f"unpacking Linux {source.version}", None)
        kernel_source.unpack(source, tree)
        series = load_series(data, base.name).for_tree(tree)
        work = _Work(series=series, tree=tree, toolchain=toolchain, wishes=tuple(wishes), jobs=args.jobs)
        return check(work, source, progress)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
