"""The stress of debug kernels: how its verdict is read, and a short one where such a kernel is built."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import attrs
import pytest

from lmk.kernel.bases import DEFAULT_BASE
from lmk.kernel.stress import Limits, build_stress, read_console, run_stress, splats
from lmk.kernel.trial import run_trial
from tests.kernel.guest import Target, ext4_image

GOOD = """\
[    0.100000] Linux version 6.12.0
ok 61 an mmu notifier would block: EAGAIN
stress: selftest 0 after 9 s
stress: seconds 10 rounds 5 forks 1 execs 0 pagings 0 frozen 0 ooms 0 cgroups 0
stress: answers process_reap 0 7
[   12.000000] Memory cgroup out of memory: Killed process 12 (kernel-stress)
stress: seconds 20 rounds 11 forks 2 execs 1 pagings 3 frozen 4 ooms 5 cgroups 6
stress: answers process_reap 0 15
stress: answers process_reap 3 4
stress: PASSED
stress: exit 0
 debug_locks:                             1
"""
GOOD_COUNTS = {"seconds": 20, "rounds": 11, "forks": 2, "execs": 1, "pagings": 3, "frozen": 4, "ooms": 5, "cgroups": 6}


def test_a_good_run() -> None:
    result = read_console(GOOD, selftest=True)
    assert result.bad == ()
    assert result.counts == GOOD_COUNTS
    assert result.answers == {"process_reap": {0: 15, 3: 4}}
    assert result.eagain is True


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("[   13.0] BUG: KASAN: slab-use-after-free in exit_mmap+0x1/0x2", "KASAN"),
        ("[   13.0] WARNING: possible circular locking dependency detected", "circular"),
        ("[   13.0] WARNING: CPU: 1 PID: 7 at mm/oom_kill.c:910", "oom_kill"),
        ("[   13.0] INFO: task kernel-stress:77 blocked for more than 600 seconds.", "blocked"),
        ("[   13.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "stalls"),
        ("[   13.0] BUG: Bad rss-counter state mm:00000000 type:MM_ANONPAGES val:3", "rss-counter"),
        ("stress: BAD: memory of a live process was taken at offset 0", "live process"),
        ("not ok 7 zombie: ESRCH", "zombie"),
    ],
)
def test_anything_bad_is_a_failure(line: str, word: str) -> None:
    console = GOOD.replace("stress: PASSED", f"{line}\nstress: PASSED")
    bad = read_console(console, selftest=True).bad
    assert len(bad) == 1
    assert word in bad[0]


def test_not_getting_to_the_end_is_a_failure() -> None:
    cut = GOOD[: GOOD.index("stress: seconds 20")]
    assert read_console(cut, selftest=True).bad == ("the stress did not get to its end",)
    assert read_console(GOOD.replace("1\n", "0\n"), selftest=True).bad == ("lockdep turned itself off",)


@pytest.mark.parametrize("seconds", [1, 20, 60, 240, 600, 3600])
def test_the_verdict_is_never_far_away(seconds: int) -> None:
    limits = Limits.of(seconds)
    assert limits.verdict_s <= max(1.5 * seconds, seconds + 120)
    # A quick selftest, and a round that hangs from the last moment on.
    assert seconds + limits.hang_s + limits.balance_s <= limits.verdict_s
    assert limits.hang_s >= 60


@pytest.mark.parametrize(("selftest_s", "rounds_s"), [(1, 600), (160, 600), (230, 530), (300, 460), (700, 300)])
def test_the_rounds_get_the_time_asked_for_unless_the_selftest_was_slow(selftest_s: int, rounds_s: int) -> None:
    """The guest's own arithmetic, with a clock that says what it should."""
    text = Limits.of(600).script(7)
    lines = [line for line in text.splitlines() if "left" in line and "kernel-stress" not in line]
    clock = f"begin=1000; seconds() {{ echo {1000 + selftest_s}; }}"
    done = subprocess.run(["sh", "-c", "\n".join([clock, *lines, "echo $left"])], capture_output=True, timeout=10)
    assert int(done.stdout) == rounds_s


def test_a_hang_is_a_verdict_with_its_place() -> None:
    line = "stress: BAD: hang: arena 1 (process 80) has been in round 7 for 80 s: waiting for the reapers, victim 93\n"
    stacks = "stress: stack: process 80 thread 81 state D\nstress: stack:   [<0>] process_reap+0x1/0x2\n"
    cut = GOOD[: GOOD.index("stress: PASSED")] + line + stacks + "stress: exit 1\n debug_locks:   1\n"
    result = read_console(cut, selftest=True)
    assert result.bad == (line.removeprefix("stress: BAD: ").strip(), "the stress did not get to its end")
    assert result.stacks == ("process 80 thread 81 state D", "  [<0>] process_reap+0x1/0x2")


def test_a_selftest_that_was_too_slow_is_a_failure() -> None:
    slow = GOOD.replace("selftest 0 after 9 s", "selftest 137 after 120 s")
    assert read_console(slow, selftest=True).bad == ("process_reap_test did not pass (exit code 137 after 120 s)",)


def test_the_script_is_one() -> None:
    text = Limits.of(240).script(7)
    subprocess.run(["sh", "-n", "-c", text], check=True, timeout=10)
    assert "/kernel-stress $left 7 /mnt 80" in text


def test_times_are_left_out() -> None:
    assert splats("[   13.5] BUG: one\nfine\n") == ["BUG: one"]


@pytest.mark.emulator
def test_a_short_stress_of_the_debug_kernel() -> None:
    result = run_stress(Target(base=DEFAULT_BASE, debug=True).kernel(), seconds=20, selftest=False)
    assert result.bad == (), result.console[-5000:]
    assert result.counts["rounds"] > 0
    assert result.answers["process_reap"].get(0, 0) > 0


@pytest.mark.emulator
def test_a_round_that_does_not_end_is_explained(tmp_path: Path) -> None:
    """No second is given to a round, and so the first look finds one that hangs."""
    kernel = Target(base=DEFAULT_BASE).kernel()
    files = {"/kernel-stress": build_stress(kernel.arch).read_bytes(), "/ext4.img": ext4_image(tmp_path)}
    text = attrs.evolve(Limits.of(60), hang_s=0).script(1)
    result = read_console(run_trial(kernel, text, files, memory_mib=2048, silence_s=120).console, selftest=False)
    (hang,) = (line for line in result.bad if line.startswith("hang: "))
    assert re.fullmatch(
        r"hang: arena \d \(process \d+\) has been in round \d+ for 0 s: [a-z, .']+, victim \d+", hang
    ), hang
    assert result.bad == (hang, "the stress did not get to its end")
    # Who waits for the arena, in the kernel: the arena itself, at least.
    assert any("state" in line for line in result.stacks), result.console[-3000:]
    assert "sysrq: Show State" in result.console
