"""The committed baseline: every cell's figures over repeated runs, with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from lmk.backends.accel import find_accel
from lmk.ci.judge import metric_values
from lmk.ci.matrix import Cell
from lmk.errors import HostError, UserError

BASELINE_SCHEMA: Final = 1
#: Figures that say as much of the host as of the policy: compared only where the baseline's host is like this one.
HOST_METRICS: Final = frozenset(
    {
        "launch_cold_p50_ms",
        "launch_warm_p95_ms",
        "psi_some_ms",
        "psi_full_ms",
        "event_to_signal_p50_ms",
        "reaped_p95_ms",
    }
)


@attrs.frozen(kw_only=True)
class CellBaseline:
    """One cell: values by metric, and ``host`` (None for a simulated cell, which is the same everywhere)."""

    values: Mapping[str, Sequence[float]]
    host: str | None


@attrs.frozen
class Baseline:
    """All cells of one matrix by key."""

    cells: Mapping[str, CellBaseline]

    def values(self, cell: Cell) -> Mapping[str, Sequence[float]]:
        """What a cell is held against here; without times where another kind of host measured them."""
        found = self.cells.get(cell.key)
        if found is None:
            return {}
        if found.host is None or found.host == host_kind():
            return found.values
        return {name: values for name, values in found.values.items() if name not in HOST_METRICS}


def host_kind() -> str:
    """What times depend on: processor, number of cores, and whether guests run under KVM."""
    return f"{_processor()}, {os.cpu_count()} cores, {'kvm' if _runs_kvm() else 'no kvm'}"


def _runs_kvm() -> bool:
    try:
        return find_accel().proven
    except HostError:
        return False


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def cell_baseline(cell: Cell, runs: Sequence[Mapping[str, Any]]) -> CellBaseline:
    """What repeated runs of a cell teach."""
    return CellBaseline(values=metric_values(runs), host=None if cell.target == "sim" else host_kind())


def read_baseline(path: Path) -> Baseline | None:
    """The baseline in a file; None if there is no file. UserError if it is none of ours."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["schema"] != BASELINE_SCHEMA:
            raise UserError(f"{path}: baseline schema {body['schema']}, expected {BASELINE_SCHEMA}", _LEARN)
        cells = {key: CellBaseline(values=cell["values"], host=cell["host"]) for key, cell in body["cells"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a baseline: {error}", _LEARN) from None
    return Baseline(cells)


_LEARN: Final = "learn a new one: lmk ci --update-baseline"


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write it so that a reader sees the old file or the new one. UserError if it cannot be written."""
    body = {
        "schema": BASELINE_SCHEMA,
        "cells": {key: attrs.asdict(cell) for key, cell in sorted(baseline.cells.items())},
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(_lines(body), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"{path}: {error.strerror}", "give a --baseline file you may write") from None


def _lines(body: Mapping[str, Any]) -> str:
    """JSON with one metric a line: a change of the baseline should read well as a diff."""
    cells = []
    for key, cell in body["cells"].items():
        rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(values)}" for name, values in cell["values"].items())
        cells.append(f'  {json.dumps(key)}: {{"host": {json.dumps(cell["host"])}, "values": {{\n{rows}}}}}')
    joined = ",\n".join(cells)
    return f'{{"schema": {body["schema"]}, "cells": {{\n{joined}}}}}\n'
