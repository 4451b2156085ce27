"""Commands of the documentation that need a kernel, run as written: what stands for the reader's own is a guest's.

Minutes each, and a kernel must be built already: with --slow.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.backends import registry
from lmk.cli.main import main
from tests.conftest import Guests, test_kernel
from tests.test_docs import TYPED

pytestmark = [pytest.mark.emulator, pytest.mark.slow]
COMMANDS = list(dict.fromkeys(command for _, command in TYPED))
#: On a guest that is up.
ATTACHED = [c for c in COMMANDS if re.search(r"--target (emulator:phone-2gb|adb:SERIAL)|--serial SERIAL", c)]
#: Boots one of its own.
BOOTING = [c for c in COMMANDS if re.match(r"(run|emulator up) ", c) and c not in ATTACHED]


def test_there_are_commands_of_both_kinds() -> None:
    assert len(ATTACHED) >= 3
    assert len(BOOTING) >= 3


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, guest_factory: Guests) -> Iterator[Path]:
    guest_factory.close()  # one guest at a time
    test_kernel("6.12")
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMK_STATE", str(folder / "state"))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        patch.chdir(folder)
        yield folder
        down()
        adb("kill-server")


def down() -> None:
    for emulator in registry.list_emulators():
        registry.down(emulator.name)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def adb(*words: str) -> None:
    """The reader's own adb, with a server that ends with the test."""
    subprocess.run(["adb", *words], check=False, capture_output=True, timeout=60)


def serial() -> str:
    """Of the guest that is up and connected, booted if there is none."""
    if not registry.list_emulators():
        assert main(["emulator", "up", "phone-2gb"]) == 0
    (emulator,) = registry.list_emulators()
    adb("connect", emulator.serial)
    return emulator.serial


@pytest.mark.parametrize("command", ATTACHED)
def test_on_a_guest_that_is_up(workplace: Path, command: str) -> None:
    text = command.replace("SERIAL", serial())
    assert main(shlex.split(text)) in (0, 1)


@pytest.mark.parametrize("command", BOOTING)
def test_with_a_guest_of_its_own(workplace: Path, command: str) -> None:
    down()
    assert main(shlex.split(command)) in (0, 1)
