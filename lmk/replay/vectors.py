"""Recordings of the real lmkd: finding, reading, and splitting what the code may see from what it must do.

One line of a ``*.jsonl`` or ``*.jsonl.zst`` file is one scenario. `Scenario.script` describes the world;
`Scenario.expect` is what the recorded daemon did and is given to the comparer only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from lmk.errors import HostError, UserError

#: Directory names and id prefixes of the recordings -> the behaviour that was recorded.
VARIANTS = {
    "aosp-2023-11": "14Q2",
    "a23": "14Q2",
    "aosp-2025-03": "16",
    "a25": "16",
    "fork-2023-12": "fork-2023-12",
    "fork": "fork-2023-12",
}
_FIELDS = {"id", "kind", "cfg", "props", "mi", "vs", "psi", "zi", "procs", "steps", "end"}
_EXPECTED = {"init", "trace", "end"}
SUFFIXES = (".jsonl", ".jsonl.zst")


@attrs.frozen(kw_only=True)
class Scenario:
    """One recorded scenario. ``script`` holds everything but ``expect``."""

    source: Path
    line: int
    variant: str
    script: dict[str, Any]
    expect: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.script["id"])

    @property
    def kind(self) -> str:
        return str(self.script["kind"])

    @property
    def kills(self) -> int:
        """Kills that were recorded."""
        return sum(len(record.get("kill", ())) * repeats(record) for record in self.expect["trace"])


def repeats(record: dict[str, Any]) -> int:
    """For how many equal handler calls a record stands."""
    return int(record["run"][0]) if "run" in record else 1


def find_files(paths: list[Path]) -> list[Path]:
    """Recordings under files and directories, sorted. UserError: nothing there."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES)]
            if not inside:
                raise UserError(f"{path}: no *.jsonl or *.jsonl.zst files", "name a directory of recordings")
            found += sorted(inside)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or directory", "name recordings or a directory of them")
    return found


def count_scenarios(path: Path) -> int:
    """Lines of one file, unread."""
    return sum(1 for _ in _lines(path))


def read_scenarios(path: Path, first: int = 0, count: int | None = None, every: int = 1) -> Iterator[Scenario]:
    """Scenarios of one file: ``count`` lines from ``first`` on, of those each ``every``-th of the file.

    UserError names file and line of what cannot be read.
    """
    last = None if count is None else first + count
    for number, text in enumerate(islice(_lines(path), first, last), start=first):
        if number % every == 0 and text.strip():
            yield parse_scenario(text, path, number + 1)


def parse_scenario(text: str, path: Path, number: int) -> Scenario:
    """One line. UserError: not a scenario of this schema."""
    where = f"{path}:{number}"
    try:
        script = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}", "check the file") from error
    if not isinstance(script, dict):
        raise UserError(f"{where}: not a JSON object", "this is not a recorded scenario")
    expect = script.pop("expect", None)
    missing = _FIELDS - set(script)
    missing |= _EXPECTED - set(expect) if isinstance(expect, dict) else {"expect"}
    if missing:
        raise UserError(f"{where}: no {', '.join(sorted(missing))}", "this is not a recorded scenario")
    return Scenario(
        source=path, line=number, variant=_variant(path, str(script["id"]), where), script=script, expect=expect
    )


def _variant(path: Path, name: str, where: str) -> str:
    for word in (*reversed(path.parent.parts), name.split("-")[0]):
        if word in VARIANTS:
            return VARIANTS[word]
    raise UserError(
        f"{where}: cannot tell which lmkd was recorded",
        f"put it in a directory named {', '.join(k for k in VARIANTS if '-' in k)}",
    )


def _lines(path: Path) -> Iterator[str]:
    if not path.name.endswith(".zst"):
        with path.open(encoding="utf-8") as stream:
            yield from stream
        return
    try:
        import zstandard
    except ImportError as error:
        raise HostError(f"{path}: reading .zst needs the zstandard package", "pip install zstandard") from error
    with path.open("rb") as packed:
        try:
            yield from io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8")
        except zstandard.ZstdError as error:
            raise UserError(f"{path}: not zstd data: {error}", "check the file") from error
