"""Whole simulated runs: deterministic, alike with text and values, honest about what cannot work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from lmk.cli.main import main
from lmk.config.device import DeviceConfig
from lmk.errors import InfraError
from lmk.record.export import canonical_lines
from lmk.record.reader import RecordReader
from lmk.units import MIB
from tests.sim.conftest import APPS

Simulate = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]


def exported(result: dict[str, Any]) -> list[str]:
    with RecordReader(Path(result["record"])) as record:
        return list(canonical_lines(record))


def test_memory_runs_out_and_lmkd_kills_cached_apps(simulate: Simulate, small: DeviceConfig) -> None:
    result = simulate(small)
    assert result["complete"]
    assert result["summary"]["launches"] == 9
    assert result["kills"]
    assert all(kill["oom_score_adj"] > 200 and kill["killer"] == "lmk" for kill in result["kills"])
    assert result["summary"]["kernel_oom_kills"] == 0
    assert all(kill["signal_to_exit_us"] > 0 for kill in result["kills"])


def test_the_same_seed_leaves_the_same_bytes(simulate: Simulate, small: DeviceConfig) -> None:
    first, second = exported(simulate(small)), exported(simulate(small))
    assert first == second


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    files = []
    for seed in ("0", "1"):
        out = tmp_path / f"export{seed}"
        argv = ["-m", "lmk", "sim", "go-1gb", "--record", str(tmp_path / seed), "--export", str(out), "--json"]
        code = "import sys; from lmk.cli.main import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *argv[2:]],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode in (0, 1), done.stderr
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) > 100_000


def _other_pythons() -> list[Path]:
    """Interpreters of other supported versions that this machine has, on the path or as pyenv keeps them."""
    found: dict[tuple[int, int], Path] = {}
    for minor in range(11, 20):
        names = [shutil.which(f"python3.{minor}"), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")]
        for name in (name for name in names if name is not None):
            code = "import sys; sys.exit(sys.version_info[:2] != (3, int(sys.argv[1])))"
            if subprocess.run([str(name), "-c", code, str(minor)], capture_output=True, timeout=30).returncode == 0:
                found[3, minor] = Path(name)
    found.pop(sys.version_info[:2], None)
    return list(found.values())


def test_bytes_do_not_depend_on_the_python(tmp_path: Path) -> None:
    others = _other_pythons()
    if not others:
        pytest.skip("no other supported Python on this machine")
    packages = os.pathsep.join(path for path in sys.path if path)
    files = set()
    for index, python in enumerate([Path(sys.executable), *others]):
        out = tmp_path / f"export{index}"
        argv = ["sim", "go-1gb", "kill-storm", "--record", str(tmp_path / str(index)), "--export", str(out), "--json"]
        # Without site, so that only what is pure Python is found where it was installed for this one.
        code = "import sys; from lmk.cli.main import main; sys.exit(main(sys.argv[1:]))"
        stdlib = {path for path in sys.path if "site-packages" not in path}
        paths = [path for path in packages.split(os.pathsep) if path not in stdlib] + [str(ROOT)]
        done = subprocess.run(
            [str(python), "-S", "-c", code, *argv],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode in (0, 1), done.stderr
        files.add(out.read_bytes())
    assert len(files) == 1


def test_text_and_values_give_the_same_run(simulate: Simulate, small: DeviceConfig) -> None:
    values, text = simulate(small), simulate(small, text=True)
    for key in ("kills", "summary"):
        assert values[key] == text[key]


def test_without_a_policy_the_kernel_kills(simulate: Simulate, small: DeviceConfig) -> None:
    result = simulate(attrs.evolve(small, zram=None), policy="none")
    assert result["summary"]["kernel_oom_kills"] == len(result["kills"]) > 0


def test_an_app_larger_than_everything_ends_with_the_oom_killer(simulate: Simulate, small: DeviceConfig) -> None:
    apps = APPS.replace("anon: 25%", "anon: 4GiB")
    result = simulate(small, "steps:\n  - launch: one\n  - wait: 20s\n", policy="none", apps=apps)
    assert result["complete"]
    # oom_badness: home's score counts for more than its size, then there is only the giant
    assert [kill["name"] for kill in result["kills"]] == ["com.android.launcher3", "com.example.one"]
    assert {kill["killer"] for kill in result["kills"]} == {"kernel_oom"}


@pytest.mark.parametrize("zram", [True, False])
def test_lmkd_too_ends_with_a_giant_that_fits_nowhere(simulate: Simulate, small: DeviceConfig, zram: bool) -> None:
    giant = "  giant: {role: service, process: com.example.giant, restart: true, anon: 6GiB, compressibility: 2}\n"
    config = small if zram else attrs.evolve(small, zram=None)
    result = simulate(config, "steps:\n  - launch: one\n  - launch: giant\n  - wait: 60s\n", apps=APPS + giant)
    assert result["complete"]
    deaths = [kill for kill in result["kills"] if kill["name"] == "com.example.giant"]
    # It comes back after 1, 4, 16 s, not at once.
    assert 2 <= len(deaths) <= 5


@pytest.mark.parametrize(
    ("memory", "vm", "why"),
    [
        ("0", "", "memory: found the number 0 without a unit"),
        ("0MiB", "", "memory: found '0MiB', expected 256MiB to 1TiB"),
        ("1MiB", "", "memory: found '1MiB', expected 256MiB to 1TiB"),
        ("1KiB", "", "which is not a whole number of MiB"),
        ("512MiB", "min_free_kbytes: 524288", "more than half of the memory"),
        ("512MiB", "min_free_kbytes: 200000, watermark_scale_factor: 3000", "leave nothing of"),
        ("2GiB", "min_free_kbytes: 4000000", "more than half of the memory"),
        ("2GiB", "watermark_scale_factor: 10000", "watermark_scale_factor"),
    ],
)
def test_memory_and_watermarks_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], memory: str, vm: str, why: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\nmemory: {memory}\ncpus: 2\nandroid: 14\nvm: {{{vm}}}\n")
    assert main(["sim", str(path), "app-switching", "--record", str(tmp_path / "record")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "record").exists()


def test_an_event_budget_ends_a_run_with_a_report(simulate: Simulate, small: DeviceConfig) -> None:
    with pytest.raises(InfraError, match="budget of 500 events") as caught:
        simulate(small, events_max=500)
    assert "--event-budget" in caught.value.remedy


@pytest.mark.parametrize("base", ["5.10", "6.1", "6.12"])
@pytest.mark.parametrize("mglru", [True, False])
def test_every_kernel_and_both_algorithms_run(simulate: Simulate, small: DeviceConfig, base: str, mglru: bool) -> None:
    result = simulate(attrs.evolve(small, kernel=attrs.evolve(small.kernel, base=base, mglru=mglru)))
    assert result["complete"]
    assert result["summary"]["cold_starts"] >= 3


def test_a_larger_cache_of_files_means_refaults(simulate: Simulate, small: DeviceConfig) -> None:
    apps = APPS.replace("file: 8%", "file: 45%").replace("hot: 0.4", "hot: 0.9")
    with RecordReader(Path(simulate(small, apps=apps)["record"])) as record:
        assert (record.counters()[-1].refault_file_pages or 0) > 1000


def test_every_page_is_somewhere(simulate: Simulate, small: DeviceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmk.sim.target import SimTarget

    checked = []
    sample = SimTarget._sample

    def checking(self: SimTarget) -> None:
        memory = self.machine.memory
        pool = memory.zram.pool_pages if memory.zram is not None else 0
        used = memory.anon_pages + memory.file_pages + memory.locked_pages + memory.process_pages + pool
        assert memory.zones.free + memory.zones.listed + used == memory.zones.managed
        assert memory.zram is None or memory.zram.used == sum(p.swap_pages for p in self._living())
        checked.append(used)
        sample(self)

    monkeypatch.setattr(SimTarget, "_sample", checking)
    simulate(small)
    assert len(checked) > 20
    assert max(checked) > 700 * MIB // 4096
