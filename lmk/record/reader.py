"""Read a run's record again: every view is made from what this gives."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs

from lmk.errors import UserError
from lmk.record.schema import SCHEMA_VERSION, CounterRow, EventRow, KillRow, KillSourceRow, LogRow, columns

_Row = TypeVar("_Row", bound=attrs.AttrsInstance)


@attrs.frozen(kw_only=True)
class StepRow:
    """One exchange: ``request`` and ``answer`` as dictionaries."""

    seq: int
    t_ns: int
    request: dict[str, Any]
    answer: dict[str, Any] | None


@attrs.frozen(kw_only=True)
class DecisionRow:
    """One decision: ``body`` is an ``lmk.policy.decision.Decision`` as a dictionary."""

    t_ns: int
    woke_ns: int | None
    body: dict[str, Any]


class RecordReader:
    """Opens a run directory or its ``run.sqlite`` read-only. UserError if it is no record of ours."""

    def __init__(self, path: Path) -> None:
        file = path / "run.sqlite" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{path} holds no run record", "give a run directory (lmk run prints it)")
        self.path = file
        try:
            self._database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
            rows = self._database.execute("SELECT key, value FROM meta").fetchall()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{file} is not a run record: {error}", "give a run directory") from None
        self.meta: dict[str, Any] = {key: json.loads(value) for key, value in rows}
        if self.meta.get("schema") != SCHEMA_VERSION:
            raise UserError(
                f"{file} has record schema {self.meta.get('schema')}, this lmk reads {SCHEMA_VERSION}",
                "use the lmk version that wrote it",
            )

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @property
    def zero_ns(self) -> int:
        """When the scenario began, device time; the first counter's time if it never did."""
        zero = self.meta.get("zero_ns")
        if zero is not None:
            return int(zero)
        row = self._database.execute("SELECT min(t_ns) FROM counter").fetchone()
        return int(row[0]) if row[0] is not None else 0

    def kills(self) -> list[KillRow]:
        """All kills in the order of their signals; those whose signal could not be sent are no kills."""
        return [row for row in self._rows(KillRow, "kill", "t_ns, id") if row.signal_errno is None]

    def failed_kills(self) -> list[KillRow]:
        """What was decided and then not done, see ``KillRow.signal_errno``."""
        return [row for row in self._rows(KillRow, "kill", "t_ns, id") if row.signal_errno is not None]

    def kill_sources(self) -> dict[int, list[KillSourceRow]]:
        """The log lines each kill of an import was told by, by the kill's id; ids count ``kills`` rows from 1."""
        known = self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'kill_source'").fetchone()
        sources: dict[int, list[KillSourceRow]] = {}
        for row in self._rows(KillSourceRow, "kill_source", "id") if known else ():
            sources.setdefault(row.kill_id, []).append(row)
        return sources

    def counters(self) -> list[CounterRow]:
        """All samples' numbers by time."""
        return self._rows(CounterRow, "counter", "t_ns")

    def logs(self) -> list[LogRow]:
        """Log lines in the order written."""
        return self._rows(LogRow, "log", "id")

    def app_events(self, kind: str | None = None) -> list[EventRow]:
        """What the app runner reported, by time."""
        return self._events("app_event", kind)

    def device_events(self, kind: str | None = None) -> list[EventRow]:
        """What the helper reported, by time."""
        return self._events("device_event", kind)

    def decisions(self) -> Iterator[DecisionRow]:
        """Every decision in order."""
        for t_ns, woke_ns, body in self._database.execute("SELECT t_ns, woke_ns, body FROM decision ORDER BY seq"):
            yield DecisionRow(t_ns=t_ns, woke_ns=woke_ns, body=json.loads(body))

    def steps(self, request_type: str | None = None) -> Iterator[StepRow]:
        """Every exchange between policy and target, in order; or those with one type of request, by its name."""
        where = ""
        values: tuple[str, ...] = ()
        if request_type is not None:
            # As the writer puts it (lmk.record.encode): the type comes first. Parsing every request takes seconds.
            where, values = "WHERE request GLOB ?", (f'{{"type":"{request_type}"*',)
        for seq, t_ns, request, answer in self._database.execute(
            f"SELECT seq, t_ns, request, answer FROM step {where} ORDER BY seq", values
        ):
            yield StepRow(seq=seq, t_ns=t_ns, request=json.loads(request), answer=json.loads(answer))

    def text(self, text_id: int) -> bytes:
        """A stored /proc text by the id a step refers to."""
        row = self._database.execute("SELECT body FROM text WHERE id = ?", (text_id,)).fetchone()
        if row is None:
            raise KeyError(text_id)
        return zlib.decompress(row[0])

    def _rows(self, row_type: type[_Row], table: str, order: str) -> list[_Row]:
        names = columns(row_type)
        cursor = self._database.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}")
        bools = {field.name for field in attrs.fields(row_type) if field.type in (bool, "bool")}
        return [
            row_type(**{k: bool(v) if k in bools else v for k, v in zip(names, row, strict=True)}) for row in cursor
        ]

    def _events(self, table: str, kind: str | None) -> list[EventRow]:
        where, values = ("WHERE kind = ?", (kind,)) if kind is not None else ("", ())
        cursor = self._database.execute(f"SELECT t_ns, kind, body FROM {table} {where} ORDER BY t_ns, id", values)
        return [EventRow(t_ns=t, kind=k, body=json.loads(b)) for t, k, b in cursor]
