"""What takes part in the machine's steps: something that wants a CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lmk.sim.cpus import Usage

if TYPE_CHECKING:
    from lmk.sim.machine import Machine


class Runner(ABC):
    """A thread, as far as the scheduler sees it."""

    def __init__(self) -> None:
        #: The CPU that it is on; the machine's business.
        self.lane = -1
        #: Asleep until storage has read something.
        self.io_waiting = False
        #: In the cgroup of apps.
        self.of_app = False

    @property
    @abstractmethod
    def runnable(self) -> bool:
        """Whether it has something to do and may do it."""

    @property
    @abstractmethod
    def weight(self) -> int:
        """Of sched_prio_to_weight."""

    @property
    def writes_memory(self) -> bool:
        """Whether what it does now takes pages."""
        return False

    @abstractmethod
    def quiet_ns(self, machine: Machine) -> int | None:
        """How long a step may be at most on its account, None: as long as it likes."""

    @abstractmethod
    def run(self, machine: Machine, span_ns: int) -> Usage:
        """Work for so much wall time."""
