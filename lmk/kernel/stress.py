"""The stress program in a guest, on the debug kernel: it must end well, without complaints of the kernel."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from lmk.errors import InfraError
from lmk.kernel.bench import guest_program
from lmk.kernel.cache import KernelImage
from lmk.kernel.trial import SOFTWARE, run_trial

#: What a kernel with KASAN, lockdep and the rest prints when something is wrong.
_SPLAT = re.compile(
    r"KASAN|BUG:|WARNING:|INFO: (?:task|rcu|possible|suspicious)|possible recursive|inconsistent lock|Oops|"
    r"general protection|Kernel panic|bad page|memory leak|sleeping function called"
)
_MEMORY_MIB = 2048


@attrs.frozen(kw_only=True)
class StressResult:
    """``summary``: what was done; ``splats``: complaints of the kernel, with the lines that follow each."""

    summary: str
    splats: tuple[str, ...]


def run_stress(
    kernel: KernelImage, *, minutes: float, seed: int = 1, cpus: int = 2, accel: Sequence[str] = SOFTWARE
) -> StressResult:
    """Run it; InfraError (with the console's tail) when it hangs, loses a process or does not come to its end."""
    program = guest_program("reap_stress", kernel.arch)
    script = f"""
echo 128M > /sys/block/zram0/disksize
mkswap /dev/zram0 > /dev/null && swapon /dev/zram0
echo 2 > /sys/module/oom_kill/parameters/sharing_check_mode
/reap_stress {max(int(minutes * 60), 1)} {seed}
"""
    result = run_trial(
        kernel,
        script,
        {"/reap_stress": program.read_bytes()},
        memory_mib=_MEMORY_MIB,
        cpus=cpus,
        timeout_s=minutes * 60 + 300,
        accel=accel,
    )
    if result.exit_code != 0 or "stress ended well" not in result.output:
        raise InfraError(
            f"the stress run on kernel {kernel.release} did not end well",
            detail="\n".join(result.console.splitlines()[-60:]),
        )
    lines = result.console.splitlines()
    splats = tuple("\n".join(lines[i : i + 40]) for i, line in enumerate(lines) if _SPLAT.search(line))
    summary = "\n".join(line for line in lines if line.startswith(("victims:", "reaps:")))
    return StressResult(summary=summary, splats=splats)
