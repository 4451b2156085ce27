"""``lmk config import`` and ``export`` as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.cli.main import main
from lmk.config.device import load_device_config
from lmk.config.exporting import FORMATS
from lmk.config.find import shipped_configs
from tests.config.helpers import write
from tests.config.test_probe import ANSWER
from tests.fakes.adb_server import FakeAdbServer

FACTS = ["--name", "mine", "--memory", "2GiB", "--cpus", "8", "--android", "13"]


def test_import_makes_a_config_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prop = write(tmp_path, "ro.lmk.psi_complete_stall_ms=150\nro.opengles.version=1\n", "vendor.prop")
    fstab = write(tmp_path, "/dev/block/zram0 none swap defaults zramsize=75%\n", "fstab.mt6765")
    out = tmp_path / "mine.yaml"
    assert main(["config", "import", str(prop), str(fstab), *FACTS, "-o", str(out)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "lmk: no file names zram's algorithm: lz4 is assumed",
        "lmk: 1 settings have nothing to do with killing and are left out",
    ]
    config = load_device_config(out)
    assert (config.name, config.android, config.swap_bytes) == ("mine", "13Q2", 1536 * 1024**2)
    assert config.own_properties == {"ro.lmk.psi_complete_stall_ms": "150"}


def test_import_of_a_contradiction_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prop = write(tmp_path, "ro.lmk.psi_complete_stall_ms=2000\n", "vendor.prop")
    assert main(["config", "import", str(prop), *FACTS, "--json"]) == 2
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert set(answer) == {"schema", "name", "yaml", "notes", "errors"}
    assert "2000" in answer["yaml"]
    assert answer["errors"][0].startswith(
        "mine.yaml:11: properties.ro.lmk.psi_complete_stall_ms: a stall of 2000 ms does not fit"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x.txt", *FACTS], "lmk: x.txt: not a kind of file that is read; expected .prop, .mk, .rc or fstab*"),
        (["none.prop", *FACTS], "lmk: none.prop: cannot be read: No such file or directory"),
        (["none.prop", *FACTS, "--memory", "2G"], "lmk: --memory: found '2G', 'G' is no unit; did you mean 2GiB?"),
        (["none.prop", *FACTS, "--android", "14.0x"], "lmk: --android: found '14.0x'; did you mean 14.0?"),
        (["none.prop", *FACTS, "--cpus", "many"], "lmk: --cpus: found 'many', expected a whole number from 1 to 64"),
        (["none.prop", *FACTS, "--name", ""], "lmk: --name: found no value, expected text"),
    ],
)
def test_import_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "import", *argv]) == 2
    assert capsys.readouterr().err.splitlines() == [message]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_export(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "export", "phone-4gb", "--format", form]) == 0
    text = capsys.readouterr().out
    assert "thrashing_limit" in text
    assert main(["config", "export", "phone-4gb", "--format", form, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "name": "phone-4gb", "format": form, "text": text}
    out = tmp_path / "out"
    assert main(["config", "export", "phone-4gb", "--format", form, "-o", str(out)]) == 0
    assert out.read_text() == text
    capsys.readouterr()
    assert main(["config", "export", "phone-4gb", "--format", form, "-o", str(tmp_path / "no" / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[0].endswith("cannot be written: No such file or directory; "
                                                            "choose another --output")  # fmt: skip


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_survives_export_and_import(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_device_config(shipped_configs()[name])
    rc = tmp_path / "init.x.rc"
    assert main(["config", "export", name, "--format", "rc", "-o", str(rc)]) == 0
    out = tmp_path / "back.yaml"
    memory = f"{config.memory_bytes}B"
    facts = ["--name", name, "--memory", memory, "--cpus", str(config.cpus), "--android", config.android]
    assert main(["config", "import", str(rc), *facts, "-o", str(out)]) == 0
    capsys.readouterr()
    again = load_device_config(out)
    kept = {name: text for name, text in config.own_properties.items() if name != "ro.config.max_starting_bg"}
    assert again.own_properties == kept
    assert (again.vm, again.zram, again.kernel.memcg) == (config.vm, config.zram, config.kernel.memcg)


@pytest.fixture
def users_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdbServer]:
    with FakeAdbServer() as server:
        assert isinstance(server.address, tuple)
        monkeypatch.setenv("ANDROID_ADB_SERVER_ADDRESS", server.address[0])
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.address[1]))
        server.shell = lambda command: (0, ANSWER.encode(), b"cat: permission denied\n")
        yield server


def test_pull(users_device: FakeAdbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.yaml"
    argv = ["config", "pull", "--serial", "emulator-5554", "--name", "mine", "-o", str(out)]
    assert main(argv) == 0
    assert capsys.readouterr().err.splitlines()[0] == "lmk: MemTotal is 3660 MiB: taken as 4GiB installed"
    assert load_device_config(out).name == "mine"
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["yaml"] == out.read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--serial", "nobody"], "lmk: adb knows no device nobody; it knows: emulator-5554 (see `adb devices`)"),
        (["--serial", "emulator-5554", "--name", "My Phone"], "lmk: --name: found 'My Phone', expected lower-case "
         "letters, digits, '.', '_' or '-'"),
    ],
)  # fmt: skip
def test_pull_errors(
    users_device: FakeAdbServer, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "pull", *argv]) == 2
    assert capsys.readouterr().err.splitlines() == [message]
