"""The wheel in an empty environment, run from /: everything it ships is found there and nowhere else.

The first build after a change to a compiled module takes a minute and a half (tools/compile_sim.py), the next seconds.
"""

from __future__ import annotations

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build_wheel(folder: Path, **environment: str) -> tuple[Path, str]:
    """The wheel, and what the build said."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout's wheel."""
    return build_wheel(tmp_path_factory.mktemp("built"))[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Path:
    """Python of an environment that holds the wheel, and this environment's dependencies but not this checkout."""
    folder, wheel = tmp_path_factory.mktemp("wheel"), built
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


def compiled_modules(wheel: Path) -> set[str]:
    """lmk's modules that are extension modules, by the path of the source beside each."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    modules = {name.removesuffix(suffix) + ".py" for name in names if name.startswith("lmk/") and name.endswith(".so")}
    assert modules <= names
    return modules


def test_the_busy_modules_are_compiled(built: Path, installed: Path) -> None:
    if shutil.which(str(sysconfig.get_config_var("CC")).split()[0]) is None:
        pytest.skip("no C compiler")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        pytest.skip("no Python.h (Debian: python3-dev)")
    assert {"lmk/sim/machine.py", "lmk/sim/lru_gen.py", "lmk/policy/lmkd/daemon.py"} <= compiled_modules(built)
    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in built.name
    code = "from lmk.sim import machine; print(machine.__file__)"
    assert lmk(installed, "-c", code).strip().endswith(".so")


# A classic LRU and a generational one, compaction, memcg v1, an old lmkd, other policies, no policy.
@pytest.mark.parametrize(
    ("config", "scenario", "policy"),
    [
        ("phone-4gb", "kill-storm", "lmkd"),
        ("go-1gb", "app-switching", "lmkd"),
        ("galaxy-j5", "quick-fill", "lmkd-minfree"),
        ("pixel-9", "camera-burst", "lmkd"),
        ("phone-2gb", "file-thrashing", "systemd-oomd"),
        ("wear-1gb", "quick-fill", "none"),
    ],
)
def test_its_records_are_the_checkouts(
    installed: Path, tmp_path: Path, config: str, scenario: str, policy: str
) -> None:
    records: list[bytes] = []
    for python, found_by in ((installed, {}), (Path(sys.executable), {"PYTHONPATH": str(ROOT)})):
        export = tmp_path / f"{len(records)}.jsonl"
        argv = ["sim", config, scenario, "--policy", policy, "--record", str(tmp_path / f"record-{len(records)}")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [str(python), "-m", "lmk", *argv, "--export", str(export), "--json"],
            env=environment | found_by,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in (0, 1), done.stderr
        records.append(export.read_bytes())
    assert records[0] == records[1]
    assert records[0].count(b"\n") > 50


def test_an_error_is_still_one_line(installed: Path, tmp_path: Path) -> None:
    argv = [str(installed), "-m", "lmk", "sim", "--event-budget", "100", "--record", str(tmp_path / "record")]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("lmk: the simulation reached its budget")


def test_a_pure_wheel_on_request_says_what_it_costs(tmp_path: Path) -> None:
    wheel, said = build_wheel(tmp_path, LMK_PURE_PYTHON="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert compiled_modules(wheel) == set()
    assert "LMK_PURE_PYTHON is set: a pure Python wheel, in which lmk sim takes 1.7 times as long" in said


def test_constants_of_compiled_modules_are_final() -> None:
    """Any other is looked up by name at each use, which once was 6 % of a compiled day."""
    modules = runpy.run_path(str(ROOT / "tools/compile_sim.py"))["MODULES"]
    plain = [
        f"{path}:{node.lineno}"
        for path in modules
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
    ]
    assert not plain
