"""Write a run's record without ever making the daemon wait for a disk.

Rows are queued and a thread of its own writes them, one transaction every half second, so a run that is cut off
(power, kill -9) keeps everything but its last moments. Texts of /proc files repeat and are large: they are stored
once, compressed, under their hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from lmk.errors import InfraError
from lmk.record.counters import counter_row
from lmk.record.encode import to_plain
from lmk.record.schema import DDL, SCHEMA_VERSION, CounterRow, EventRow, KillRow, KillSourceRow, LogRow, columns

_FLUSH_S = 0.5
_KILL_COLUMNS = columns(KillRow)
_COUNTER_COLUMNS = columns(CounterRow)

_Statement = tuple[str, tuple[Any, ...]]
#: Made on the caller's thread, turned into statements on the writer's.
_Job = Callable[[], Iterable[_Statement]]


def _pause() -> Iterable[_Statement]:
    return ()


_PAUSE: _Job = _pause


class RecordWriter:
    """Appends to ``DIR/run.sqlite``; use as a context manager, or ``close`` it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "run.sqlite"
        if self.path.exists():
            raise InfraError(f"{self.path} exists already", "give every run a directory of its own")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._held: deque[_Job] = deque()
        self._holding = False
        self._held_max: int | None = None
        self._error: Exception | None = None
        self._next_kill = 1
        self._next_seq = 1
        self._texts: dict[str, int] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="record-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def meta(self, values: Mapping[str, Any]) -> None:
        """Set or replace meta keys; values are stored as JSON."""
        for key, value in values.items():
            self._put("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def step(self, t_ns: int, request: object, answer: object) -> None:
        """One exchange between the policy and its target: two values of ``lmk.policy.api``.

        They are encoded on the writer's thread (``lmk.record.encode``); texts of /proc files are stored once.
        """
        seq = self._next_seq
        self._next_seq += 1
        self._hand_over(lambda: self._step_statements(seq, t_ns, request, answer))

    def decision(
        self, t_ns: int, woke_ns: int | None, reason_code: int | None, victim: int | None, body: object
    ) -> None:
        """Why the policy did what it did: every rule with the values it compared.

        ``woke_ns``: when the device woke for it (a poll: took its sample); None where that means nothing.
        """
        sql = "INSERT INTO decision (t_ns, woke_ns, reason_code, victim_pid, body) VALUES (?, ?, ?, ?, ?)"
        self._hand_over(lambda: ((sql, (t_ns, woke_ns, reason_code, victim, _dump(to_plain(body, _inline)))),))

    def kill(self, row: KillRow) -> int:
        """Record a kill; the id is for ``update_kill`` when its outcome arrives."""
        kill_id = self._next_kill
        self._next_kill += 1
        marks = ", ".join("?" * (len(_KILL_COLUMNS) + 1))
        names = ", ".join(("id", *_KILL_COLUMNS))
        self._put(f"INSERT INTO kill ({names}) VALUES ({marks})", (kill_id, *attrs.astuple(row)))
        return kill_id

    def update_kill(self, kill_id: int, **values: int | str | None) -> None:
        """Fill in columns of a recorded kill."""
        unknown = set(values) - set(_KILL_COLUMNS)
        if unknown:
            raise ValueError(f"not columns of a kill: {sorted(unknown)}")
        sets = ", ".join(f"{name} = ?" for name in values)
        self._put(f"UPDATE kill SET {sets} WHERE id = ?", (*values.values(), kill_id))

    def kill_source(self, row: KillSourceRow) -> None:
        """Record a log line that tells of a kill, by the kill's id."""
        sql = "INSERT INTO kill_source (kill_id, t_ns, kind, shape, place, text) VALUES (?, ?, ?, ?, ?, ?)"
        self._put(sql, attrs.astuple(row))

    def counter(self, row: CounterRow) -> None:
        """Record one sample's numbers."""
        self._put(*self._counter_statement(row))

    def sample(self, t_ns: int, meminfo: str | None, vmstat: str | None, psi_memory: str | None) -> None:
        """Record a sample's numbers; the texts are parsed on the writer's thread."""
        self._hand_over(lambda: (self._counter_statement(counter_row(t_ns, meminfo, vmstat, psi_memory)),))

    def app_event(self, row: EventRow) -> None:
        """Record what the app runner reported."""
        self._put("INSERT INTO app_event (t_ns, kind, body) VALUES (?, ?, ?)", (row.t_ns, row.kind, _dump(row.body)))

    def device_event(self, row: EventRow) -> None:
        """Record what the helper reported outside of requests."""
        self._put(
            "INSERT INTO device_event (t_ns, kind, body) VALUES (?, ?, ?)",
            (row.t_ns, row.kind, _dump(row.body)),
        )

    def log(self, row: LogRow) -> None:
        """Record a log line."""
        self._put("INSERT INTO log (t_ns, level, tag, text) VALUES (?, ?, ?, ?)", attrs.astuple(row))

    def hold(self, at_most: int | None = None) -> None:
        """Only collect what comes until ``release``: the writer's thread would take the interpreter from a decision.

        ``at_most``: until so much has been collected, again and again; waking that thread for each row takes longer
        than the row.
        """
        self._holding = True
        self._held_max = at_most

    def release(self) -> None:
        """Write what was collected."""
        self._holding = False
        self._write_held()

    def close(self) -> None:
        """Write what is queued and close the file. Raises InfraError if the disk refused anything."""
        if self._closed:
            return
        self._closed = True
        self.release()
        self._jobs.put(None)
        self._thread.join()
        if self._error is not None:
            raise InfraError(
                f"the record {self.path} could not be written: {self._error}", "see whether the disk is full"
            )

    def _hand_over(self, job: _Job) -> None:
        if self._holding:
            self._held.append(job)
            if len(self._held) == self._held_max:
                self._write_held()
        else:
            self._jobs.put(job)

    def _write_held(self) -> None:
        # In order and as one: then the writer's thread wakes once.
        held = list(self._held)
        self._held.clear()
        if held:
            self._jobs.put(lambda: (statement for job in held for statement in job()))

    def _put(self, sql: str, values: tuple[Any, ...]) -> None:
        self._hand_over(lambda: ((sql, values),))

    @staticmethod
    def _counter_statement(row: CounterRow) -> _Statement:
        marks = ", ".join("?" * len(_COUNTER_COLUMNS))
        return f"INSERT OR REPLACE INTO counter ({', '.join(_COUNTER_COLUMNS)}) VALUES ({marks})", attrs.astuple(row)

    def _step_statements(self, seq: int, t_ns: int, request: object, answer: object) -> list[_Statement]:
        statements: list[_Statement] = []

        def keep(text: str) -> int:
            raw = text.encode(errors="surrogateescape")
            sha = hashlib.sha256(raw).hexdigest()
            known = self._texts.get(sha)
            if known is None:
                known = self._texts[sha] = len(self._texts) + 1
                statements.append(("INSERT INTO text VALUES (?, ?, ?)", (known, sha, zlib.compress(raw, 1))))
            return known

        row = (seq, t_ns, _dump(to_plain(request, keep)), _dump(to_plain(answer, keep)))
        statements.append(("INSERT INTO step VALUES (?, ?, ?, ?)", row))
        return statements

    def _work(self) -> None:
        try:
            _create(self.path)
            database = sqlite3.connect(self.path, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            try:
                self._drain(database)
            finally:
                # One plain file is left, so that a record can be copied or mailed; not while somebody reads it.
                with contextlib.suppress(sqlite3.OperationalError):
                    database.execute("PRAGMA journal_mode = DELETE")
                database.close()
        except Exception as error:  # whatever it is, close() tells the one who can act on it
            self._error = error
            while self._jobs.get() is not None:  # keep the producers going; close() reports
                pass

    def _drain(self, database: sqlite3.Connection) -> None:
        job = self._jobs.get()
        while job is not None:
            database.execute("BEGIN")
            deadline_s = time.monotonic() + _FLUSH_S
            while job is not None:
                for statement in job():
                    database.execute(*statement)
                job = self._next_before(deadline_s)
                if job is _PAUSE:
                    break
            database.execute("COMMIT")
            if job is _PAUSE:
                job = self._jobs.get()

    def _next_before(self, deadline_s: float) -> _Job | None:
        """The next job, or _PAUSE when the transaction has been open long enough."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            return _PAUSE
        try:
            return self._jobs.get(timeout=remaining_s)
        except queue.Empty:
            return _PAUSE


def _create(path: Path) -> None:
    """An empty record that is there at once: a reader of a run that is just beginning finds no file, or a record."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(unfinished)) as database:
        database.executescript(DDL)
        with database:
            database.execute("INSERT INTO meta VALUES ('schema', ?)", (json.dumps(SCHEMA_VERSION),))
    unfinished.rename(path)


def update_meta(directory: Path, values: Mapping[str, Any]) -> None:
    """Add meta keys to a finished record (verdicts that need the whole of it)."""
    with contextlib.closing(sqlite3.connect(directory / "run.sqlite")) as database, database:
        rows = [(key, json.dumps(value, sort_keys=True)) for key, value in values.items()]
        database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _inline(text: str) -> str:
    return text


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
