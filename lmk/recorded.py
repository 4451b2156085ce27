"""What every run does around itself, on a device or simulated: a record with its facts, how it ended, the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmk.config.expect import evaluate
from lmk.config.scenario import Scenario
from lmk.errors import LmkError
from lmk.record.reader import RecordReader
from lmk.record.writer import RecordWriter, update_meta
from lmk.report.summary import run_json


def record_run(
    run_dir: Path, facts: Mapping[str, Any], scenario: Scenario, play: Callable[[RecordWriter], str]
) -> dict[str, Any]:
    """Let ``play`` run, which says why it ended; returns the run's JSON object.

    The record is complete up to any failure, which is raised. The scenario's expectations are judged on what was
    recorded, and the verdicts are stored.
    """
    with RecordWriter(run_dir) as writer:
        writer.meta(facts)
        why, complete = "cut short", False
        try:
            why, complete = play(writer), True
        except BaseException as error:
            why = error.cause if isinstance(error, LmkError) else type(error).__name__
            raise
        finally:
            writer.meta({"complete": complete, "why": why})
    with RecordReader(run_dir) as reader:
        verdicts = evaluate(scenario.expect, run_json(reader))
    update_meta(run_dir, {"expectations": verdicts})
    with RecordReader(run_dir) as reader:
        return run_json(reader)
