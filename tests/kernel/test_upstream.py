"""Upstream's own tests of what we change: the same results on the kernel with our patches and on the one without."""

from __future__ import annotations

import re

import pytest

from lmk.kernel.bases import DEFAULT_BASE
from lmk.kernel.selftests import build_selftests
from tests.kernel import guest
from tests.kernel.guest import Results, Target

pytestmark = pytest.mark.emulator

PATCHED, UNPATCHED = Target(base=DEFAULT_BASE), Target(base=DEFAULT_BASE, patched=False)


@pytest.fixture
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results]:
    """The same programs (as built from the unpatched source) on both kernels."""
    # First the one that is seldom built, so that nothing is done where it is missing.
    built = build_selftests(UNPATCHED.kernel())
    programs = ("mrelease_test", guest.CGROUP_KILL, *sorted(name for name in built if name.startswith("upstream_")))
    directory = tmp_path_factory.getbasetemp()
    without = guest.run_selftests(UNPATCHED, directory, (*programs, "process_reap_test"))
    return guest.run_selftests(PATCHED, directory, programs), without


def verdicts(results: Results, program: str) -> list[tuple[str, str]]:
    """(ok or not ok, name) of each test, without numbers and measurements."""
    lines = re.findall(r"^\s*(ok|not ok) \d+\s*(.*)$", results.section(program), re.MULTILINE)
    return [(state, re.sub(r"\d+", "N", name)) for state, name in lines]


def test_the_same_verdicts_with_and_without_our_patches(results: tuple[Results, Results]) -> None:
    patched, unpatched = results
    assert len(patched.programs) >= 5, patched.programs
    for program in patched.programs:
        assert verdicts(patched, program) == verdicts(unpatched, program), program
        assert patched.exit_code(program) == unpatched.exit_code(program), program


def test_without_our_patches_the_probe_says_so(results: tuple[Results, Results]) -> None:
    _, unpatched = results
    # kselftest: 4 is "skipped", 1..0 the plan of a test that was left out as a whole.
    assert "process_reap is not there" in unpatched.section("process_reap_test")
    assert unpatched.exit_code("process_reap_test") == 4
