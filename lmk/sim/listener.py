"""What a simulated device tells the outside about a run; the record is written from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from lmk.engine.kills import KillJournal
from lmk.record.schema import CounterRow, EventRow
from lmk.record.writer import RecordWriter
from lmk.sim.memory import Memory
from lmk.sim.process import SimProcess
from lmk.sim.zone import PAGE_KIB


class SimListener(Protocol):
    """Everything is told in order of time."""

    def started(self, t_ns: int) -> None:
        """The scenario begins."""

    def app_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        """An app did or was done something, as the guest's app runner reports it."""

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        """What became of a kill: columns of ``KillRow``."""

    def kernel_oom_kill(self, process: SimProcess, t_ns: int) -> None:
        """The kernel's OOM killer chose a victim."""

    def sampled(self, t_ns: int, memory: Memory, psi_us: tuple[int, int]) -> None:
        """The state at a moment; totals of memory pressure some and full."""


class RecordingListener:
    """Implements ``SimListener`` with a record."""

    def __init__(
        self, writer: RecordWriter, journal: KillJournal, on_started: Callable[[int], None] = lambda _: None
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._on_started = on_started

    def started(self, t_ns: int) -> None:
        """See ``SimListener``."""
        self._writer.meta({"zero_ns": t_ns})
        self._on_started(t_ns)

    def app_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        """See ``SimListener``."""
        self._writer.app_event(EventRow(t_ns=t_ns, kind=kind, body=body))

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        """See ``SimListener``."""
        self._journal.outcome(pid, **values)

    def kernel_oom_kill(self, process: SimProcess, t_ns: int) -> None:
        """See ``SimListener``."""
        self._writer.device_event(EventRow(t_ns=t_ns, kind="oom", body={"pid": process.pid}))
        self._journal.kernel_oom(
            t_ns, process.pid, process.plan.process_name, process.adj, process.rss_pages * PAGE_KIB
        )

    def sampled(self, t_ns: int, memory: Memory, psi_us: tuple[int, int]) -> None:
        """See ``SimListener``."""
        self._writer.counter(counter_row(t_ns, memory, psi_us))


def counter_row(t_ns: int, memory: Memory, psi_us: tuple[int, int]) -> CounterRow:
    """One sample of the record."""
    zram, events = memory.zram, memory.events
    return CounterRow(
        t_ns=t_ns,
        mem_free_kib=memory.zones.free * PAGE_KIB,
        mem_available_kib=memory.available_pages() * PAGE_KIB,
        cached_kib=memory.file_pages * PAGE_KIB,
        # On the lists, as on a live device: what is locked is on none.
        anon_kib=memory.anon_pages * PAGE_KIB,
        swap_total_kib=(zram.slots if zram is not None else 0) * PAGE_KIB,
        swap_free_kib=(zram.free if zram is not None else 0) * PAGE_KIB,
        psi_some_us=psi_us[0],
        psi_full_us=psi_us[1],
        refault_file_pages=events.refault_file,
        pgscan_direct=events.pgscan_direct,
        pgscan_kswapd=events.pgscan_kswapd,
        pswpin_pages=events.pswpin,
        pswpout_pages=events.pswpout,
    )
