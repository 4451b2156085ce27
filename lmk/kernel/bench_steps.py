"""What a measurement consists of, its rows as a guest prints them, and the finished steps kept in the cache.

A step is measured in one go, since times compare only with what was measured beside them; what is finished is kept,
so that an interrupted measurement goes on with the next step. A kept step is named by everything that it depends on:
the kernel, the guest program, its arguments and the guest itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmk import resources

#: Parts in the order in which they run; sharing comes last, for its processes stay until the guest goes down.
#: "instructions" is a guest of its own.
PARTS = ("groups", "speed", "verdicts", "sharing", "instructions")
#: Scenes of groups.c, each a step of its own.
SCENES = (
    "1 process",
    "8 processes",
    "64 processes",
    "500 processes",
    "8, on a starved CPU",
    "8, one in D state",
    "fork storm",
)
#: The longest that one row may take (the limits given to ``isolated()``), and the end of what it started.
ROW_LIMIT_S = 120 + 15
#: Rows by which the guest says that something was not measured.
FAILURES = ("failed", "overdue", "left_out", "lost")
_SEED = 1
_INSTRUCTION_PROCESSES = (0, 1000)

Rows = dict[str, list[dict[str, Any]]]


@attrs.frozen(kw_only=True)
class Step:
    """One call of the guest program. No row begins later than ``limit_s`` after the first.

    ``counted``: in the guest whose clock counts instructions.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: int
    counted: bool = False

    @property
    def bound_s(self) -> int:
        """When it is over in any case."""
        return self.limit_s + ROW_LIMIT_S


def plan(parts: Sequence[str], processes: Sequence[int], rounds: int) -> list[Step]:
    """The steps of these parts, in the order in which they run."""
    sharing = ("sharing", *map(str, processes))
    counted_sharing = ("sharing", *map(str, _INSTRUCTION_PROCESSES))
    steps = {
        "groups": [Step(name=f"groups: {name}", arguments=("groups", name), limit_s=300) for name in SCENES],
        "speed": [Step(name="speed", arguments=("speed",), limit_s=120)],
        "verdicts": [Step(name="verdicts", arguments=("verdicts", str(rounds), str(_SEED)), limit_s=60)],
        "sharing": [Step(name="sharing", arguments=sharing, limit_s=240)],
        "instructions": [
            Step(name="instructions: speed", arguments=("speed",), limit_s=120, counted=True),
            Step(name="instructions: sharing", arguments=counted_sharing, limit_s=240, counted=True),
        ],
    }
    return [step for part in PARTS if part in parts for step in steps[part]]


def parse_row(line: str) -> dict[str, Any] | None:
    """The row in a line of console output; None where there is none, or a kernel message cut it in two."""
    if not line.startswith('{"row"'):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("row"), str) else None


@attrs.define(kw_only=True)
class Measured:
    """What was seen of a step. ``done``: it came to its end, and no row is missing or failed."""

    step: Step
    rows: Rows = attrs.field(factory=dict)
    done: bool = False

    def add(self, row: dict[str, Any]) -> None:
        """A row as parsed."""
        self.rows.setdefault(row["row"], []).append({key: value for key, value in row.items() if key != "row"})

    def end(self, exit_code: int, printed: int | None) -> None:
        """The program ended and had printed so many rows (None: it did not say)."""
        seen = sum(len(rows) for rows in self.rows.values())
        if exit_code != 0 or printed is None:
            self.add({"row": "failed", "what": self.step.name, "status": exit_code})
        elif seen != printed:
            self.add({"row": "lost", "what": self.step.name, "why": f"{printed - seen} rows did not come through"})
        self.done = not any(kind in self.rows for kind in FAILURES)


class Collector:
    """Sorts the rows of a guest's console by step while they come."""

    def __init__(self, steps: Sequence[Step], begun: Callable[[Step], None], ended: Callable[[Measured], None]) -> None:
        self._steps = {step.name: step for step in steps}
        self._begun = begun
        self._ended = ended
        self._printed: int | None = None
        self.current: Measured | None = None
        #: Steps that ended, well or not.
        self.count = 0

    def line(self, text: str) -> None:
        """One line of the console."""
        row = parse_row(text)
        if row is None:
            return
        if row["row"] == "begin" and row.get("step") in self._steps:
            self.close("the line that says how it ended did not come through")
            self.current, self._printed = Measured(step=self._steps[row["step"]]), None
            self._begun(self.current.step)
        elif self.current is not None and row["row"] == "total":
            self._printed = row["rows"]
        elif self.current is not None and row["row"] == "end":
            self.current.end(row["exit"], self._printed)
            self._close()
        elif self.current is not None:
            self.current.add(row)

    def close(self, why: str, console: str = "") -> None:
        """Nothing more comes of the step that is being measured, if there is one."""
        if self.current is not None:
            self.current.add({"row": "lost", "what": self.current.step.name, "why": why, "console": console})
            self._close()

    def _close(self) -> None:
        assert self.current is not None
        self._ended(self.current)
        self.current = None
        self.count += 1


def script(setup: str, steps: Sequence[Step]) -> str:
    """The guest's shell script: each step between two rows that say so."""
    lines = [setup]
    for step in steps:
        arguments = " ".join(f'"{argument}"' for argument in step.arguments)
        lines.append(f"echo '{json.dumps({'row': 'begin', 'step': step.name})}'")
        lines.append(f"/reap_bench -t {step.limit_s} {arguments}")
        lines.append('echo \'{"row": "end", "exit": \'$?\'}\'')
    return "\n".join(lines) + "\n"


@attrs.frozen(kw_only=True)
class Results:
    """Finished steps of one kernel in the cache. ``inputs``: what else they depend on."""

    kernel_key: str
    inputs: str

    def _file(self, step: Step) -> Path:
        digest = hashlib.sha256(repr((self.inputs, step)).encode()).hexdigest()[:16]
        return resources.cache_dir("kernel", "bench", "results", self.kernel_key) / f"{digest}.json"

    def load(self, step: Step) -> tuple[Rows, str] | None:
        """Rows and when they were measured (ISO 8601, UTC); None where the step is not kept."""
        try:
            kept = json.loads(self._file(step).read_text())
            return kept["rows"], kept["measured"]
        except (OSError, ValueError, KeyError):
            return None

    def forget(self, step: Step) -> None:
        """Measure it again."""
        self._file(step).unlink(missing_ok=True)

    def store(self, measured: Measured, when: str) -> None:
        """Keep a finished step, whole or not at all."""
        file = self._file(measured.step)
        scratch = file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"step": measured.step.name, "measured": when, "rows": measured.rows}))
        scratch.rename(file)
