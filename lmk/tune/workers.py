"""Where runs are simulated: processes of this machine, or an existing Dask cluster. One way to use either.

A worker that dies takes nothing with it: the run it had is given to another one, and as a run depends on nothing but
its job the answer is the same.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Protocol, TypeVar

from lmk.errors import InfraError
from lmk.tune.jobs import Job, Outcome, measure

K = TypeVar("K")
#: A pool whose processes die again and again dies of the runs, not of bad luck.
_RESTARTS_MAX = 3


class Workers(Protocol):
    """Something that simulates runs, some at a time."""

    @property
    def slots(self) -> int:
        """How many runs are worth having under way."""

    @property
    def given_up(self) -> tuple[type[BaseException], ...]:
        """With what a run ends that nobody will make any more."""

    def submit(self, job: Job) -> Future[Outcome]:
        """Begin one run."""

    def restart(self) -> bool:
        """After BrokenProcessPool: be usable again; False if that is hopeless."""

    def close(self) -> None:
        """Let go of everything, without waiting for runs under way."""


class LocalWorkers:
    """Processes of this machine; ``count`` None: one for each core. They ignore Ctrl-C: the coordinator ends them."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count or os.cpu_count() or 1
        self._restarts = 0
        self._pool: Executor = self._start()

    @property
    def slots(self) -> int:
        """See ``Workers``: one more for each process, so that none waits for the coordinator."""
        return 2 * self._count

    @property
    def given_up(self) -> tuple[type[BaseException], ...]:
        """See ``Workers``: a pool either breaks whole or goes on."""
        return ()

    def submit(self, job: Job) -> Future[Outcome]:
        """See ``Workers``."""
        return self._pool.submit(measure, job)

    def restart(self) -> bool:
        """See ``Workers``."""
        self._restarts += 1
        if self._restarts > _RESTARTS_MAX:
            return False
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._start()
        return True

    def close(self) -> None:
        """See ``Workers``."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, initializer=_begin_worker)


def _begin_worker() -> None:
    """Ctrl-C is the coordinator's; and no worker outlives a coordinator that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def drive(workers: Workers, next_job: Callable[[], tuple[K, Job] | None], take: Callable[[K, Outcome], None]) -> None:
    """Keep the workers busy with what ``next_job`` gives until it gives None and all is done.

    ``take`` gets every outcome exactly once, in the order in which they come; ``next_job`` is asked again after each.
    Raises InfraError when workers die faster than they can be replaced.
    """
    under_way: dict[Future[Outcome], tuple[K, Job]] = {}
    again: list[tuple[K, Job]] = []
    try:
        while True:
            while len(under_way) < workers.slots and (item := again.pop() if again else next_job()) is not None:
                under_way[workers.submit(item[1])] = item
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            broken = False
            for future in done:
                key, job = under_way.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    again.append((key, job))
                    broken = True
                except workers.given_up as error:
                    raise InfraError(
                        f"the cluster took the work away: {error or 'it is gone'}",
                        "see that its scheduler and workers run; a study goes on with --resume",
                    ) from None
                else:
                    take(key, outcome)
            if broken:
                # All of the pool's runs are lost with it; each goes to the new one.
                again += under_way.values()
                under_way.clear()
                if not workers.restart():
                    raise InfraError("the worker processes die again and again", "see whether memory runs out: dmesg")
    finally:
        for future in under_way:
            future.cancel()


def simulate_all(workers: Workers, jobs: list[Job], told: Callable[[int], None] = lambda _: None) -> list[Outcome]:
    """All of a list, in its order; ``told`` gets how many are done."""
    found: dict[int, Outcome] = {}
    waiting: Iterator[tuple[int, Job]] = iter(enumerate(jobs))

    def take(index: int, outcome: Outcome) -> None:
        found[index] = outcome
        told(len(found))

    drive(workers, lambda: next(waiting, None), take)
    return [found[index] for index in range(len(jobs))]
