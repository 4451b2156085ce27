"""``lmk config``: what a user sees, the exit codes, and the documented JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.config.find import shipped_configs
from tests.config.helpers import VALID, write


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    code = main([*argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_check_of_good_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(write(tmp_path, VALID)), "phone-4gb"]) == 0
    assert capsys.readouterr().out == "2 files checked: no errors, no warnings\n"


def test_check_prints_each_finding_once_in_line_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, VALID.replace("size: 1GiB", "sise: 1GiB") + "vm: {swapiness: 60}\n")
    other = write(tmp_path, VALID + "properties: {ro.lmk.medium: 700}\n", "other.yaml")
    assert main(["config", "check", str(path), str(other), "phone9gb"]) == 2
    assert capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines() == [
        "c.yaml:6: zram.sise: unknown key; did you mean size?",
        "c.yaml:7: vm.swapiness: unknown key; did you mean swappiness?",
        "warning: other.yaml:7: properties.ro.lmk.medium: has no effect: only the vmpressure strategy reads it, "
        "and this device runs psi",
        "phone9gb: no shipped device config of that name and no such file; did you mean phone-4gb?",
        "3 files checked: 3 errors, 1 warning",
    ]


def test_check_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, VALID.replace("cpus: 4", "cpus: four"))
    assert run_json(capsys, "config", "check", str(path)) == (
        2,
        {
            "schema": 1,
            "ok": False,
            "files": [
                {
                    "file": str(path),
                    "kind": "device",
                    "name": "test-phone",
                    "errors": [
                        {
                            "line": 4,
                            "field": "cpus",
                            "message": "found 'four', expected a whole number from 1 to 64",
                            "hint": None,
                        }
                    ],
                    "warnings": [],
                }
            ],
        },
    )
    code, answer = run_json(capsys, "config", "check", "phone-2gb")
    assert (code, answer["ok"], answer["files"][0]["errors"]) == (0, True, [])
    assert set(answer["files"][0]["warnings"][0]) == {"line", "field", "message", "hint"}


def test_show_says_who_won(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = VALID + (
        "properties:\n"
        "  ro.lmk.thrashing_limit: 60\n"
        "  persist.device_config.lmkd_native.thrashing_limit: 40\n"
        "  ro.lmk.swap_util_max: 150\n"
        "  ro.lmk.kill_timeout_ms: 50\n"
    )
    path = write(tmp_path, text)
    code, answer = run_json(capsys, "config", "show", str(path))
    assert code == 0
    assert answer["android"] == {"tag": "14Q2", "release": "14", "sdk": 34}
    knobs = {knob["name"]: knob for knob in answer["knobs"]}
    shown = {name: (knobs[name]["value"], knobs[name]["won"], knobs[name]["clamped_from"]) for name in (
        "thrashing_limit", "thrashing_limit_critical", "swap_util_max", "kill_timeout_ms", "psi_partial_stall_ms"
    )}  # fmt: skip
    assert shown == {
        "thrashing_limit": (40, "persist.device_config", None),
        "thrashing_limit_critical": (120, "derived", None),
        "swap_util_max": (100, "ro.lmk", 150),
        "kill_timeout_ms": (50, "ro.lmk", None),
        "psi_partial_stall_ms": (70, "default", None),
    }
    assert knobs["upgrade_pressure"]["dead"]
    assert answer["properties"]["ro.build.version.sdk"] == "34"
    assert main(["config", "show", str(path)]) == 0
    output = capsys.readouterr()
    assert "(clamped" in output.out
    assert "14Q2" in output.out
    assert "1 error, 1 warning" in output.err


@pytest.mark.parametrize("name", shipped_configs())
def test_show_of_shipped_configs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", name]) == 0
    assert f" {name} " in capsys.readouterr().out
    code, answer = run_json(capsys, "config", "show", name)
    assert (code, answer["schema"], answer["name"]) == (0, 1, name)
    assert set(answer) == {
        "schema", "file", "name", "description", "android", "memory_bytes", "cpus", "arch", "kernel", "zram",
        "storage", "system", "unreclaimable_bytes", "vm", "low_ram", "strategy", "knobs", "properties", "sources",
    }  # fmt: skip


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "list"]) == 0
    assert "phone-2gb" in capsys.readouterr().out
    code, answer = run_json(capsys, "config", "list")
    assert code == 0
    assert {config["name"] for config in answer["configs"]} == set(shipped_configs())


@pytest.mark.parametrize("argv", [["config", "show", "nothing-like-it"], ["config", "show", "/dev/null"]])
def test_a_bad_argument_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
