"""A matrix from start to end: simulated cells on all cores, then emulated ones as memory and cores allow.

Every finished cell is written to the output directory at once, so an interrupted run loses at most what was running
and ``--resume`` goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import attrs

from lmk import __version__
from lmk.ci.baseline import Baseline, cell_baseline
from lmk.ci.execute import Executed, Options, execute_emulator, execute_sim, jitter_of, sim_job
from lmk.ci.judge import judge, metric_values
from lmk.ci.matrix import Cell, Matrix
from lmk.ci.result import Attempt, CellResult, Status, to_json
from lmk.config.device import load_device_config
from lmk.errors import UserError

#: Of the host's RAM, for all guests together; one guest alone is held to its own limit (lmk.backends.qemu_args).
_MEMORY_SHARE: Final = 0.6
#: Beside a guest's own: QEMU, its adb server and lmk itself want a processor too.
_CORES_BESIDE_GUEST: Final = 1
Finished = Callable[[CellResult], None]


@attrs.frozen(kw_only=True)
class Work:
    """A matrix with everything the command line says, and where results go."""

    matrix: Matrix
    options: Options
    baseline: Baseline | None
    output: Path
    repeats: int = 1
    #: While a baseline is learned, cells get more runs.
    learning: bool = False
    workers: int | None = None
    emulators: int | None = None

    @property
    def digest(self) -> str:
        """A hash of all that decides a result: results of other inputs must not be taken for these."""
        files = {**self.matrix.config_files, **self.matrix.scenario_files}
        texts = [path.read_text() for _, path in sorted(files.items())]
        if self.options.bundle is not None:
            # Another kernel is in another bundle. It need not exist: simulated cells do without it.
            texts.append(_file_digest(self.options.bundle))
        settings = sorted(self.options.settings.items())
        parts = [__version__, self.matrix.path.read_text(), self.matrix.calibration.read_text(), *texts]
        parts += [repr((settings, self.options.kill_delay_ms, self.learning))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def cells_wanted(work: Work) -> list[tuple[int, Cell]]:
    """Repeat and cell of everything to run, in the order of the matrix.

    A simulated cell that is learned has ``baseline_replicas`` runs, one repeat's, seconds together; an emulated one
    ``baseline_runs``, a repeat each, so that what took minutes is kept one by one.
    """
    repeats = range(work.repeats * (work.matrix.baseline_runs if work.learning else 1))
    return [
        (repeat, cell)
        for repeat in repeats
        for cell in work.matrix.cells
        if repeat < work.repeats or cell.target != "sim"
    ]


def run_matrix(work: Work, finished: Finished, resume: bool = False) -> list[CellResult]:
    """All cells of all repeats, in the order of the matrix. ``finished`` is told of each as it ends."""
    store = _Store(work)
    store.open(resume)
    wanted = cells_wanted(work)
    done: dict[tuple[int, Cell], CellResult] = {}
    for repeat, cell in wanted:
        known = store.load(repeat, cell)
        if known is not None:
            done[repeat, cell] = known
            finished(known)

    def keep(result: CellResult) -> None:
        store.save(result)
        done[result.repeat, result.cell] = result
        finished(result)

    left = [key for key in wanted if key not in done]
    _simulate(work, [key for key in left if key[1].target == "sim"], keep)
    _emulate(work, [key for key in left if key[1].target != "sim"], keep)
    return [done[key] for key in wanted]


def _simulate(work: Work, keys: Sequence[tuple[int, Cell]], keep: Finished) -> None:
    if not keys:
        return
    replicas = work.matrix.baseline_replicas if work.learning else work.matrix.replicas
    workers = min(work.workers or os.cpu_count() or 1, len(keys) * replicas)
    with ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_parent) as pool:
        owner: dict[Future[Executed], tuple[int, Cell, int]] = {}
        for repeat, cell in keys:
            for replica in range(replicas):
                jitter = jitter_of(repeat, replica, replicas, learning=work.learning)
                folder = _run_dir(work, repeat, cell) if replica == 0 else None
                job = sim_job(work.matrix, cell, work.options, jitter, folder)
                owner[pool.submit(execute_sim, job, work.matrix.time_limit_ms)] = (repeat, cell, replica)
        parts: dict[tuple[int, Cell], dict[int, Executed]] = {key: {} for key in keys}
        try:
            for future in as_completed(owner):
                repeat, cell, replica = owner[future]
                some = parts[repeat, cell]
                some[replica] = future.result()
                if len(some) == replicas:
                    keep(_judged(work, repeat, cell, [some[number] for number in range(replicas)]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _emulate(work: Work, keys: Sequence[tuple[int, Cell]], keep: Finished) -> None:
    """Daemon threads, not a pool: one would make Ctrl-C wait for runs of minutes. A run ends with this process."""
    waiting: SimpleQueue[tuple[int, Cell]] = SimpleQueue()
    for key in keys:
        waiting.put(key)
    ended: SimpleQueue[CellResult | BaseException] = SimpleQueue()

    def take_turns() -> None:
        with contextlib.suppress(Empty):
            while True:
                repeat, cell = waiting.get_nowait()
                try:
                    ended.put(_emulated(work, repeat, cell))
                except BaseException as error:
                    ended.put(error)

    for _ in range(_emulators_at_once(work, [cell for _, cell in keys]) if keys else 0):
        threading.Thread(target=take_turns, daemon=True).start()
    try:
        for _ in keys:
            result = ended.get()
            if isinstance(result, BaseException):
                raise result
            keep(result)
    finally:
        with contextlib.suppress(Empty):
            while True:
                waiting.get_nowait()


def _emulated(work: Work, repeat: int, cell: Cell) -> CellResult:
    executed = execute_emulator(work.matrix, cell, work.options, _run_dir(work, repeat, cell))
    return _judged(work, repeat, cell, [executed])


def _emulators_at_once(work: Work, cells: Sequence[Cell]) -> int:
    if work.emulators is not None:
        return work.emulators
    configs = [load_device_config(work.matrix.config_files[cell.config]) for cell in cells]
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    by_memory = int(host_bytes * _MEMORY_SHARE) // max(config.memory_bytes for config in configs)
    by_cores = (os.cpu_count() or 1) // (max(config.cpus for config in configs) + _CORES_BESIDE_GUEST)
    return max(1, min(by_memory, by_cores, len(cells)))


def _judged(work: Work, repeat: int, cell: Cell, executed: Sequence[Executed]) -> CellResult:
    """The cell's result: judged if every run came to its end, else whose fault it was that it did not."""
    spoilt = tuple(attempt for one in executed for attempt in one.spoilt)
    seconds = sum(one.seconds for one in executed)
    broken = next((one for one in executed if one.run is None), None)
    if broken is not None:
        status: Status = "timeout" if broken.timed_out else "infra"
        return CellResult(cell=cell, repeat=repeat, status=status, seconds=seconds, spoilt=spoilt, cause=broken.cause)
    runs = [one.run for one in executed if one.run is not None]
    values = work.baseline.values(cell) if work.baseline is not None else {}
    verdicts = judge(values, metric_values(runs)) if values else []
    met = all(verdict["met"] for verdict in runs[0]["summary"]["expectations"])
    return CellResult(
        cell=cell,
        repeat=repeat,
        status="passed" if met and not any(verdict.worse for verdict in verdicts) else "failed",
        seconds=seconds,
        runs=runs,
        verdicts=verdicts,
        spoilt=spoilt,
    )


def learned(results: Sequence[CellResult], old: Baseline | None) -> Baseline:
    """The baseline these results teach; cells not among them keep what ``old`` says."""
    cells = dict(old.cells) if old is not None else {}
    for cell in dict.fromkeys(result.cell for result in results if result.runs):
        runs = [run for result in results if result.cell == cell for run in result.runs]
        cells[cell.key] = cell_baseline(cell, runs)
    return Baseline(cells)


def _run_dir(work: Work, repeat: int, cell: Cell) -> Path:
    return work.output / "runs" / str(repeat) / cell.slug


class _Store:
    """Finished cells as files: ``results/REPEAT/CELL.json`` with the runs they were judged on."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stamp = work.output / "inputs.json"

    def open(self, resume: bool) -> None:
        """UserError if the directory holds results of something else, or any without ``resume``."""
        output, digest = self._work.output, self._work.digest
        if self._stamp.is_file():
            if not resume:
                raise UserError(f"{output}: holds results already", "add --resume, or give another --output")
            if json.loads(self._stamp.read_text())["digest"] != digest:
                raise UserError(
                    f"{output}: its results are of other inputs (a file or option changed since)",
                    "give another --output",
                )
            return
        try:
            output.mkdir(parents=True, exist_ok=True)
            self._stamp.write_text(json.dumps({"digest": digest}) + "\n")
        except OSError as error:
            raise UserError(f"{output}: {error.strerror}", "give an --output directory you may write") from None

    def load(self, repeat: int, cell: Cell) -> CellResult | None:
        try:
            body = json.loads(self._path(repeat, cell).read_text())
        except (OSError, ValueError):
            # What an interrupted run began to record is in the way of the one that does it again.
            base = _run_dir(self._work, repeat, cell)
            for folder in (base, *base.parent.glob(f"{base.name}-*")):
                shutil.rmtree(folder, ignore_errors=True)
            return None
        executed = [Executed(run=run, seconds=body["seconds"] / max(1, len(body["runs"]))) for run in body["runs"]]
        result = _judged(self._work, repeat, cell, executed)
        return attrs.evolve(result, spoilt=tuple(Attempt(**attempt) for attempt in body["spoilt"]))

    def save(self, result: CellResult) -> None:
        """Only what could be judged counts as finished."""
        if result.status not in ("passed", "failed"):
            return
        path = self._path(result.repeat, result.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        body: Mapping[str, Any] = {**to_json(result), "runs": list(result.runs)}
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(body))
        draft.replace(path)

    def _path(self, repeat: int, cell: Cell) -> Path:
        return self._work.output / "results" / str(repeat) / f"{cell.slug}.json"


def shard(cells: Sequence[Cell], text: str) -> tuple[Cell, ...]:
    """The cells of shard ``i/n`` (1-based); every n-th, so that the slow ones spread. UserError for other texts."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {text}: not I/N", "for example --shard 1/4 to --shard 4/4")
    return tuple(sorted(cells)[int(number) - 1 :: int(count)])


def output_dir(base: Path, name: str) -> Path:
    """A new directory for a run of the matrix called ``name``."""
    return base / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{time.time_ns() % 1_000_000:06d}"
