"""The wheel in an empty environment, run from /: everything it ships is found there and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that holds the wheel, and this environment's dependencies but not this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "env" / "lib" / version / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A directory named in a .pth file is searched, but its own .pth files (our editable install) are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "python"


def lmk(python: Path, *argv: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(python), *argv], cwd="/", env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_runs_and_finds_configs_and_scenarios(installed: Path) -> None:
    assert lmk(installed, "-m", "lmk", "--version").startswith("lmk ")
    shown = json.loads(lmk(installed, "-m", "lmk", "config", "show", "phone-2gb", "--json"))
    assert shown
    assert "no errors" in lmk(installed, "-m", "lmk", "config", "check", "phone-2gb", "go-1gb", "app-switching")


def test_its_data_are_its_own(installed: Path) -> None:
    code = (
        "import json, lmk\n"
        "from lmk.resources import data_dir, scenarios_dir\n"
        "from lmk.device.native import native_binary\n"
        "names = ('lmk-helper', 'lmk-apprunner')\n"
        "binaries = [native_binary(n, a) for n in names for a in ('x86_64', 'arm64')]\n"
        "patches = sorted(data_dir('android-kernel-patch').glob('*/*.patch'))\n"
        "paths = [*binaries, *patches, *data_dir('device-configs').glob('*.yaml'), *scenarios_dir().glob('*.yaml')]\n"
        "print(json.dumps([lmk.__file__, [str(p) for p in paths], [p.stat().st_size for p in binaries]]))\n"
    )
    module, paths, sizes = json.loads(lmk(installed, "-c", code))
    root = str(installed.parent.parent)
    assert module.startswith(root)
    assert all(path.startswith(root) for path in paths)
    assert any("/6.12/" in path and path.endswith(".patch") for path in paths)
    assert any(path.endswith("app-switching.yaml") for path in paths)
    assert all(10_000 < size < 200_000 for size in sizes)
