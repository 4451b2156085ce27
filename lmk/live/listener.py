"""Turn what happens during a live run into rows of its record, and say how far the run is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lmk.device.helper_types import FileId
from lmk.engine.kills import KillJournal
from lmk.live.files import SampledFiles
from lmk.record.schema import EventRow
from lmk.record.writer import RecordWriter

#: oom:mark_victim of Linux 6.9 and later; older kernels give the pid alone.
_MARK_VICTIM = re.compile(
    r"pid=(?P<pid>\d+)(?: comm=(?P<comm>.*?) total-vm=\d+kB anon-rss=(?P<anon>\d+)kB.* oom_score_adj=(?P<adj>-?\d+))?"
)
#: "Out of memory: Killed process 123 (name) total-vm:1kB, anon-rss:2kB, file-rss:3kB, …, oom_score_adj:4"
_KMSG = re.compile(
    r"Killed process (?P<pid>\d+) \((?P<comm>.*)\) total-vm:\d+kB, anon-rss:(?P<anon>\d+)kB"
    r".* oom_score_adj:(?P<adj>-?\d+)"
)


class RunListener:
    """``lmk.live.intake.Listener``. ``still_running`` is asked several times a second; a reason ends the run."""

    def __init__(self, writer: RecordWriter, journal: KillJournal, still_running: Callable[[], str | None]) -> None:
        self._writer = writer
        self._journal = journal
        self._still_running = still_running
        self._oom_pids: dict[int, int] = {}

    def sampled(self, t_ns: int, files: SampledFiles) -> None:
        """See ``Listener``."""
        self._writer.sample(t_ns, files.text(FileId.MEMINFO), files.text(FileId.VMSTAT), files.text(FileId.PSI_MEMORY))

    def kill_outcome(self, pid: int, **values: int | str | None) -> None:
        """See ``Listener``."""
        self._journal.outcome(pid, **values)

    def device_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None:
        """See ``Listener``. A kernel OOM kill becomes a kill as well, once although it is seen in two places."""
        self._writer.device_event(EventRow(t_ns=t_ns, kind=kind, body=body))
        if kind == "oom":
            self._kernel_oom(t_ns, body)
        elif kind == "exit":
            self._journal.exited(int(body["pid"]))

    def busy(self) -> None:
        """See ``Listener``: the record's thread waits."""
        self._writer.hold()

    def idle(self) -> None:
        """See ``Listener``."""
        self._writer.release()

    def housekeeping(self) -> str | None:
        """See ``Listener``."""
        return self._still_running()

    def _kernel_oom(self, t_ns: int, body: dict[str, Any]) -> None:
        text = str(body["text"])
        found = _KMSG.search(text) or _MARK_VICTIM.search(text)
        pid = int(body["pid"]) or (int(found["pid"]) if found else 0)
        # The same victim twice within a second is one kill told by the tracepoint and by the log.
        if t_ns - self._oom_pids.get(pid, -(10**10)) < 10**9:
            return
        self._oom_pids[pid] = t_ns
        known = found is not None and found["adj"] is not None
        self._journal.kernel_oom(
            t_ns,
            pid,
            found["comm"] if found is not None and known else None,
            int(found["adj"]) if found is not None and known else None,
            int(found["anon"]) if found is not None and known else None,
        )
