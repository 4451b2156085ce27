"""The study's file: SQLite, written by the coordinator alone, one transaction for each thing that happened.

Whatever is in it has happened once: a run's figures have the trial and the place of the run as their key. A process
that is killed loses at most the runs under way, and those are made again with the same result.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from lmk.errors import UserError
from lmk.tune.jobs import Outcome

SCHEMA: Final = 1
_DDL: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trial (
    number INTEGER PRIMARY KEY, batch INTEGER NOT NULL, params TEXT NOT NULL, sampler TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS run (
    trial INTEGER NOT NULL REFERENCES trial, place INTEGER NOT NULL, figures TEXT NOT NULL, error TEXT,
    PRIMARY KEY (trial, place)
);
"""


@attrs.frozen(kw_only=True)
class TrialRow:
    """A trial as it was asked for; ``sampler``: what the sampler wants to find again."""

    number: int
    batch: int
    params: Mapping[str, int | bool]
    sampler: Mapping[str, Any]


class Journal:
    """Opens or begins a study's file. ``resume`` False: the file must be new. Raises UserError."""

    def __init__(self, path: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        if path.exists() and not resume:
            raise UserError(f"--study {path}: is there already", "add --resume to go on with it, or name a new file")
        if resume and not path.exists():
            raise UserError(f"--study {path}: there is no such study", "leave out --resume to begin one")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"--study {path}: {error.strerror}", "give a file you may write") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UserError(f"--study {path}: another lmk tune is at work on it", "wait for it, or stop it") from None
        try:
            self._open(facts)
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise UserError(f"--study {path}: is no study: {error}", "name another file") from None
        except UserError:
            self.close()
            raise

    def _open(self, facts: Mapping[str, Any]) -> None:
        self._database = sqlite3.connect(self.path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        # Safe against the end of this process at any moment; a power cut may take the last transactions, whole.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_DDL)
        wanted = {"schema": SCHEMA, **facts}
        found = {key: json.loads(value) for key, value in self._database.execute("SELECT key, value FROM meta")}
        if not found:
            rows = [(key, json.dumps(value)) for key, value in wanted.items()]
            with self._database:
                self._database.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        for key in wanted:
            if found and found.get(key) != json.loads(json.dumps(wanted[key])):
                raise UserError(
                    f"--study {self.path}: was begun with another {key}", "use the same command line, or a new file"
                )

    def close(self) -> None:
        """Close the file; what is in it stays. The lock goes last, and with it SQLite's own locks."""
        self._database.close()
        os.close(self._lock)

    def add_trials(self, rows: Sequence[TrialRow]) -> None:
        """A batch, all or nothing."""
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO trial VALUES (?, ?, ?, ?)",
            [(row.number, row.batch, json.dumps(dict(row.params)), json.dumps(dict(row.sampler))) for row in rows],
        )
        self._database.execute("COMMIT")

    def add_run(self, trial: int, place: int, outcome: Outcome) -> None:
        """A run's figures. IntegrityError if they are there: nothing is counted twice."""
        self._database.execute(
            "INSERT INTO run VALUES (?, ?, ?, ?)", (trial, place, json.dumps(dict(outcome.figures)), outcome.error)
        )

    def trials(self) -> list[TrialRow]:
        """In order."""
        rows = self._database.execute("SELECT number, batch, params, sampler FROM trial ORDER BY number")
        return [
            TrialRow(number=number, batch=batch, params=json.loads(params), sampler=json.loads(sampler))
            for number, batch, params, sampler in rows
        ]

    def runs(self) -> dict[int, dict[int, Outcome]]:
        """Every run's outcome by trial and place."""
        found: dict[int, dict[int, Outcome]] = {}
        for trial, place, figures, error in self._database.execute("SELECT trial, place, figures, error FROM run"):
            found.setdefault(trial, {})[place] = Outcome(figures=json.loads(figures), error=error)
        return found
