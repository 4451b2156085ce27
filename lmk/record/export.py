"""A record as canonical JSON lines: one object per row, keys sorted, the same bytes for the same run anywhere.

Two runs of a simulation with one seed differ in nothing here; where the record lies is not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from lmk.record.reader import RecordReader


def canonical_lines(record: RecordReader) -> Iterator[str]:
    """Every row, each with its ``table``; within a table in the record's own order. Texts stand in place."""
    yield _line("meta", record.meta)
    for kill in record.kills():
        yield _line("kill", attrs.asdict(kill))
    for counter in record.counters():
        yield _line("counter", attrs.asdict(counter))
    for event in record.app_events():
        yield _line("app_event", attrs.asdict(event))
    for event in record.device_events():
        yield _line("device_event", attrs.asdict(event))
    for log in record.logs():
        yield _line("log", attrs.asdict(log))
    for decision in record.decisions():
        yield _line("decision", attrs.asdict(decision))
    for step in record.steps():
        body = attrs.asdict(step)
        body["answer"] = _with_texts(record, body["answer"])
        yield _line("step", body)


def export_record(record: RecordReader, path: Path) -> None:
    """Write ``canonical_lines`` to a file. OSError if that fails."""
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for line in canonical_lines(record):
            out.write(line + "\n")


def _with_texts(record: RecordReader, value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"text"} and isinstance(value["text"], int):
            return record.text(value["text"]).decode(errors="backslashreplace")
        return {key: _with_texts(record, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_texts(record, item) for item in value]
    return value


def _line(table: str, body: dict[str, Any]) -> str:
    return json.dumps({"table": table, **body}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
