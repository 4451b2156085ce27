"""The ELF reader against readelf, on whatever programs the host has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.guest.elf import interpreter, needed_libraries

_PROGRAMS = [path for path in (shutil.which(name) for name in ("sh", "ls", "tar", "dpkg-deb")) if path]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
@pytest.mark.parametrize("program", [*_PROGRAMS, sys.executable])
def test_same_libraries_as_readelf(program: str) -> None:
    image = Path(program).resolve().read_bytes()
    listing = subprocess.run(["readelf", "-dW", program], capture_output=True, text=True, check=True).stdout
    assert needed_libraries(image) == tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", listing))
    headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"interpreter: (.*)\]", headers)
    assert interpreter(image) == (found.group(1) if found else None)


@given(st.binary(max_size=200))
def test_anything_else_asks_for_nothing(data: bytes) -> None:
    assert needed_libraries(data) == ()
    assert interpreter(data) is None
