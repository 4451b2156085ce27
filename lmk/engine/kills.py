"""Put together, from what the policy asked and logged, one row of the record per killed process.

A kill's facts arrive in pieces: the victim's files are read, the signal is requested, the killinfo event and the
decision follow, and what the signal and the reap did becomes known much later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lmk.policy.api import EventLog, Kill, ReadProcess, Request, Wait
from lmk.policy.decision import Decision
from lmk.procfs.meminfo import parse_meminfo
from lmk.record.schema import KILLER_KERNEL_OOM, KillRow
from lmk.record.writer import RecordWriter

# killinfo fields (event.logtags of lmkd): 0 pid, 1 uid, 2 adj, 3 min adj, 4 rss kB, 5 reason
_PID: Final = 0
_UID: Final = 1
_ADJ: Final = 2
_MIN_ADJ: Final = 3
_RSS: Final = 4
_REASON: Final = 5


class KillJournal:
    """An ``Observer`` that writes ``kill`` rows; ``outcome`` completes them. ``on_kill`` sees each new row.

    ``dry``: a process that would have been killed lives on and is chosen again; its row tells of the first time.
    """

    def __init__(
        self, writer: RecordWriter, *, dry: bool = False, on_kill: Callable[[KillRow], None] = lambda _: None
    ) -> None:
        self._writer = writer
        self._dry = dry
        self._on_kill = on_kill
        self._names: dict[int, str] = {}
        self._sizes: dict[int, tuple[int | None, int | None]] = {}
        self._pending: dict[int, KillRow] = {}
        self._ids: dict[int, int] = {}
        self._early: dict[int, dict[str, int | str | None]] = {}
        self._chosen_again: set[int] = set()

    def exchanged(self, t_ns: int, request: Request, answer: object) -> None:
        """See ``lmk.engine.loop.Observer``."""
        if isinstance(request, ReadProcess):
            self._note_file(request, answer)
        elif isinstance(request, Kill) and self._dry and request.pid in self._ids:
            self._chosen_again.add(request.pid)
        elif isinstance(request, Kill):
            rss_kib, swap_kib = self._sizes.get(request.pid, (None, None))
            self._pending[request.pid] = KillRow(
                t_ns=t_ns,
                pid=request.pid,
                name=self._names.get(request.pid),
                rss_kib=rss_kib,
                swap_kib=swap_kib,
                dry=self._dry,
            )
        elif isinstance(request, EventLog):
            self._note_killinfo(request)
        elif self._pending and isinstance(request, Decision | Wait):
            self._flush(request if isinstance(request, Decision) else None)

    def outcome(self, pid: int, **values: int | str | None) -> None:
        """Add what became of a kill: columns of ``KillRow``. It may come before the row itself."""
        if pid in self._chosen_again:
            self._chosen_again.discard(pid)
            return
        kill_id = self._ids.get(pid)
        if kill_id is None:
            self._early.setdefault(pid, {}).update(values)
        else:
            self._writer.update_kill(kill_id, **values)
            if self._dry and values.get("signal_errno"):
                del self._ids[pid]

    def exited(self, pid: int) -> None:
        """Dry run: this process is dead, whoever killed it; its number may be another's now."""
        if self._dry:
            self._ids.pop(pid, None)
            self._chosen_again.discard(pid)

    def kernel_oom(self, t_ns: int, pid: int, name: str | None, oom_score_adj: int | None, rss_kib: int | None) -> None:
        """The kernel's own OOM killer chose a victim."""
        row = KillRow(
            t_ns=t_ns,
            pid=pid,
            name=name,
            oom_score_adj=oom_score_adj,
            rss_kib=rss_kib,
            reason="kernel out of memory",
            killer=KILLER_KERNEL_OOM,
        )
        self._writer.kill(row)
        self._on_kill(row)

    def _note_file(self, request: ReadProcess, answer: object) -> None:
        if not isinstance(answer, str):
            return
        if request.file == "cmdline":
            self._names[request.pid] = answer.split("\0", 1)[0]
        elif request.file == "status":
            fields = parse_meminfo(answer)  # the size lines of status have meminfo's form
            self._sizes[request.pid] = fields.get("VmRSS"), fields.get("VmSwap")

    def _note_killinfo(self, request: EventLog) -> None:
        row = self._pending.get(int(request.fields[_PID]))
        if row is None:
            return
        row.uid, row.oom_score_adj = int(request.fields[_UID]), int(request.fields[_ADJ])
        row.min_oom_score_adj, row.reason_code = int(request.fields[_MIN_ADJ]), int(request.fields[_REASON])
        if row.rss_kib is None:
            row.rss_kib = int(request.fields[_RSS])

    def _flush(self, decision: Decision | None) -> None:
        for pid, row in self._pending.items():
            if decision is not None and pid in decision.killed_pids:
                row.reason, row.reason_code = decision.reason_text, decision.reason
                row.min_oom_score_adj = decision.min_adj
            for name, value in self._early.pop(pid, {}).items():
                setattr(row, name, value)
            self._ids[pid] = self._writer.kill(row)
            if self._dry and row.signal_errno:
                del self._ids[pid]
            self._on_kill(row)
        self._pending.clear()
