"""Single keys from a terminal, as they are pressed."""

from __future__ import annotations

import os
import select
import termios
import time
import tty
from types import TracebackType

_ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}
_NAMES = {b" ": "space", b"\x03": "q", b"\x1b": "escape"}
#: A window that changed its size is noticed after so long.
_SLICE_S = 0.2
#: The rest of an escape sequence comes at once; a lone escape is a key.
_SEQUENCE_S = 0.05


class Keys:
    """A context manager that puts the terminal ``fd`` into cbreak mode and back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Keys:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def read(self, timeout_s: float) -> str | None:
        """The next key: a character, "up", "down", "left", "right", "space" or "escape"; "q" also when the terminal
        is gone. None at the time-out, and as soon as the window's size has changed."""
        deadline_s = time.monotonic() + timeout_s
        size = os.get_terminal_size(self._fd)
        while True:
            left_s = deadline_s - time.monotonic()
            if self._ready(min(max(left_s, 0), _SLICE_S)):
                return self._key()
            if left_s <= _SLICE_S or os.get_terminal_size(self._fd) != size:
                return None

    def _key(self) -> str:
        byte = self._byte()
        if byte == b"":
            return "q"
        if byte == b"\x1b" and self._ready(_SEQUENCE_S):
            self._byte()  # [ or O
            last = self._byte()
            while last and not last.isalpha() and last != b"~":
                last = self._byte()
            return _ARROWS.get(last, "")
        return _NAMES.get(byte, byte.decode(errors="replace"))

    def _byte(self) -> bytes:
        try:
            return os.read(self._fd, 1)
        except OSError:
            return b""

    def _ready(self, timeout_s: float) -> bool:
        return bool(select.select([self._fd], [], [], timeout_s)[0])
