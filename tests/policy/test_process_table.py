"""The process table against a plain model: slots, order, hash order, ownership."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lmk.policy.api import ProcessRow
from lmk.policy.lmkd.process_table import ProcessTable

PIDS = st.integers(1, 12) | st.sampled_from([1024, 1025, 70000, -5])
ADJS = st.sampled_from([-1000, 0, 200, 900, 901, 1000])


class TableMachine(RuleBasedStateMachine):
    """The model: slots as lists, newest first; insertion order per pid."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ProcessTable()
        self.slots: dict[int, list[int]] = {}
        self.adj: dict[int, int] = {}
        self.owner: dict[int, int] = {}
        self.inserted: list[int] = []

    @rule(pid=PIDS, adj=ADJS, owner=st.integers(1, 3))
    def prio(self, pid: int, adj: int, owner: int) -> None:
        record = self.table.get(pid)
        if record is None:
            self.table.insert(pid, None, 10000, adj, owner)
            self.owner[pid] = owner
            self.inserted.append(pid)
        else:
            self.table.move(record, adj)
            self.slots[self.adj[pid]].remove(pid)
        self.slots.setdefault(adj, []).insert(0, pid)
        self.adj[pid] = adj

    @rule(pid=PIDS)
    def remove(self, pid: int) -> None:
        assert (self.table.remove(pid) is None) == (pid not in self.adj)
        if pid in self.adj:
            self.slots[self.adj.pop(pid)].remove(pid)
            self.inserted.remove(pid)
            del self.owner[pid]

    @rule(owner=st.integers(1, 3))
    def disown(self, owner: int) -> None:
        self.table.disown(owner)
        self.owner = {pid: 0 if o == owner else o for pid, o in self.owner.items()}

    @invariant()
    def rows(self) -> None:
        expected = [
            ProcessRow(pid, 10000, adj, self.owner[pid], True)
            for adj in sorted(self.slots, reverse=True)
            for pid in self.slots[adj]
        ]
        assert list(self.table.rows()) == expected
        assert len(self.table) == len(expected)

    @invariant()
    def victims(self) -> None:
        for adj in (-1000, 0, 200, 900, 901, 1000):
            slot = self.slots.get(adj, [])
            tail = self.table.tail(adj)
            assert (tail.pid if tail else None) == (slot[-1] if slot else None)
            assert [record.pid for record in self.table.head_to_tail(adj)] == slot
        assert self.table.adjs_from(1000, 0) == sorted((a for a, s in self.slots.items() if s and a >= 0), reverse=True)

    @invariant()
    def hash_order(self) -> None:
        buckets: dict[int, list[int]] = {}
        for pid in self.inserted:
            buckets.setdefault(((pid >> 8) ^ pid) & 1023, []).insert(0, pid)
        expected = [pid for bucket in sorted(buckets) for pid in buckets[bucket]]
        assert [record.pid for record in self.table.in_hash_order()] == expected


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
