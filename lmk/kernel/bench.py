"""``lmk kernel bench``: run the measurements of ``android-kernel-patch/bench`` in a minimal guest.

The guest program prints one JSON object per line and bounds each row itself: one that does not end is killed with all
its processes and reported as overdue, rows that would begin too late are left out. A guest that falls silent or goes
down is given up, and another one goes on after the step in which that happened. So the measurement comes to its end.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError, TargetError
from lmk.kernel.bench_steps import PARTS, Collector, Measured, Results, Rows, Step, plan, script
from lmk.kernel.bench_steps import ROW_LIMIT_S as _SILENCE_S
from lmk.kernel.cache import KernelImage
from lmk.kernel.toolchain import find_toolchain
from lmk.kernel.trial import SOFTWARE, run_trial
from lmk.progress import Progress, silent

#: Other processes on the machine.
PROCESSES = (0, 1000, 10_000, 20_000)
_VERDICT_ROUNDS = 500
_MEMORY_MIB = 4096
_BOOT_LIMIT_S = 60
_COMPILE_TIMEOUT_S = 120.0
#: One CPU whose clock advances by 1 ns with each instruction it executes: times of this guest are exact counts.
_INSTRUCTIONS = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off")
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
    is one instruction executed by the guest's only CPU. "absent": what this kernel does not have; "failed",
    "overdue", "left_out" and "lost": rows that went wrong, were killed at their limit, were not begun, or whose guest
    went down. ``kept``: steps that were measured before, and when (ISO 8601, UTC).
    """

    rows: Rows
    kept: dict[str, str] = attrs.field(factory=dict)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Rows of one kind."""
        return self.rows.get(kind, [])


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


def run_bench(
    kernel: KernelImage,
    *,
    parts: Sequence[str] = PARTS,
    processes: Sequence[int] = PROCESSES,
    rounds: int = _VERDICT_ROUNDS,
    accel: Sequence[str] = SOFTWARE,
    fresh: bool = False,
    progress: Progress = silent,
) -> BenchRows:
    """Measure these parts; steps that were finished before are taken from the cache, unless ``fresh``.

    InfraError or BootError when a guest did not come as far as its first step.
    """
    steps = plan(parts, processes, rounds)
    program = bench_program(kernel.arch)
    results = Results(kernel_key=kernel.key, inputs=repr((program.name, accel, _INSTRUCTIONS, _SETUP, _MEMORY_MIB)))
    found: dict[str, Rows] = {}
    kept: dict[str, str] = {}
    for step in steps:
        # All of them first: an interrupted fresh run goes on without --fresh.
        if fresh:
            results.forget(step)
        known = results.load(step)
        if known is not None:
            found[step.name], kept[step.name] = known
            progress(f"{step.name}: kept from {known[1]}", len(found) / len(steps))

    def begun(step: Step) -> None:
        progress(f"measuring {kernel.release}: {step.name} (step {len(found) + 1} of {len(steps)})", share())

    def ended(measured: Measured) -> None:
        found[measured.step.name] = measured.rows
        if measured.done:
            results.store(measured, datetime.now(UTC).isoformat(timespec="seconds"))

    def share() -> float:
        return min(len(found) / len(steps), 0.99)

    for counted in (False, True):
        while pending := [step for step in steps if step.counted == counted and step.name not in found]:
            progress(f"booting {kernel.release} for {len(pending)} of {len(steps)} steps", share())
            _run_guest(kernel, program, pending, _INSTRUCTIONS if counted else accel, begun, ended)
    return BenchRows(rows=_merged(steps, found), kept=kept)


def _merged(steps: Sequence[Step], found: dict[str, Rows]) -> Rows:
    """All rows by kind. What the counting guest measured has a kind of its own; its hits are not worth a table."""
    merged: Rows = {}
    for step in steps:
        for kind, rows in found[step.name].items():
            if step.counted and kind == "hits":
                continue
            name = f"{kind}_instructions" if step.counted and kind in ("sharing", "speed") else kind
            there = merged.setdefault(name, [])
            # What is absent is said by each step.
            there += [row for row in rows if kind != "absent" or row not in there]
    return merged


def _run_guest(
    kernel: KernelImage,
    program: Path,
    steps: Sequence[Step],
    accel: Sequence[str],
    begun: Callable[[Step], None],
    ended: Callable[[Measured], None],
) -> None:
    """Measure as many of these steps as one guest gets through: at least one, or it raises."""
    collector = Collector(steps, begun, ended)
    with tempfile.TemporaryDirectory(prefix="lmk-bench-") as directory:
        disk = Path(directory) / "ext4.img"
        with disk.open("wb") as file:
            file.truncate(8 << 20)
        subproc.run([subproc.require_tool("mkfs.ext4", "e2fsprogs"), "-q", "-F", disk], timeout_s=60)
        try:
            run_trial(
                kernel,
                script(_SETUP, steps),
                {"/reap_bench": program.read_bytes(), "/ext4.img": disk.read_bytes()},
                memory_mib=_MEMORY_MIB,
                cpus=1 if accel == _INSTRUCTIONS else 2,
                timeout_s=_BOOT_LIMIT_S + sum(step.bound_s for step in steps),
                silence_s=_SILENCE_S,
                # Under emulation the watchdog takes the TSC for unstable, and reading the HPET instead is slow.
                command_line="tsc=reliable",
                accel=accel,
                check_clock=accel != _INSTRUCTIONS,
                on_line=collector.line,
            )
        except (InfraError, TargetError) as error:
            collector.close(error.cause, error.detail)
            if not collector.count:
                raise
    collector.close("the line that says how it ended did not come through")
    if not collector.count:
        raise InfraError("the guest began no measurement")
