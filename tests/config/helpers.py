"""What the config tests share: a valid config to break, and the lines a broken one prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmk.errors import ConfigErrors

#: Valid; tests replace or add a line and expect one error. Line numbers count from `name:` = 1.
VALID = """\
name: test-phone
source: 'measured: nothing'
memory: 2GiB
cpus: 4
android: 14
zram: {size: 1GiB, algorithm: lz4}
"""


def errors_of(read: Callable[[Path], object], path: Path) -> list[str]:
    """The lines ``read(path)`` fails with, each without the directory of ``path``."""
    with pytest.raises(ConfigErrors) as caught:
        read(path)
    return [str(error).replace(f"{path.parent}/", "") for error in caught.value.errors]


def write(directory: Path, text: str, name: str = "c.yaml") -> Path:
    """A file with ``text`` in ``directory``."""
    path = directory / name
    path.write_text(text)
    return path
