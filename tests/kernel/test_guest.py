"""The patched kernel itself: its own selftests, run in a minimal guest. One boot per base runs everything."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from lmk import subproc
from lmk.errors import LmkError
from lmk.kernel.bases import BASES, DEFAULT_BASE
from lmk.kernel.build import find_kernel
from lmk.kernel.selftests import build_selftests
from lmk.kernel.trial import TrialResult, run_trial

pytestmark = pytest.mark.emulator

#: Swap for the swap test, an ext4 that may be frozen, every event and check of ours switched on.
SETUP = """
echo lz4 > /sys/block/zram0/comp_algorithm
echo 256M > /sys/block/zram0/disksize
mkswap /dev/zram0 > /dev/null && swapon /dev/zram0
losetup /dev/loop0 /ext4.img && mount -t ext4 /dev/loop0 /mnt
echo 2 > /sys/module/oom_kill/parameters/sharing_check_mode
echo 1 > /sys/kernel/tracing/events/oom/process_reap/enable
"""
#: Programs of the series, and upstream's own that the series must leave as they are.
OURS = {"process_reap_test": "/mnt", "test_cgroup_reap": "/mnt"}
UPSTREAM = ("mrelease_test", "mrelease_test_reap", "cgroup_test_kill")


def script(programs: dict[str, str]) -> str:
    runs = [
        f"echo '## {name}'; /tests/{name} {argument}; echo \"## {name} exit $?\"" for name, argument in programs.items()
    ]
    traced = "echo '## trace'; grep process_reap: /sys/kernel/tracing/trace"
    complaints = r"echo '## dmesg'; dmesg | grep -E 'WARNING|BUG:|Oops|blocked for more' || true"
    return "\n".join([SETUP, *runs, traced, complaints])


@cache
def run_selftests(base: str, directory: Path) -> TrialResult:
    kernel = find_kernel(base)
    assert kernel is not None
    programs = build_selftests(kernel)
    image = directory / "ext4.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subproc.run([subproc.require_tool("mkfs.ext4", "e2fsprogs"), "-q", "-F", image], timeout_s=60)
    wanted = dict(OURS) | {name: "" for name in UPSTREAM if name in programs}
    files = {f"/tests/{name}": programs[name].read_bytes() for name in wanted}
    files["/ext4.img"] = image.read_bytes()
    return run_trial(kernel, script(wanted), files, memory_mib=1536)


def section(output: str, name: str) -> str:
    match = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", output, re.MULTILINE | re.DOTALL)
    assert match is not None, f"{name} did not run"
    return match[1]


@pytest.fixture(params=list(BASES))
def selftests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Output by program name, of one guest per base; other bases than the default only where they are built."""
    base: str = request.param
    required = base == DEFAULT_BASE and bool(os.environ.get("LMK_REQUIRE_EMULATOR"))
    try:
        missing = "" if find_kernel(base) is not None else f"no kernel {base}: lmk kernel build --base {base}"
    except LmkError as error:
        missing = str(error)
    if not missing and shutil.which("qemu-system-x86_64") is None:
        missing = "qemu-system-x86_64 is not installed"
    if missing:
        assert not required, missing
        pytest.skip(missing)
    result = run_selftests(base, tmp_path_factory.getbasetemp())
    return lambda name: section(result.output, name)


@pytest.mark.parametrize("program", OURS)
def test_our_selftest_passes_in_full(selftests: Callable[[str], str], program: str) -> None:
    output = selftests(program)
    plan = re.search(r"^1\.\.(\d+)$", output, re.MULTILINE)
    assert plan is not None, output
    results = re.findall(r"^(ok|not ok) \d+ (.*)$", output, re.MULTILINE)
    assert [name for state, name in results if state != "ok"] == [], output
    # A lost line (the kernel's console output can cut into one) is caught by the totals.
    assert f"# Totals: pass:{plan[1]} fail:0 xfail:0 xpass:0 skip:0 error:0" in output, output
    assert selftests(f"{program} exit 0") == ""


@pytest.mark.parametrize("program", ["mrelease_test", "mrelease_test_reap"])
def test_upstreams_test_passes_with_either_number(selftests: Callable[[str], str], program: str) -> None:
    assert selftests(f"{program} exit 0") == "", selftests(program)


def test_cgroup_kill_is_as_before(selftests: Callable[[str], str]) -> None:
    output = selftests("cgroup_test_kill")
    assert "not ok" not in output
    assert output.count("\nok ") + output.startswith("ok ") >= 3, output


def test_every_reap_left_an_event(selftests: Callable[[str], str]) -> None:
    events = re.findall(
        r"process_reap: pid=(\d+) comm=\S+ anon=(-?\d+) file=-?\d+ swap=(-?\d+) duration_ns=(\d+) ret=(-?\d+)",
        selftests("trace"),
    )
    assert any(ret == "0" and int(anon) >= 16 << 8 for _, anon, _, _, ret in events), "no reap of 16 MiB"
    assert any(int(swap) > 1000 for _, _, swap, _, _ in events), "no swap entries freed"
    assert {"-22", "-3"} <= {ret for *_, ret in events}, "EINVAL and ESRCH have no event"
    assert all(int(duration) > 0 for *_, duration, _ in events)


def test_the_kernel_did_not_complain(selftests: Callable[[str], str]) -> None:
    # sharing_check_mode=2: a contradiction between the count and the walk would be a WARNING.
    assert selftests("dmesg") == ""
