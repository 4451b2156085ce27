"""``lmk top`` in a real terminal: a pseudo-terminal with an emulator of one (pyte) at the other end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="pyte is not installed (the dev extra has it)")

import pyte

from lmk.cli.main import main
from tests.report.records import simulated_record, small_record

_DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_record(tmp_path_factory.mktemp("top") / "run")


class Terminal:
    """A program on a pseudo-terminal, and the screen it draws."""

    def __init__(self, argv: list[str], columns: int = 120, lines: int = 34) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        self.raw = b""
        self._size(columns, lines)
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=environment)
        self._slave = slave

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        self._size(columns, lines)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, pattern: str) -> re.Match[str]:
        """Read until the screen shows it."""
        deadline_s = time.monotonic() + _DEADLINE_S
        while True:
            found = re.search(pattern, self.text(), re.MULTILINE)
            if found:
                return found
            assert time.monotonic() < deadline_s, f"never saw {pattern!r} on:\n{self.text()}"
            self._read(0.2)

    def ended(self) -> int:
        deadline_s = time.monotonic() + _DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, "it does not end"
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def modes(self) -> list[object]:
        return termios.tcgetattr(self._slave)[:4]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, timeout_s: float) -> None:
        while select.select([self._master], [], [], timeout_s)[0]:
            data = os.read(self._master, 65536)
            self.raw += data
            self._stream.feed(data)
            timeout_s = 0


@pytest.fixture
def terminal(run_dir: Path) -> Iterator[Terminal]:
    found = Terminal([sys.executable, "-m", "lmk", "top", str(run_dir), "--at", "61.2s", "--speed", "0.25"])
    yield found
    found.close()


def seconds(terminal: Terminal) -> float:
    return float(terminal.until(r"phone-2gb, ([\d.]+) of 154.0 s")[1])


def test_keys(terminal: Terminal) -> None:
    before = terminal.modes()
    terminal.until(r"free memory, low watermark +[█▏▎▍▌▋▊▉]*·* +\d")
    terminal.until(r"cached +\d+ +com\.example")
    terminal.until("q quit   space pause")
    terminal.press(b" ")
    terminal.until("paused")
    stood_s = seconds(terminal)
    terminal.press(b"\x1b[C\x1b[C")
    terminal.until(rf"phone-2gb, {stood_s + 10:.1f} of")
    terminal.press(b"\x1b[D")
    terminal.until(rf"phone-2gb, {stood_s + 5:.1f} of")
    terminal.press(b"\x1b[A")
    terminal.press(b" ")
    terminal.until("×0.5")
    terminal.press(b"\x1b[B")
    terminal.until("×0.25")
    terminal.press(b"q")
    assert terminal.ended() == 0
    assert terminal.modes() == before
    assert b"\x1b[?1049l" in terminal.raw  # the screen that was there is back


def test_it_moves_by_itself_and_stops_at_the_end(run_dir: Path) -> None:
    terminal = Terminal([sys.executable, "-m", "lmk", "top", str(run_dir), "--at", "150s", "--speed", "8"])
    try:
        terminal.until("the end")
        assert seconds(terminal) == 154.0
        terminal.press(b"q")
        assert terminal.ended() == 0
    finally:
        terminal.close()


def test_resize(terminal: Terminal) -> None:
    terminal.until("wakes lmkd")
    terminal.resize(70, 24)
    terminal.until(r"\A(?!.*wakes lmkd)[\s\S]*q quit")
    assert max(map(len, terminal.text().splitlines())) <= 70
    terminal.resize(140, 40)
    terminal.until("wakes lmkd")


def test_colours_of_tiers(terminal: Terminal) -> None:
    terminal.until(r"foreground +\d")
    lines = terminal.text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("foreground"))
    assert terminal._screen.buffer[row][0].fg == "red"


def test_without_a_terminal_one_plain_frame(run_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmk", "top", str(run_dir)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "154.0 of 154.0 s" in done.stdout
    assert done.stdout.count("com.example") >= 20
    assert done.stderr == ""


def test_json(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", str(run_dir), "--at", "61.2s", "--json"]) == 0
    frame = json.loads(capsys.readouterr().out)
    assert frame["schema"] == 1
    assert {"gauges", "tiers", "kills", "title", "status", "notes"} <= set(frame)
    assert set(frame["gauges"][0]) == {"name", "now", "limit", "gap", "share", "means"}
    assert frame["tiers"][0]["victim"]["adj"] >= 900


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--at", "soon"], "write a time"),
        (["--speed", "0"], "must be above 0"),
        (["--android", "14"], "a record knows its own"),
    ],
)
def test_user_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    assert main(["top", str(small_record(tmp_path / "run")), *argv]) == 2
    assert said in capsys.readouterr().err


def test_errors_of_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--target", "qemu"]) == 2
    assert "emulator:NAME" in capsys.readouterr().err
    assert main(["top", "--target", "emulator:none-such"]) == 2
    assert main(["top", "--serial", "x", "--speed", "2"]) == 2
