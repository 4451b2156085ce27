"""Run one cell once: simulated ones in a worker process each, emulated ones through the ``lmk run`` a user would type.

An emulator run is a process of its own, so that its QEMU, adb server and helper end with it, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lmk import subproc
from lmk.ci.matrix import Cell, Matrix
from lmk.ci.result import Attempt
from lmk.config.override import KERNEL_BASE
from lmk.errors import InfraError, LmkError, UserError
from lmk.sim.batch import SimJob, run_job

#: Of a cell, on top of the first try.
RETRIES_MAX: Final = 2
#: Jitters of a baseline's runs begin here, far beyond those of any number of repeats.
_LEARNED_FROM: Final = 1 << 32


@attrs.frozen(kw_only=True)
class Options:
    """What the command line adds to a matrix."""

    settings: Mapping[str, str]
    kill_delay_ms: int = 0
    bundle: Path | None = None
    retries: int = RETRIES_MAX
    #: Whether a run that others on the host disturbed counts (its times then say little).
    allow_disturbed: bool = False


@attrs.frozen(kw_only=True)
class Executed:
    """What came of one run: an object as ``lmk run --json`` prints it, or why there is none."""

    run: Mapping[str, Any] | None = None
    spoilt: tuple[Attempt, ...] = ()
    timed_out: bool = False
    cause: str = ""
    seconds: float = 0.0


class _OutOfTimeError(Exception):
    pass


@contextlib.contextmanager
def _time_limit(limit_ms: int) -> Iterator[None]:
    """_OutOfTimeError in the main thread of this process after so long."""

    def ring(*_: object) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_ms / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def sim_job(matrix: Matrix, cell: Cell, options: Options, jitter: int, run_dir: Path | None) -> SimJob:
    """A simulated cell's run; ``jitter`` 0 is the scenario as written."""
    return SimJob(
        config=matrix.config_files[cell.config],
        scenario=matrix.scenario_files[cell.scenario],
        calibration=matrix.calibration,
        policy=cell.policy,
        jitter=jitter,
        settings={**options.settings, KERNEL_BASE: cell.kernel},
        kill_delay_ms=options.kill_delay_ms,
        run_dir=run_dir,
    )


def jitter_of(repeat: int, replica: int, replicas: int, *, learning: bool) -> int:
    """Of one of a cell's ``replicas`` runs: the scenario as written, then at moments that neither another repeat nor a
    baseline has had. Runs are to be judged by others, never by themselves."""
    if replica == 0:
        return 0
    return _LEARNED_FROM + replica if learning else repeat * replicas + replica


def execute_sim(job: SimJob, limit_ms: int) -> Executed:
    """Run it within its limit; call in a worker process's main thread."""
    started_s = time.monotonic()
    try:
        with _time_limit(limit_ms):
            run = run_job(job)
    except _OutOfTimeError:
        return Executed(timed_out=True, cause=f"over its limit of {limit_ms / 1000:g} s", seconds=limit_ms / 1000)
    except UserError:
        raise
    except LmkError as error:
        return Executed(cause=str(error), spoilt=(Attempt(kind=error.owner, cause=error.cause),))
    return Executed(run=run, seconds=time.monotonic() - started_s)


def execute_emulator(matrix: Matrix, cell: Cell, options: Options, run_dir: Path) -> Executed:
    """Boot, run, put away; again on a fault of the machinery, never on a failed expectation."""
    spoilt: list[Attempt] = []
    started_s = time.monotonic()
    for number in range(options.retries + 1):
        folder = run_dir.with_name(f"{run_dir.name}-retry{number}") if number else run_dir
        run, fault = _attempt(matrix, cell, options, folder)
        seconds = time.monotonic() - started_s
        if fault is None:
            return Executed(run=run, spoilt=tuple(spoilt), seconds=seconds)
        if fault.kind == "timeout":
            return Executed(timed_out=True, cause=fault.cause, spoilt=tuple(spoilt), seconds=seconds)
        spoilt.append(fault)
    return Executed(spoilt=tuple(spoilt), cause=spoilt[-1].cause, seconds=time.monotonic() - started_s)


def _attempt(
    matrix: Matrix, cell: Cell, options: Options, folder: Path
) -> tuple[Mapping[str, Any] | None, Attempt | None]:
    argv = _command(matrix, cell, options, folder)
    limit_s = matrix.time_limit_ms / 1000
    try:
        done = subproc.run(argv, timeout_s=limit_s, check=False, env={**os.environ, "NO_COLOR": "1"})
    except InfraError:
        # Nothing but the time limit ends this process from outside.
        return None, Attempt(kind="timeout", cause=f"over its limit of {limit_s:g} s")
    try:
        body = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        return None, Attempt(kind="infra", cause=f"lmk run ended with {done.returncode}: {last}")
    fault = body.get("error")
    if fault is not None and fault["exit_code"] == UserError.exit_code:
        raise UserError(fault["cause"], fault["remedy"])
    if fault is not None:
        return None, Attempt(kind=fault["owner"], cause=fault["cause"])
    if body["disturbed"] and not options.allow_disturbed:
        load = f"others used {body['host_load']:.0%} of the host's processors"
        return None, Attempt(kind="disturbed", cause=load)
    return body, None


def _command(matrix: Matrix, cell: Cell, options: Options, folder: Path) -> list[str]:
    argv = [sys.executable, "-m", "lmk", "run"]
    argv += [str(matrix.config_files[cell.config]), str(matrix.scenario_files[cell.scenario])]
    argv += ["--target", cell.target, "--policy", cell.policy, "--json", "--record", str(folder)]
    for name, value in {**options.settings, KERNEL_BASE: cell.kernel}.items():
        argv += ["--set", f"{name}={value}"]
    if options.kill_delay_ms:
        argv += ["--inject-kill-delay", f"{options.kill_delay_ms}ms"]
    if options.bundle is not None:
        argv += ["--bundle", str(options.bundle)]
    return argv
