"""The patched kernels themselves: their own selftests in a guest, for every base and architecture that is built."""

from __future__ import annotations

import re

import pytest

from lmk import resources
from lmk.kernel.series import load_series
from tests.kernel import guest
from tests.kernel.guest import OURS, TARGETS, Results, Target

pytestmark = pytest.mark.emulator

#: Needs lib/test_hmm.c, which only the debug kernel has; tools/stress-kernel runs it there.
NEEDS_TEST_HMM = "mmu notifier that would block"
#: 5.10 has no process_mrelease to compare with.
NEEDS_MRELEASE = "process_mrelease"
#: Nor has it cgroup.kill.
NEEDS_CGROUP_KILL = "cgroup.kill"


@pytest.fixture(params=TARGETS, ids=str)
def selftests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What one guest per kernel printed; others than the default only where they are built."""
    target: Target = request.param
    return guest.run_selftests(target, tmp_path_factory.getbasetemp())


def adds(base: str, program: str) -> bool:
    patches = load_series(resources.data_dir("android-kernel-patch"), base).patches
    return any(program in patch.name for patch in patches)


@pytest.mark.parametrize("program", OURS)
def test_our_selftest_passes_in_full(selftests: Results, program: str) -> None:
    base = selftests.target.base
    if not adds(base, program):
        pytest.skip(f"{program} is about a file that the patches for {base} do not add")
    output = selftests.section(program)
    plan = re.search(r"^1\.\.(\d+)$", output, re.MULTILINE)
    assert plan is not None, output
    results = re.findall(r"^(ok|not ok) \d+ (.*)$", output, re.MULTILINE)
    assert [name for state, name in results if state != "ok"] == [], output
    skipped = [name.removeprefix("# SKIP ") for _, name in results if name.startswith("# SKIP ")]
    allowed = (NEEDS_TEST_HMM, *([NEEDS_MRELEASE, NEEDS_CGROUP_KILL] if base == "5.10" else []))
    assert [name for name in skipped if not any(word in name for word in allowed)] == [], output
    # A lost line (the kernel's console output can cut into one) is caught by the totals.
    done = int(plan[1]) - len(skipped)
    assert f"# Totals: pass:{done} fail:0 xfail:0 xpass:0 skip:{len(skipped)} error:0" in output, output
    assert selftests.exit_code(program) == 0


@pytest.mark.parametrize("program", guest.MRELEASE)
def test_upstreams_test_passes_with_either_number(selftests: Results, program: str) -> None:
    if selftests.target.base == "5.10":
        pytest.skip("5.10 has no such test")
    assert selftests.exit_code(program) == 0, selftests.section(program)


def test_cgroup_kill_is_as_before(selftests: Results) -> None:
    if selftests.target.base == "5.10":
        pytest.skip("5.10 has no cgroup.kill")
    output = selftests.section(guest.CGROUP_KILL)
    assert "not ok" not in output
    assert output.count("\nok ") + output.startswith("ok ") >= 3, output


def test_every_reap_left_an_event(selftests: Results) -> None:
    events = re.findall(
        r"process_reap: pid=(\d+) comm=\S+ anon=(-?\d+) file=-?\d+ swap=(-?\d+) duration_ns=(\d+) ret=(-?\d+)",
        selftests.section("trace"),
    )
    assert any(ret == "0" and int(anon) >= 16 << 8 for _, anon, _, _, ret in events), "no reap of 16 MiB"
    assert any(int(swap) > 1000 for _, _, swap, _, _ in events), "no swap entries freed"
    # The killed caller's own event shows that the call did answer EINTR.
    assert {"-22", "-3", "-4"} <= {ret for *_, ret in events}, "EINVAL, ESRCH and EINTR have no event"
    assert all(int(duration) > 0 for *_, duration, _ in events)


def test_the_kernel_did_not_complain(selftests: Results) -> None:
    # sharing_check_mode=2: a contradiction between the count and the walk would be a WARNING.
    assert selftests.section("dmesg") == ""
