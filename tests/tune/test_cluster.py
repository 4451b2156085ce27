"""A real Dask scheduler with two worker processes, one of which is killed in the middle of a study."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.test_tune_verb import QUICK, _begin, _runs, _same
from tests.cli.test_tune_verb import words as tune_words
from tests.tune.conftest import TINY

pytest.importorskip("distributed", reason="needs lmk[dask]")
DEADLINE_S = 300


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address of a scheduler on a free port, and its two workers."""
    folder = tmp_path_factory.mktemp("dask")
    contact = folder / "scheduler.json"
    where = ["--scheduler-file", str(contact), "--no-dashboard"]
    environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder)}

    def start(*argv: str) -> subprocess.Popen[bytes]:
        with (folder / f"{argv[0]}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", *argv], env=environment, stdout=log, stderr=log)

    scheduler = start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *where)
    workers = [
        start("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--name", f"w{number}", *where)
        for number in range(2)
    ]
    try:
        deadline_s = time.monotonic() + DEADLINE_S
        while not (contact.exists() and _registered(folder) == 2):
            assert time.monotonic() < deadline_s, (folder / "distributed.cli.dask_scheduler.log").read_text()
            time.sleep(0.1)
        yield json.loads(contact.read_text())["address"], workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def _registered(folder: Path) -> int:
    return (folder / "distributed.cli.dask_scheduler.log").read_text().count("Register worker")


def test_a_worker_that_dies_loses_nothing_and_counts_nothing_twice(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    address, workers = cluster
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(TINY)
    size = ["--trials", "10", "--batch", "5", "--seeds", "4", *QUICK]
    study = tmp_path / "study.sqlite"
    argv = [*tune_words(tiny, tmp_path / "far", *size), "--study", str(study), "--dask", address]
    process = _begin(argv, study, 6)
    assert process.poll() is None, "a worker was to be killed in the middle"
    os.kill(workers[0].pid, signal.SIGKILL)
    far = json.loads(process.communicate(timeout=DEADLINE_S)[0])
    assert process.returncode == 0

    near_argv = [*tune_words(tiny, tmp_path / "near", *size), "--workers", "1"]
    near = subprocess.run(
        [sys.executable, "-m", "lmk", *near_argv], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert _same(far, json.loads(near.stdout))
    assert _runs(study) == far["runs"]["made"]
    with closing(sqlite3.connect(study)) as database:
        # Every run that a trial counts is there, once.
        trials = database.execute("SELECT trial, count(*), count(DISTINCT place) FROM run GROUP BY trial").fetchall()
    assert all(count == places for _, count, places in trials)


def test_no_scheduler_is_one_line(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(TINY)
    argv = tune_words(tiny, tmp_path / "out", "--dask", "tcp://127.0.0.1:9", "--trials", "1")
    done = subprocess.run([sys.executable, "-m", "lmk", *argv], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert "no scheduler answers" in json.loads(done.stdout)["error"]["cause"]
    assert "Traceback" not in done.stderr
