"""The kernel's own tests, as static programs for a guest: those our series adds, and upstream's that they touch.

Ours are taken from the patches themselves (they are new files there), so changing a test rebuilds no kernel. Headers
and upstream's tests come from the source that the kernel was built from.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError
from lmk.kernel.cache import KernelImage
from lmk.kernel.series import load_series
from lmk.kernel.toolchain import find_toolchain

_TOP = "tools/testing/selftests/"
_COMPILE_TIMEOUT_S = 300.0
#: process_reap's number, for upstream's mrelease_test built against it.
_REAP_NUMBER = 600


@attrs.frozen(kw_only=True)
class Program:
    """One test program: its sources below the selftests directory, what to replace in the first and add to it."""

    name: str
    sources: tuple[str, ...]
    replace: tuple[tuple[str, str], ...] = ()
    append: str = ""


def new_files(patch: str) -> dict[str, str]:
    """Files that a patch in git form adds: path to content."""
    files: dict[str, str] = {}
    for part in re.split(r"^diff --git ", patch, flags=re.MULTILINE)[1:]:
        name = re.search(r"^\+\+\+ b/(\S+)$", part, re.MULTILINE)
        if name is None or "\nnew file mode " not in part:
            continue
        body = part[part.index("\n@@ ") + 1 :].splitlines()[1:]
        # What follows the last hunk (the mail's end) does not start with "+".
        lines = []
        for line in body:
            if not line.startswith("+"):
                break
            lines.append(line[1:])
        files[name[1]] = "\n".join(lines) + "\n"
    return files


def programs(ours: dict[str, str], upstream: Path) -> list[Program]:
    """What can be built from our files and the upstream files of this kernel."""
    found = [Program(name=Path(path).stem, sources=(path,)) for path in ours if path.endswith(".c")]
    mrelease = [name for name in ("mm/mrelease_test.c", "vm/mrelease_test.c") if (upstream / name).is_file()]
    if mrelease:
        # From 6.4 on the page size is kept in variables of vm_util.c, which wants the newest kernel headers.
        variables = "\nunsigned int __page_size, __page_shift;\n" if mrelease[0].startswith("mm/") else ""
        found.append(Program(name="mrelease_test", sources=(mrelease[0],), append=variables))
        # By text: the C library's headers define the macro once more, after any -D of ours.
        number = (("syscall(__NR_process_mrelease", f"syscall({_REAP_NUMBER}"),)
        found.append(Program(name="mrelease_test_reap", sources=(mrelease[0],), replace=number, append=variables))
    if (upstream / "cgroup/test_kill.c").is_file():
        sources = ("cgroup/test_kill.c", "cgroup/cgroup_util.c")
        found.append(Program(name="cgroup_test_kill", sources=sources))
    pidfd = sorted(upstream.glob("pidfd/pidfd_*.c"))
    return found + [Program(name=f"upstream_{f.stem}", sources=(f"pidfd/{f.name}",)) for f in pidfd]


def build_selftests(image: KernelImage) -> dict[str, Path]:
    """Static binaries by name, built once per kernel and test source; InfraError when one does not compile.

    Upstream's programs that this host's C library headers are too old or too new for are left out.
    """
    toolchain = find_toolchain(image.arch)
    series = load_series(resources.data_dir("android-kernel-patch"), image.base)
    ours: dict[str, str] = {}
    for patch in series.patches:
        ours |= {
            path.removeprefix(_TOP): text
            for path, text in new_files(patch.read_text()).items()
            if path.startswith(_TOP)
        }
    digest = hashlib.sha256(f"{image.key} {toolchain.version} {sorted(ours.items())}".encode()).hexdigest()[:16]
    final = resources.cache_dir("kernel", "selftests") / digest
    if not final.is_dir():
        scratch = final.with_name(f".{digest}.building")
        shutil.rmtree(scratch, ignore_errors=True)
        source = scratch / "source"
        shutil.copytree(image.selftests, source)
        for path, text in ours.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text)
        for program in programs(ours, image.selftests):
            _compile(program, source, scratch / program.name, toolchain.compiler, ours=program.sources[0] in ours)
        shutil.rmtree(source)
        scratch.rename(final)
    return {file.name: file for file in sorted(final.iterdir())}


def _compile(program: Program, source: Path, output: Path, compiler: str, *, ours: bool) -> None:
    first = source / program.sources[0]
    if program.replace or program.append:
        text = first.read_text()
        for old, new in program.replace:
            text = text.replace(old, new)
        first = first.with_name(f"built_{program.name}.c")
        first.write_text(text + program.append)
    files = [first, *(source / name for name in program.sources[1:])]
    # 6.1's mrelease_test takes the numbers from its kernel's own headers, which are not here.
    flags = ("-Wall", "-Werror") if ours else ("-w", "-include", "sys/syscall.h")
    done = subproc.run(
        [compiler, "-O2", "-static", *flags, "-I", source, "-o", output, *files, "-lpthread"],
        cwd=first.parent,
        timeout_s=_COMPILE_TIMEOUT_S,
        check=False,
        nice=10,
    )
    if done.returncode != 0 and ours:
        raise InfraError(f"{program.name} does not compile", detail=done.stderr.decode(errors="replace"))
