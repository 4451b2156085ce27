#!/usr/bin/env python3
"""Speed of the search: tools/bench/tune.py [--json] [--trials N] [--list N] [--no-dask]

Three measurements, each in processes of its own on a machine that does nothing else:

- a study: N trials (1000), each one simulated hour of a 4 GB phone, asking and telling included. Goal: 2 minutes on
  2 cores.
- the same list of runs with one worker and with two. Goal: 1.8 times as fast.
- the same list on a Dask cluster of two local workers: what the cluster costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lmk.config.calibration import find_calibration, load_calibration  # noqa: E402
from lmk.config.device import load_device_config  # noqa: E402
from lmk.config.find import find_config, find_scenario  # noqa: E402
from lmk.tune.goals import make_goals  # noqa: E402
from lmk.tune.jobs import run_specs  # noqa: E402
from lmk.tune.journal import Journal  # noqa: E402
from lmk.tune.search import Search, StudyPlan  # noqa: E402
from lmk.tune.space import make_space  # noqa: E402
from lmk.tune.workers import LocalWorkers, Workers, simulate_all  # noqa: E402

CONFIG = "phone-4gb"
LIMIT_S = 120
SPEEDUP_MIN = 1.8


def one_hour(folder: Path) -> Path:
    """The shipped day, cut to an hour."""
    text = find_scenario("day").read_text()
    cut, count = re.subn(r"duration: \d+min", "duration: 59min", text)
    assert count == 1, "the day's generator has no duration in minutes"
    path = folder / "hour.yaml"
    path.write_text(re.sub(r"(?m)^name: .*", "name: hour", cut))
    return path


def make_plan(folder: Path, trials: int) -> StudyPlan:
    """One run for each trial; the batch is the population of the evolution."""
    config = load_device_config(find_config(CONFIG))
    return StudyPlan(
        config=config,
        calibration=load_calibration(find_calibration("published")),
        space=make_space([], config),
        goals=make_goals([], []),
        runs=run_specs([one_hour(folder)], 1),
        trials=trials,
        batch=48,
        sampler="auto",
        seed=1,
    )


def study(plan: StudyPlan, folder: Path, workers: int) -> dict[str, Any]:
    """A whole study; ``coordinator_cpu_s`` is asking, judging, telling and writing."""
    journal = Journal(folder / "study.sqlite", plan.facts(), resume=False)
    pool = LocalWorkers(workers)
    began_s, cpu_s, children_s = time.monotonic(), time.process_time(), _children_cpu_s()
    search = Search(plan, journal, pool)
    search.run()
    wall_s, coordinator_s = time.monotonic() - began_s, time.process_time() - cpu_s
    pool.close()
    children_s = _children_cpu_s() - children_s
    journal.close()
    return {
        "trials": len(search.trials) - 1,
        "runs": search.runs_made,
        "failed": sum(trial.state == "failed" for trial in search.trials),
        "wall_s": round(wall_s, 1),
        "limit_s": LIMIT_S,
        "coordinator_cpu_s": round(coordinator_s, 1),
        "coordinator_cpu_ms_per_trial": round(coordinator_s * 1000 / max(1, len(search.trials)), 1),
        "worker_cpu_ms_per_run": round(children_s * 1000 / search.runs_made, 1),
    }


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(workers: Workers, plan: StudyPlan, count: int) -> float:
    """Seconds for a fixed list of runs, after one for each worker to warm up."""
    jobs = [attrs.evolve(plan.job({"vm.swappiness": 60 + 5 * (i % 25)}, plan.runs[0])) for i in range(count)]
    simulate_all(workers, jobs[:4])
    began_s = time.monotonic()
    simulate_all(workers, jobs)
    wall_s = time.monotonic() - began_s
    workers.close()
    return wall_s


def on_dask(plan: StudyPlan, count: int, folder: Path) -> float:
    """The list on a scheduler and two workers of this machine."""
    from lmk.tune.cluster import DaskWorkers

    contact = folder / "scheduler.json"
    where = ["--scheduler-file", str(contact), "--no-dashboard"]
    argvs = [["dask_scheduler", "--host", "127.0.0.1", "--port", "0", *where]]
    argvs += [["dask_worker", "--nthreads", "1", "--no-nanny", *where]] * 2
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *rest],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, *rest in argvs
    ]
    try:
        while not contact.exists():
            time.sleep(0.2)
        time.sleep(5)  # both workers have registered by then, or the first run says that there are none
        return timed(DaskWorkers(json.loads(contact.read_text())["address"]), plan, count)
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--list", type=int, default=120, help="runs of the fixed list")
    parser.add_argument("--no-dask", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(folder, args.trials)
        one_s, two_s = timed(LocalWorkers(1), plan, args.list), timed(LocalWorkers(2), plan, args.list)
        dask_s = None if args.no_dask else on_dask(plan, args.list, folder)
        whole = study(plan, folder, 2)
    facts = {
        "study": whole,
        "list": {
            "runs": args.list,
            "one_worker_s": round(one_s, 2),
            "two_workers_s": round(two_s, 2),
            "speedup": round(one_s / two_s, 2),
            "speedup_min": SPEEDUP_MIN,
            "dask_two_workers_s": dask_s and round(dask_s, 2),
            "dask_overhead_ms_per_run": dask_s and round((dask_s - two_s) * 2000 / args.list, 1),
        },
    }
    if args.json:
        print(json.dumps({"schema": 1, "benchmark": "tune", "config": CONFIG, **facts}))
    else:
        for part, values in facts.items():
            print(part, "  ".join(f"{name} {value}" for name, value in values.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
