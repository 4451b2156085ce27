"""Workers on an existing Dask Distributed cluster; the only importer of distributed.

The scheduler gives the run of a worker that died to another one. The coordinator takes a run's outcome once, whatever
the cluster made twice. Simulating is pure Python: start workers with one thread each (``dask worker --nthreads 1``).
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Future
from typing import Any, Final

from distributed import Client
from distributed.scheduler import KilledWorker

from lmk import __version__
from lmk.errors import HostError, UserError
from lmk.tune.jobs import Job, Outcome, measure

_CONNECT_S: Final = 5
#: Runs on their way to a worker or waiting at it, for each of its threads: none waits for the network.
_AHEAD: Final = 2
_ASK_AGAIN_S: Final = 2.0


def worker_version() -> str:
    """The lmk a worker has."""
    return __version__


class DaskWorkers:
    """See ``lmk.tune.workers.Workers``. ``address``: of the scheduler, e.g. tcp://10.0.0.1:8786. Raises UserError."""

    def __init__(self, address: str) -> None:
        connect: Any = Client  # partly annotated, which strict typing does not like
        try:
            self._client: Any = connect(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise HostError(f"--dask {address}: no scheduler answers ({error})", "start one: dask scheduler") from None
        try:
            self._check(address)
        except BaseException:
            self._client.close()
            raise
        self._executor = self._client.get_executor(pure=False)
        self._threads = 0
        self._ask_again_s = 0.0

    @property
    def slots(self) -> int:
        """See ``Workers``: grows and shrinks with the cluster, which is asked now and then."""
        now_s = time.monotonic()
        if now_s >= self._ask_again_s:
            self._threads = sum(self._client.nthreads().values())
            self._ask_again_s = now_s + _ASK_AGAIN_S
        return max(1, _AHEAD * self._threads)

    @property
    def given_up(self) -> tuple[type[BaseException], ...]:
        """See ``Workers``: several workers died of the same run, or the scheduler is gone."""
        return (KilledWorker, CancelledError)

    def submit(self, job: Job) -> Future[Outcome]:
        """See ``Workers``."""
        found: Future[Outcome] = self._executor.submit(measure, job)
        return found

    def restart(self) -> bool:
        """See ``Workers``: a cluster mends itself or not at all."""
        return False

    def close(self) -> None:
        """See ``Workers``. The cluster stays."""
        self._executor.shutdown(wait=False)
        self._client.close()

    def _check(self, address: str) -> None:
        try:
            versions = self._client.run(worker_version)
        except ModuleNotFoundError as error:
            raise UserError(f"--dask {address}: its workers lack {error.name}", "install lmk where they run") from None
        if not versions:
            raise UserError(f"--dask {address}: has no workers", f"start some: dask worker --nthreads 1 {address}")
        others = {where: version for where, version in versions.items() if version != __version__}
        for where, version in others.items():
            raise UserError(
                f"--dask {address}: worker {where} has lmk {version}, this is {__version__}", "install the same"
            )
