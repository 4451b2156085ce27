"""lmk config push and its undo against a made-up phone behind the real adb protocol."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.config.push import PUSH_PROBE, read_device
from lmk.policy.lmkd.params import PERSIST_PREFIX
from tests.fakes.adb_server import FakeAdbServer

SERIAL = "emulator-5554"
CONFIG = """\
name: mine
memory: 4GiB
cpus: 4
android: 14
zram: {size: 2GiB, algorithm: lz4}
vm: {swappiness: 150, page-cluster: 0}
properties:
  ro.config.low_ram: true
  ro.lmk.thrashing_limit: 45
  ro.lmk.swap_free_low_percentage: 10
  ro.lmk.stall_limit_critical: 40
  ro.lmk.kill_heaviest_task: true
  dalvik.vm.heapsize: 256m
"""


class Phone:
    """Keeps properties, flags and sysctls, and answers the commands that push uses."""

    def __init__(self) -> None:
        self.properties = {
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.kernel.qemu": "1",
            "ro.lmk.thrashing_limit": "60",
        }
        self.vm = {"swappiness": "100", "page-cluster": "0"}
        self.flags: dict[str, str] = {}
        self.sync: str | None = "none"
        self.uid = 0
        self.deaf = ""
        self.said: list[str] = []

    def shell(self, command: str) -> tuple[int, bytes, bytes]:
        if command == PUSH_PROBE:
            return 0, self._probe().encode(), b""
        self.said.append(command)
        words = shlex.split(command)
        if words[0] == "echo":
            self.vm[words[3].removeprefix("/proc/sys/vm/")] = words[1]
        elif words[0] == "setprop":
            self._property(words[1], words[2])
        elif words[2] == "set_sync_disabled_for_tests":
            self.sync = words[3]
        elif words[2] == "put" and words[4] != self.deaf:
            self.flags[words[4]] = words[5]
            self._property(PERSIST_PREFIX + words[4], words[5])
        elif words[2] == "delete":
            del self.flags[words[4]]
            self._property(PERSIST_PREFIX + words[4], "")
        return 0, b"", b""

    def _property(self, name: str, text: str) -> None:
        if text:
            self.properties[name] = text
        else:
            self.properties.pop(name, None)

    def _probe(self) -> str:
        lines = [f"@@lmk /proc/sys/vm/{name}\n{text}" for name, text in self.vm.items()]
        lines.append(f"@@lmk sync\n{self.sync or ''}")
        lines += ["@@lmk overrides", *(f"{name}={text}" for name, text in self.flags.items())]
        lines.append(f"@@lmk uid\n{self.uid}")
        lines += ["@@lmk getprop", *(f"[{name}]: [{text}]" for name, text in self.properties.items())]
        return "\n".join(lines) + "\n"

    def state(self) -> tuple[dict[str, str], dict[str, str], dict[str, str], str | None]:
        return dict(self.properties), dict(self.vm), dict(self.flags), self.sync


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Phone]:
    made_up = Phone()
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    with FakeAdbServer() as server:
        assert isinstance(server.address, tuple)
        monkeypatch.setenv("ANDROID_ADB_SERVER_ADDRESS", server.address[0])
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.address[1]))
        server.shell = made_up.shell
        yield made_up


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    return str(path)


def push(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["config", "push", *words, "--serial", SERIAL, "--json"]) == code
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    return body


def test_a_dry_run_shows_what_differs_and_changes_nothing(
    phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = phone.state()
    result = push(capsys, mine, "--dry-run")
    assert result["schema"] == 1
    assert {row["name"]: (row["device"], row["wanted"], row["how"]) for row in result["changes"]} == {
        "ro.lmk.thrashing_limit": ("60", "45", "device_config"),
        "ro.lmk.stall_limit_critical": ("100", "40", "device_config"),
        "ro.lmk.kill_heaviest_task": ("false", "true", "device_config"),
        "ro.config.low_ram": (None, "true", "reboot"),
        "dalvik.vm.heapsize": (None, "256m", "reboot"),
        "vm.swappiness": ("100", "150", "sysctl"),
    }
    assert not any(row["applied"] for row in result["changes"])
    assert phone.state() == before
    assert phone.said == []


def test_push_applies_and_undo_restores_all(phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    phone.flags["kill_heaviest_task"] = "false"
    phone.properties[PERSIST_PREFIX + "kill_heaviest_task"] = "false"
    before = phone.state()
    push(capsys, mine)
    assert phone.vm["swappiness"] == "150"
    assert phone.flags == {"thrashing_limit": "45", "stall_limit_critical": "40", "kill_heaviest_task": "true"}
    assert phone.sync == "until_reboot"
    # stall_limit_critical is one that init does not watch.
    assert "setprop lmkd.reinit 1" in phone.said
    assert phone.said.index("setprop lmkd.reinit 1") > max(i for i, said in enumerate(phone.said) if " put " in said)
    phone.properties.pop("lmkd.reinit")
    assert push(capsys, mine)["changes"] == [
        row for row in push(capsys, mine, "--dry-run")["changes"] if row["how"] == "reboot"
    ]
    push(capsys, "--undo")
    phone.properties.pop("lmkd.reinit")
    assert phone.state() == before
    assert "nothing was pushed" in push(capsys, "--undo", code=2)["error"]["cause"]


def test_a_second_push_is_undone_to_the_state_before_the_first(
    phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = phone.state()
    push(capsys, mine)
    Path(mine).write_text(CONFIG.replace("150", "180").replace("45", "50"))
    push(capsys, mine)
    assert phone.flags["thrashing_limit"] == "50"
    push(capsys, "--undo")
    phone.properties.pop("lmkd.reinit")
    assert phone.state() == before


def test_without_the_flag_service_overrides_are_properties(
    phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.sync = None
    before = phone.state()
    result = push(capsys, mine)
    assert {row["how"] for row in result["changes"]} == {"setprop", "sysctl", "reboot"}
    assert phone.properties[PERSIST_PREFIX + "thrashing_limit"] == "45"
    assert not any(said.startswith("cmd") for said in phone.said)
    push(capsys, "--undo")
    phone.properties.pop("lmkd.reinit")
    assert phone.state() == before


def test_before_android_12l_lmkd_needs_a_reboot(phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    phone.properties |= {"ro.build.version.release": "11", "ro.build.version.sdk": "30"}
    rows = {row["name"]: row for row in push(capsys, mine)["changes"]}
    assert rows["ro.lmk.thrashing_limit"]["how"] == "reboot"
    assert "no overrides" in rows["ro.lmk.thrashing_limit"]["why"]
    assert "ro.lmk.stall_limit_critical" not in rows, "Android 11 does not read it"
    assert rows["vm.swappiness"]["applied"]
    assert phone.flags == {}


def test_what_does_not_arrive_is_said_and_can_be_undone(
    phone: Phone, mine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmk.cli.config_push._ARRIVE_S", 0.0)
    phone.deaf = "thrashing_limit"
    before = phone.state()
    error = push(capsys, mine, code=3)["error"]
    assert "did not take ro.lmk.thrashing_limit" in error["cause"]
    assert "--undo" in error["remedy"]
    phone.flags["thrashing_limit"] = "45"  # it came late
    push(capsys, "--undo")
    phone.properties.pop("lmkd.reinit")
    assert phone.state() == before


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"ro.kernel.qemu": "0"}, ["CONFIG"], "is not an emulator"),
        ({}, [], "what is to be pushed"),
        ({}, ["CONFIG", "--undo"], "what is to be pushed"),
        ({"ro.build.version.release": "9"}, ["CONFIG"], "runs Android 9"),
    ],
)
def test_mistakes(
    change: dict[str, str], words: list[str], message: str, phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.properties |= change
    error = push(capsys, *(mine if word == "CONFIG" else word for word in words), code=2)["error"]
    assert message in error["cause"]
    assert phone.said == []


def test_the_question_is_one_that_a_shell_understands(tmp_path: Path) -> None:
    answers = {"getprop": "echo '[ro.build.version.release]: [14]'", "id": "echo 0", "cmd": "echo until_reboot"}
    for name, body in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", PUSH_PROBE], capture_output=True, text=True, env=environment, timeout=60)
    device = read_device(done.stdout, SERIAL)
    assert device.tag == "14Q2"
    assert device.sync == "until_reboot"
    assert device.root
    assert device.vm["swappiness"] == Path("/proc/sys/vm/swappiness").read_text().strip()


def test_sysctls_take_root(phone: Phone, mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    phone.uid = 2000
    assert "is not root, and vm.swappiness" in push(capsys, mine, code=2)["error"]["cause"]
    assert phone.said == []
    assert main(["config", "push", mine, "--serial", SERIAL, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would go by" in out
    assert "needs a reboot" in out
