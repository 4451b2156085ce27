"""``lmk kernel bench``: run the measurements of ``android-kernel-patch/bench`` in a minimal guest.

The guest program prints one JSON object per line and bounds each row itself: one that does not end is killed with all
its processes and reported as overdue, rows that would begin too late are left out. So the guest comes to its end.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError
from lmk.kernel.cache import KernelImage
from lmk.kernel.toolchain import find_toolchain
from lmk.kernel.trial import SOFTWARE, run_trial
from lmk.progress import Progress, silent

#: Parts in the order in which they run; sharing comes last, for its processes stay until the guest goes down.
#: "instructions" is a guest of its own: see ``_INSTRUCTIONS``.
PARTS = ("groups", "speed", "verdicts", "sharing", "instructions")
#: Other processes on the machine.
PROCESSES = (0, 1000, 10_000, 20_000)
_VERDICT_ROUNDS = 500
_SEED = 1
_MEMORY_MIB = 4096
_PART_LIMIT_S = {"groups": 240, "speed": 120, "verdicts": 60, "sharing": 240}
_BOOT_LIMIT_S = 60.0
_COMPILE_TIMEOUT_S = 120.0
#: Rows that a whole part prints, roughly: for the progress bar.
_ROWS = {"groups": 140, "speed": 12, "verdicts": 1, "sharing": 18, "instructions": 22}
#: One CPU whose clock advances by 1 ns with each instruction it executes: times of this guest are exact counts.
_INSTRUCTIONS = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off")
_INSTRUCTION_PROCESSES = (0, 1000)
_SETUP = """
losetup /dev/loop0 /ext4.img && mount -t ext4 /dev/loop0 /mnt
echo lz4 > /sys/block/zram0/comp_algorithm
echo 256M > /sys/block/zram0/disksize
mkswap /dev/zram0 > /dev/null && swapon /dev/zram0
"""


@attrs.frozen(kw_only=True)
class BenchRows:
    """What the guest program printed, by kind of row, in order.

    "group", "speed", "verdicts", "hits", "sharing": measurements, with the keys that
    ``android-kernel-patch/bench`` gives them. "sharing_instructions", "speed_instructions": the same where every ns
    is one instruction executed by the guest's only CPU. "absent": what this kernel does not have;
    "overdue" and "left_out": rows that were killed at their limit, or not begun.
    """

    rows: dict[str, list[dict[str, Any]]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Rows of one kind."""
        return self.rows.get(kind, [])


def parse_rows(output: str) -> BenchRows:
    """The rows in a console's text; other lines, and a row that a kernel message cut in two, are skipped."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in output.splitlines():
        row = _parse_row(line)
        if row is not None:
            rows.setdefault(row.pop("row"), []).append(row)
    return BenchRows(rows=rows)


def _parse_row(line: str) -> dict[str, Any] | None:
    if not line.startswith('{"row"'):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("row"), str) else None


def bench_program(arch: str) -> Path:
    """The guest program, static, built once per source and compiler."""
    toolchain = find_toolchain(arch)
    directory = resources.data_dir("android-kernel-patch") / "bench"
    sources = sorted(directory.glob("*.c"))
    digest = hashlib.sha256(toolchain.version.encode())
    for file in [*sources, directory / "bench.h"]:
        digest.update(file.read_bytes())
    program = resources.cache_dir("kernel", "bench") / f"reap_bench-{digest.hexdigest()[:16]}"
    if not program.is_file():
        with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
            built = Path(scratch) / program.name
            flags = ("-O2", "-Wall", "-Wextra", "-static")
            subproc.run([toolchain.compiler, *flags, "-o", built, *sources, "-lpthread"], timeout_s=_COMPILE_TIMEOUT_S)
            built.rename(program)
    return program


def bench_script(parts: Sequence[str], processes: Sequence[int], rounds: int) -> str:
    """The shell script of the guest for these parts."""
    arguments = {
        "groups": "groups",
        "speed": "speed",
        "verdicts": f"verdicts {rounds} {_SEED}",
        "sharing": f"sharing {' '.join(str(n) for n in processes)}",
    }
    runs = [f"/reap_bench -t {_PART_LIMIT_S[part]} {arguments[part]}" for part in arguments if part in parts]
    return _SETUP + "\n".join(runs) + "\n"


def run_bench(
    kernel: KernelImage,
    *,
    parts: Sequence[str] = PARTS,
    processes: Sequence[int] = PROCESSES,
    rounds: int = _VERDICT_ROUNDS,
    accel: Sequence[str] = SOFTWARE,
    progress: Progress = silent,
) -> BenchRows:
    """Run these parts; InfraError when a guest printed no row at all, BootError when it did not come to its end."""
    expected = sum(_ROWS[part] for part in parts)
    seen = 0

    def watch(line: str) -> None:
        nonlocal seen
        row = _parse_row(line)
        if row is not None:
            seen += 1
            progress(f"measuring {kernel.release}: {row['row']}", min(seen / expected, 0.99))

    progress(f"measuring {kernel.release}: booting", 0.0)
    rows: dict[str, list[dict[str, Any]]] = {}
    timed = [part for part in parts if part != "instructions"]
    if timed:
        limit_s = sum(_PART_LIMIT_S[part] + 60 for part in timed)
        rows |= _run_guest(kernel, bench_script(timed, processes, rounds), limit_s, 2, accel, watch).rows
    if "instructions" in parts:
        script = bench_script(("speed", "sharing"), _INSTRUCTION_PROCESSES, 0)
        limit_s = _PART_LIMIT_S["speed"] + _PART_LIMIT_S["sharing"]
        counted = _run_guest(kernel, script, limit_s, 1, _INSTRUCTIONS, watch)
        rows |= {f"{kind}_instructions": counted.of(kind) for kind in ("sharing", "speed")}
        for kind in ("overdue", "left_out"):
            rows.setdefault(kind, []).extend(counted.of(kind))
    return BenchRows(rows={kind: found for kind, found in rows.items() if found})


def _run_guest(
    kernel: KernelImage,
    script: str,
    limit_s: float,
    cpus: int,
    accel: Sequence[str],
    watch: Callable[[str], None],
) -> BenchRows:
    program = bench_program(kernel.arch)
    with tempfile.TemporaryDirectory(prefix="lmk-bench-") as directory:
        disk = Path(directory) / "ext4.img"
        with disk.open("wb") as file:
            file.truncate(8 << 20)
        subproc.run([subproc.require_tool("mkfs.ext4", "e2fsprogs"), "-q", "-F", disk], timeout_s=60)
        result = run_trial(
            kernel,
            script,
            {"/reap_bench": program.read_bytes(), "/ext4.img": disk.read_bytes()},
            memory_mib=_MEMORY_MIB,
            cpus=cpus,
            timeout_s=_BOOT_LIMIT_S + limit_s,
            # Under emulation the watchdog takes the TSC for unstable, and reading the HPET instead is slow.
            command_line="tsc=reliable",
            accel=accel,
            on_line=watch,
        )
    rows = parse_rows(result.output)
    if not rows.rows:
        raise InfraError("the measurement printed no result", detail="\n".join(result.output.splitlines()[-20:]))
    return rows
