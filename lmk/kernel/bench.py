"""Measurements of the patches in a minimal guest: what the check for sharers costs, what cgroup.reap gains.

Under software emulation times are only good for comparing columns of one run; the counts (processes visited, victims
reaped, system calls) are exact anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError
from lmk.kernel.cache import KernelImage
from lmk.kernel.toolchain import find_toolchain
from lmk.kernel.trial import SOFTWARE, run_trial
from lmk.progress import Progress, silent

_COMPILE_TIMEOUT_S = 120.0
_BENCH_TIMEOUT_S = 1200.0
#: Other processes on the machine, and (victims, MiB each) of the cgroup.
PROCESSES = (0, 1000, 10_000, 20_000)
GROUPS = ((1, 32), (8, 32), (64, 16), (500, 2))
_MEMORY_MIB = 3072


@attrs.frozen(kw_only=True)
class BenchResult:
    """Rows as the guest program printed them, by kind: "sharing", "hit_rate", "cgroup"."""

    rows: dict[str, list[dict[str, Any]]]

    def slopes(self) -> list[dict[str, Any]]:
        """Cost per other process, by threads of the victim: counting against walking, and their ratio."""
        found = []
        rows = self.rows["sharing"]
        for threads in sorted({row["threads"] for row in rows}):
            mine = sorted((r for r in rows if r["threads"] == threads), key=lambda r: r["processes"])
            span = max(mine[-1]["processes"] - mine[0]["processes"], 1)
            count, walk = ((mine[-1][key] - mine[0][key]) / span for key in ("count_ns", "walk_ns"))
            found.append({"threads": threads, "count_ns_per_process": count, "walk_ns_per_process": walk})
        return found

    def cgroups(self) -> list[dict[str, Any]]:
        """Medians over the rounds, by size of the cgroup and way."""
        groups: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
        for row in self.rows["cgroup"]:
            groups.setdefault((row["processes"], row["mib_each"], row["way"]), []).append(row)
        return [
            {
                "processes": processes,
                "mib_each": mib_each,
                "way": way,
                "rounds": len(rows),
                **{key: median(row[key] for row in rows) for key in _CGROUP_FIGURES},
                "escaped": sum(row["escaped"] for row in rows),
            }
            for (processes, mib_each, way), rows in groups.items()
        ]


_CGROUP_FIGURES = ("returned_us", "back_us", "system_calls", "reaped", "reaped_mib")


def guest_program(name: str, arch: str) -> Path:
    """A program of ``android-kernel-patch/bench`` for a guest, static, built once."""
    toolchain = find_toolchain(arch)
    source = resources.data_dir("android-kernel-patch") / "bench" / f"{name}.c"
    key = hashlib.sha256(source.read_bytes() + toolchain.version.encode()).hexdigest()[:16]
    program = resources.cache_dir("kernel", "bench") / f"{name}-{key}"
    if not program.is_file():
        scratch = program.with_suffix(".building")
        subproc.run(
            [toolchain.compiler, "-O2", "-Wall", "-Wextra", "-static", "-o", scratch, source, "-lpthread"],
            timeout_s=_COMPILE_TIMEOUT_S,
        )
        scratch.rename(program)
    return program


def parse_rows(output: str) -> dict[str, list[dict[str, Any]]]:
    """JSON lines of the guest program; other lines (the kernel's) are skipped."""
    rows: dict[str, list[dict[str, Any]]] = {"sharing": [], "hit_rate": [], "cgroup": []}
    for line in output.splitlines():
        if not line.startswith('{"row"'):
            continue
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows.setdefault(row.pop("row"), []).append(row)
    return rows


def run_bench(
    kernel: KernelImage,
    *,
    processes: Sequence[int] = PROCESSES,
    groups: Sequence[tuple[int, int]] = GROUPS,
    accel: Sequence[str] = SOFTWARE,
    progress: Progress = silent,
) -> BenchResult:
    """Run everything once in a guest of its own; InfraError when a part of it gave no rows."""
    program = guest_program("reap_bench", kernel.arch)
    progress(f"measuring kernel {kernel.release}: sharing check, whole cgroups", None)
    sharing = " ".join(str(n) for n in processes)
    cgroups = " ".join(f"{count}:{mib}" for count, mib in groups)
    script = f"/reap_bench cgroup {cgroups}; /reap_bench sharing {sharing}\n"
    if not has_cgroup_reap(kernel):
        script = f"/reap_bench sharing {sharing}\n"
    result = run_trial(
        kernel,
        script,
        {"/reap_bench": program.read_bytes()},
        memory_mib=_MEMORY_MIB,
        timeout_s=_BENCH_TIMEOUT_S,
        accel=accel,
    )
    rows = parse_rows(result.output)
    if not rows["sharing"] or (has_cgroup_reap(kernel) and not rows["cgroup"]):
        raise InfraError("the measurement gave no result", detail="\n".join(result.output.splitlines()[-20:]))
    return BenchResult(rows=rows)


def has_cgroup_reap(kernel: KernelImage) -> bool:
    """Does this kernel have the file? Asked of its symbols, not of its version."""
    return " cgroup_reap_write\n" in kernel.symbols.read_text()
