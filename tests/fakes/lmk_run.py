"""A stand-in for the ``python -m lmk run`` that ``lmk ci`` starts: prints planned answers, notes its arguments.

It is a program on the other side of a process boundary, as the real one is; nothing inside lmk is replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
argv = sys.argv[3:]
calls = folder / "calls.jsonl"
number = len(calls.read_text().splitlines()) if calls.exists() else 0
with calls.open("a") as log:
    log.write(json.dumps(argv) + "\\n")
answer = json.loads((folder / "plan.json").read_text())[number]
print(json.dumps(answer["body"]))
sys.exit(answer["exit"])
"""


class FakeRuns:
    """``plan`` what the next runs answer; ``calls`` are the arguments they got."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        program = folder / "python"
        program.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    def plan(self, *answers: dict[str, Any]) -> None:
        (self._folder / "plan.json").write_text(json.dumps(answers))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self._folder / "calls.jsonl").read_text().splitlines()]

    def good(self, **changes: Any) -> dict[str, Any]:
        body = _BODY | changes
        return {"exit": 0, "body": body}

    def disturbed(self, load: float) -> dict[str, Any]:
        return self.good(disturbed=True, host_load=load)

    def failed(self, name: str, observed: float, limit: dict[str, float | None]) -> dict[str, Any]:
        verdict = {"name": name, "met": False, "observed": observed, "limit": limit}
        return {"exit": 1, "body": _BODY | {"summary": _SUMMARY | {"expectations": [verdict]}}}

    def lost(self, cause: str) -> dict[str, Any]:
        return self.error(cause, 3, "target")

    def error(self, cause: str, exit_code: int, owner: str) -> dict[str, Any]:
        error = {"cause": cause, "remedy": "", "owner": owner, "exit_code": exit_code}
        return {"exit": exit_code, "body": {"schema": 1, "error": error}}


_SPREAD = {"n": 0, "p50": None, "p95": None, "max": None}
_SUMMARY: dict[str, Any] = {
    **dict.fromkeys(("kills", "cold_starts", "foreground_kills", "perceptible_kills", "kernel_oom_kills"), 0),
    **dict.fromkeys(("psi_some_ms", "psi_full_ms"), 0),
    "min_mem_available_kib": 400_000,
    "kills_by_reason": {},
    "launch_ms": {"cold": _SPREAD, "warm": _SPREAD},
    "event_to_signal_us": _SPREAD,
    "expectations": [],
}
_BODY: dict[str, Any] = {
    "schema": 1,
    "scenario": "quick",
    "seed": 1,
    "record": "/runs/x",
    "calibration": None,
    "disturbed": False,
    "host_load": 0.01,
    "kills": [],
    "summary": _SUMMARY,
}
