"""Stress a debug kernel: run tools/kernel-stress in a minimal guest, then read what the kernel had to say about it.

Before the stress itself ``process_reap_test`` runs once, since only a debug kernel has what it needs for EAGAIN.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from lmk import resources, subproc
from lmk.errors import InfraError, TargetError
from lmk.kernel.cache import KernelImage
from lmk.kernel.selftests import build_selftests
from lmk.kernel.toolchain import find_toolchain
from lmk.kernel.trial import run_trial
from lmk.progress import Progress, silent

_FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-O2", "-static")
_COMPILE_TIMEOUT_S = 120.0
#: A debug kernel under software emulation, on a loaded machine.
_BOOT_S = 300
#: The stress tells how far it is every 10 s, the selftest in less.
_SILENCE_S = 120
MEMORY_MIB = 2048
#: What a kernel prints when something is wrong with it, as regular expressions on one line of its log.
_SPLATS = (
    r"\bWARNING:",
    r"\bBUG:",
    r"\bKASAN:",
    r"\bOops\b",
    r"general protection fault",
    r"Kernel panic",
    r"INFO: task .* blocked for more than",
    r"INFO: rcu_\S+ .*(?:stall|detected)",
    r"rcu: INFO:",
    r"soft lockup",
    r"Bad page (?:state|map)",
    r"Bad rss-counter state",
    r"INFO: lockdep is turned off",
    r"refcount_t:",
    r"list_(?:add|del) corruption",
)
_SPLAT = re.compile("|".join(_SPLATS))
_SCRIPT = """
mount -t debugfs debugfs /sys/kernel/debug
echo lz4 > /sys/block/zram0/comp_algorithm
echo 512M > /sys/block/zram0/disksize
mkswap /dev/zram0 > /dev/null && swapon /dev/zram0
losetup /dev/loop0 /ext4.img && mount -t ext4 /dev/loop0 /mnt
echo 2 > /sys/module/oom_kill/parameters/sharing_check_mode
ulimit -l unlimited
echo 0 > /proc/sys/vm/oom_dump_tasks
seconds() {{ cut -d. -f1 /proc/uptime; }}
# Not one long sleep: while the whole machine stands still no time must pass.
(
  i=0
  while test $i -lt {verdict_ticks}; do sleep 5; i=$((i + 1)); done
  echo "stress: BAD: hang: no verdict after {verdict_s} s; what every process does is on the console"
  echo 8 > /proc/sys/kernel/printk
  echo w > /proc/sysrq-trigger
  echo t > /proc/sysrq-trigger
  poweroff -f
) &
begin=$(seconds)
if test -e /process_reap_test; then
  timeout -s KILL {selftest_s} /process_reap_test /mnt
  echo "stress: selftest $? after $(($(seconds) - begin)) s"
fi
left=$(({verdict_s} - $(seconds) + begin - {hang_s} - {balance_s}))
test $left -le {seconds} || left={seconds}
test $left -ge {rounds_s} || left={rounds_s}
/kernel-stress $left {seed} /mnt {hang_s}
echo "stress: exit $?"
grep debug_locks: /proc/lockdep_stats
"""


@attrs.frozen(kw_only=True)
class Limits:
    """How a run divides its time, all in s: whatever happens, the verdict comes ``verdict_s`` after the boot.

    The rounds get the time asked for; after a slow selftest what leaves time for a late verdict, at least half of it.
    """

    seconds: int
    verdict_s: int
    selftest_s: int
    rounds_s: int
    hang_s: int
    balance_s: int = 20

    @staticmethod
    def of(seconds: int) -> Limits:
        """Half as long again as was asked for, at least two minutes more: a selftest and a late round take as long."""
        more_s = max(seconds // 2, 120)
        # The last round may be as late as hang_s; after that the balance of objects takes up to balance_s.
        hang_s = min(more_s - 40, 120)
        return Limits(
            seconds=seconds,
            verdict_s=seconds + more_s,
            selftest_s=more_s,
            rounds_s=max(seconds // 2, 1),
            hang_s=hang_s,
        )

    def script(self, seed: int) -> str:
        """The guest's script."""
        return _SCRIPT.format(seed=seed, verdict_ticks=self.verdict_s // 5, **attrs.asdict(self))


@attrs.frozen(kw_only=True)
class StressResult:
    """``bad``: everything that is wrong, in words; empty is a pass. ``counts``: what was done, by name.

    ``answers``: call -> errno (0: success) -> how often. ``eagain``: the selftest saw an mmu notifier answer EAGAIN
    (None: it was not run). ``stacks``: where the processes of a round that did not end stood in the kernel.
    """

    bad: tuple[str, ...]
    counts: dict[str, int]
    answers: dict[str, dict[int, int]]
    eagain: bool | None
    stacks: tuple[str, ...]
    console: str


def splats(console: str) -> list[str]:
    """Lines by which the kernel reports something wrong, without their times."""
    found = (line.strip() for line in console.splitlines() if _SPLAT.search(line))
    return [re.sub(r"^\[\s*\d+\.\d+\]\s*", "", line) for line in found]


def read_console(console: str, *, selftest: bool) -> StressResult:
    """The verdict on one run, from everything its guest printed."""
    bad = splats(console)
    bad += re.findall(r"^stress: BAD: (.*)$", console, re.MULTILINE)
    if "stress: PASSED" not in console and "stress: FAILED" not in console:
        bad.append("the stress did not get to its end")
    if re.search(r"debug_locks:\s+0$", console, re.MULTILINE):
        bad.append("lockdep turned itself off")
    counts: dict[str, int] = {}
    for line in re.findall(r"^stress: seconds .*$", console, re.MULTILINE)[-1:]:
        counts = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", line)}
    answers: dict[str, dict[int, int]] = {}
    for call, errno, count in re.findall(r"^stress: answers (\S+) (\d+) (\d+)$", console, re.MULTILINE):
        answers.setdefault(call, {})[int(errno)] = int(count)  # the last one counts
    eagain = None
    if selftest:
        bad += [f"process_reap_test: {line}" for line in re.findall(r"^not ok .*$", console, re.MULTILINE)]
        if not re.search(r"^stress: selftest 0 ", console, re.MULTILINE):
            code = re.search(r"^stress: selftest (\d+ after \d+ s)$", console, re.MULTILINE)
            bad.append("process_reap_test did not pass" + (f" (exit code {code[1]})" if code else ""))
        eagain = re.search(r"^ok \d+ an mmu notifier would block: EAGAIN$", console, re.MULTILINE) is not None
    stacks = tuple(re.findall(r"^stress: stack: (.*)$", console, re.MULTILINE))
    return StressResult(bad=tuple(bad), counts=counts, answers=answers, eagain=eagain, stacks=stacks, console=console)


def build_stress(arch: str) -> Path:
    """The static program, compiled once per source and compiler; InfraError with the compiler's words."""
    toolchain = find_toolchain(arch)
    sources = sorted(resources.data_dir("tools/kernel-stress").glob("*.[ch]"))
    digest = hashlib.sha256(repr((toolchain.version, [s.read_bytes() for s in sources])).encode()).hexdigest()[:16]
    binary = resources.cache_dir("kernel", "stress") / digest
    if not binary.is_file():
        scratch = binary.with_suffix(".building")
        files = [source for source in sources if source.suffix == ".c"]
        argv: list[str | Path] = [toolchain.compiler, *_FLAGS, "-o", scratch, *files, "-lpthread"]
        subproc.run(argv, timeout_s=_COMPILE_TIMEOUT_S)
        scratch.rename(binary)
    return binary


def run_stress(
    kernel: KernelImage,
    *,
    seconds: int,
    seed: int = 1,
    selftest: bool = True,
    progress: Progress = silent,
) -> StressResult:
    """Boot ``kernel``, stress it for ``seconds``, give the verdict. A guest that dies or hangs is a verdict, too."""
    files = {"/kernel-stress": build_stress(kernel.arch).read_bytes()}
    if selftest:
        files["/process_reap_test"] = build_selftests(kernel)["process_reap_test"].read_bytes()
    with tempfile.TemporaryDirectory(prefix="lmk-stress-") as directory:
        files["/ext4.img"] = _file_system(Path(directory))
    limits = Limits.of(seconds)
    console: list[str] = []
    lost = ""
    with _told_by_time(f"stressing {kernel.release}", seconds, progress):
        try:
            run_trial(
                kernel,
                limits.script(seed),
                files,
                memory_mib=MEMORY_MIB,
                timeout_s=_BOOT_S + limits.verdict_s,
                silence_s=_SILENCE_S,
                on_line=console.append,
            )
        except (TargetError, InfraError) as error:
            lost = error.cause
    result = read_console("\n".join(console), selftest=selftest)
    return attrs.evolve(result, bad=(*result.bad, lost)) if lost else result


def _file_system(directory: Path) -> bytes:
    image = directory / "ext4.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subproc.run([subproc.require_tool("mkfs.ext4", "e2fsprogs"), "-q", "-F", image], timeout_s=60)
    return image.read_bytes()


@contextmanager
def _told_by_time(what: str, seconds: int, progress: Progress) -> Iterator[None]:
    """Tell the progress of something that takes a known time; boot and selftest come on top."""
    done = threading.Event()
    start_s = time.monotonic()

    def tell() -> None:
        while not done.wait(1.0):
            progress(what, min((time.monotonic() - start_s) / (seconds + 60), 0.99))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
