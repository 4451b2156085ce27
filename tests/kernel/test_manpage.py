"""The manual page of process_reap."""

from __future__ import annotations

import re
import shutil

import pytest

from lmk import resources, subproc

PAGE = resources.data_dir("android-kernel-patch") / "process_reap.2"
#: process-reap's table of answers: in its order of checks.
ERRORS = ["ENOSYS", "EINVAL", "EBADF", "ESRCH", "EINVAL", "EPERM", "ESRCH", "EINVAL", "EINTR", "EAGAIN"]


def rendered() -> tuple[str, str]:
    """The page as man shows it, and man's warnings."""
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "MANWIDTH": "80", "MANROFFSEQ": ""}
    done = subproc.run(["man", "--warnings=w", "-E", "ascii", "-l", PAGE], timeout_s=60, env=environment)
    return re.sub(".\b", "", done.stdout.decode()), done.stderr.decode()


def test_it_renders_without_a_warning() -> None:
    text, warnings = rendered()
    assert warnings == ""
    assert "process_reap(2)" in text
    assert not re.search(r"^ *\.[A-Z]{1,2} ", text, re.MULTILINE), "a request was shown as text"


def test_errors_are_in_the_order_of_the_checks() -> None:
    text, _ = rendered()
    section = text[text.index("\nERRORS") : text.index("\nVERSIONS")]
    assert re.findall(r"^ {7}(E[A-Z]+)\b", section, re.MULTILINE) == ERRORS
