#!/usr/bin/env python3
"""Speed of the simulator:
tools/bench/sim.py [--json] [--checkout | --profile | --scaling | --batch] [--runs N | --seeds N] [CONFIG SCENARIO]

Each run is one `lmk sim` as a user starts it, the interpreter's start included; memory is the largest resident size.
Measured are the wheel that this checkout gives, in an environment of its own (its compiled modules are made once, which
takes a minute and a half), and the checkout, whose modules are interpreted. The first run of each is not counted: it
leaves the byte code that an installed lmk has. Goal, for `day` on phone-4gb, of the wheel: at most 1.7 s of one core
and 150 MB. --checkout leaves the wheel out. --seeds N takes seeds 1 to N, one run each, not the scenario's own alone.
--profile shows where the checkout's time goes instead, --scaling what an event costs as the scenario's generated part
grows, --batch what all cores do for several seeds.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

LIMIT_S = 1.7
LIMIT_MIB = 150

#: Python and what it finds lmk by.
Installation = tuple[str, Mapping[str, str]]
CHECKOUT: Installation = (sys.executable, {"PYTHONPATH": str(ROOT)})


def wheel_installation(folder: Path) -> Installation:
    """The checkout's wheel in a new environment, which sees this one's packages but not the checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"no wheel could be built:\n{done.stdout}{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    if wheel.stem.endswith("-none-any"):
        print(f"{wheel.name} has no compiled modules: {done.stdout}{done.stderr}", file=sys.stderr)
    venv.create(folder / "env", with_pip=False)
    paths = sysconfig.get_paths("venv", {"base": str(folder / "env")})
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(paths["purelib"])
    # A directory named in a .pth file is searched, but its own .pth files (our editable install) are not read.
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(Path(paths["scripts"], "python")), {}


def one_run(
    config: str, scenario: str, folder: Path, installation: Installation = CHECKOUT, seed: int | None = None
) -> dict[str, Any]:
    """Wall and CPU seconds, MiB, and what the run itself says."""
    python, found_by = installation
    out = folder / "out.json"
    argv = [
        python,
        "-P",  # whatever lmk lies in the working directory
        "-c",
        "from lmk.cli.main import entry_point; entry_point()",
        "sim",
        config,
        scenario,
        "--json",
        "--record",
        str(folder / "record"),
        *(() if seed is None else ("--seed", str(seed))),
    ]
    folder.mkdir(exist_ok=True)
    began_s = time.monotonic()
    pid = os.posix_spawn(
        python,
        argv,
        {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | dict(found_by),
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, str(out), os.O_WRONLY | os.O_CREAT, 0o600)],
    )
    _, status, usage = os.wait4(pid, 0)
    wall_s = time.monotonic() - began_s
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"lmk sim {config} {scenario} failed")
    from lmk.record.reader import RecordReader

    result = json.loads(out.read_text())
    with RecordReader(folder / "record") as record:
        events = record.meta["sim_events"]
    cpu_s = usage.ru_utime + usage.ru_stime
    return {
        "seed": result["seed"],
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "events": events,
        "us_per_event": round(cpu_s * 1e6 / max(1, events), 1),
        "rss_mib": usage.ru_maxrss // 1024,
        "simulated_s": result["duration_ms"] // 1000,
        "times_real": round(result["duration_ms"] / 1000 / wall_s),
        "kills": len(result["kills"]),
        "launches": result["summary"]["launches"],
    }


def scaling(config: str, scenario: str, runs: int) -> list[dict[str, Any]]:
    """The same scenario with one to four quarters of its generated stretch."""
    from lmk.config.find import find_scenario

    text = find_scenario(scenario).read_text()
    found = re.search(r"duration: (\d+)min", text)
    if found is None:
        raise SystemExit(f"{scenario} generates no minutes")
    rows = []
    for quarters in (1, 2, 3, 4):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{scenario}.yaml"
            path.write_text(text.replace(found[0], f"duration: {int(found[1]) * quarters // 4}min"))
            measured = [one_run(config, str(path), Path(folder) / str(run)) for run in range(runs)]
        rows.append({"share": quarters / 4, **min(measured, key=lambda row: row["cpu_s"])})
    return rows


def batch(config: str, scenario: str, runs: int) -> list[dict[str, Any]]:
    """Wall time of several seeds with one process, and with as many as there are cores."""
    from lmk.config.calibration import DEFAULT_NAME, find_calibration
    from lmk.config.find import find_config, find_scenario
    from lmk.sim.batch import SimJob, run_jobs

    jobs = [
        SimJob(
            config=find_config(config),
            scenario=find_scenario(scenario),
            calibration=find_calibration(DEFAULT_NAME),
            policy="lmkd",
            seed=seed,
        )
        for seed in range(1, runs + 1)
    ]
    rows = []
    for workers in (1, os.cpu_count() or 1):
        began_s = time.monotonic()
        run_jobs(jobs, workers)
        rows.append({"workers": workers, "runs": runs, "wall_s": round(time.monotonic() - began_s, 2)})
    return rows


def profile(config: str, scenario: str) -> None:
    """Where the time of one run goes, by function."""
    from lmk.cli.main import main as lmk

    with tempfile.TemporaryDirectory() as folder:
        profiler = cProfile.Profile()
        stdout, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115, PTH123
        try:
            profiler.runcall(lmk, ["sim", config, scenario, "--json", "--record", f"{folder}/record"])
        finally:
            sys.stdout.close()
            sys.stdout = stdout
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def measure(args: argparse.Namespace, installation: Installation) -> dict[str, Any]:
    """Runs of one installation and what they come to."""
    rows = []
    for run in range((args.seeds or args.runs) + 1):
        with tempfile.TemporaryDirectory() as folder:
            row = one_run(args.config, args.scenario, Path(folder), installation, run or 1 if args.seeds else None)
        if run:
            rows.append(row)
    return {
        "config": args.config,
        "scenario": args.scenario,
        "cpu_s_median": round(statistics.median(row["cpu_s"] for row in rows), 3),
        "cpu_s_min": min(row["cpu_s"] for row in rows),
        "rss_mib_max": max(row["rss_mib"] for row in rows),
        "limit_s": LIMIT_S,
        "limit_mib": LIMIT_MIB,
        "rows": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="phone-4gb")
    parser.add_argument("scenario", nargs="?", default="day")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seeds", type=int, metavar="N")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--checkout", action="store_true", help="do not build and measure the wheel")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--batch", action="store_true")
    args = parser.parse_args()
    if args.profile:
        profile(args.config, args.scenario)
        return 0
    if args.scaling or args.batch:
        rows = (scaling if args.scaling else batch)(args.config, args.scenario, args.runs)
        for row in rows:
            print(json.dumps(row) if args.json else "  ".join(f"{name} {value}" for name, value in row.items()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        measured = {"checkout, interpreted": measure(args, CHECKOUT)}
        if not args.checkout:
            measured = {"wheel": measure(args, wheel_installation(Path(folder))), **measured}
    if args.json:
        first = next(iter(measured.values()))
        print(json.dumps({"schema": 1, "benchmark": "sim", **first, "installations": measured}))
        return 0
    for name, facts in measured.items():
        print(f"{name}:")
        for row in [*facts.pop("rows"), facts]:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
