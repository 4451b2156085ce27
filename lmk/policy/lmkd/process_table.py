"""lmkd's table of registered processes (reference: section 6.1). Mutable, deterministic, owned by the policy.

Records of one oom_score_adj form a slot. lmkd inserts at the head and takes victims from the tail, so
the tail is the process whose registration is oldest; here a slot is a dict whose *last* entry is
the head.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from lmk.policy.api import ProcessRow

HASH_SIZE = 1024


@attrs.define(eq=False)
class Process:
    """One record. ``handle`` is its pidfd (None: not supported). ``owner_pid`` is the client that
    registered it, 0 when that client is gone. ``serial`` orders insertions."""

    pid: int
    handle: int | None
    uid: int
    adj: int
    owner_pid: int
    serial: int
    valid: bool = True
    handle_closed: bool = False


class ProcessTable:
    """Records by pid, and by oom_score_adj in order of registration."""

    def __init__(self) -> None:
        self._by_pid: dict[int, Process] = {}
        self._slots: dict[int, dict[int, Process]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._by_pid)

    def get(self, pid: int) -> Process | None:
        """The record of a pid."""
        return self._by_pid.get(pid)

    def insert(self, pid: int, handle: int | None, uid: int, adj: int, owner_pid: int) -> Process:
        """A new record, at the head of its slot. The pid must not be in the table."""
        self._serial += 1
        record = Process(pid, handle, uid, adj, owner_pid, self._serial)
        self._by_pid[pid] = record
        slot = self._slots.get(adj)
        if slot is None:
            self._slots[adj] = {pid: record}
        else:
            slot[pid] = record
        return record

    def move(self, record: Process, adj: int) -> None:
        """Take the record out and put it at the head of a slot, also when the adj stays the same."""
        pid, old_adj = record.pid, record.adj
        slot = self._slots[old_adj]
        del slot[pid]
        if adj != old_adj:
            if not slot:
                del self._slots[old_adj]
            record.adj = adj
            slot = self._slots.get(adj) or self._slots.setdefault(adj, {})
        slot[pid] = record

    def remove(self, pid: int) -> Process | None:
        """Forget a record; returns it."""
        record = self._by_pid.pop(pid, None)
        if record is not None:
            slot = self._slots[record.adj]
            del slot[pid]
            if not slot:
                del self._slots[record.adj]
        return record

    def adjs_from(self, highest: int, lowest: int) -> list[int]:
        """The non-empty slots between two scores, both included, highest first."""
        return sorted((adj for adj in self._slots if lowest <= adj <= highest), reverse=True)

    def tail(self, adj: int) -> Process | None:
        """The record of a slot whose registration is oldest."""
        slot = self._slots.get(adj)
        return next(iter(slot.values())) if slot else None

    def head_to_tail(self, adj: int) -> list[Process]:
        """A slot, newest registration first."""
        slot = self._slots.get(adj)
        return list(reversed(slot.values())) if slot else []

    def pids_head_to_tail(self, adj: int) -> list[int]:
        """The pids of a slot, newest registration first."""
        return list(reversed(self._slots.get(adj, {})))

    def in_hash_order(self) -> list[Process]:
        """All records as PROCPURGE walks them: by hash bucket, newest insertion first within one."""
        return sorted(
            self._by_pid.values(),
            key=lambda record: (((record.pid >> 8) ^ record.pid) & (HASH_SIZE - 1), -record.serial),
        )

    def disown(self, owner_pid: int) -> None:
        """A client is gone: its records become claimable."""
        for record in self._by_pid.values():
            if record.owner_pid == owner_pid:
                record.owner_pid = 0

    def rows(self) -> Iterator[ProcessRow]:
        """The whole table, oom_score_adj descending, newest first within one."""
        for adj in sorted(self._slots, reverse=True):
            for record in self.head_to_tail(adj):
                yield ProcessRow(record.pid, record.uid, record.adj, record.owner_pid, record.valid)
