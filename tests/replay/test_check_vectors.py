"""tools/check-vectors: what it prints, its exit codes, and that it notices every change of a recording."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmk.replay.__main__ import main
from lmk.replay.mutate import mutations
from lmk.replay.run import replay
from lmk.replay.vectors import find_files, read_scenarios

ROOT = Path(__file__).resolve().parents[2]
SUBSET = ROOT / "tests" / "data" / "vectors"
PSI = SUBSET / "lmkd" / "aosp-2023-11" / "psi.jsonl.zst"

Change = Callable[[dict[str, Any]], None]


def run(*arguments: str | Path) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = main([*map(str, arguments), "--jobs", "1"], out)
    return code, out.getvalue().splitlines()


def changed(folder: Path, change: Change, source: Path = PSI) -> Path:
    """A copy of recordings, plain JSON lines, with each ``expect`` changed."""
    copy = folder / "aosp-2023-11" / "changed.jsonl"
    copy.parent.mkdir()
    lines = []
    for scenario in read_scenarios(source):
        change(scenario.expect)
        lines.append(json.dumps({**scenario.script, "expect": scenario.expect}))
    copy.write_text("\n".join(lines))
    return copy


def nothing(_: dict[str, Any]) -> None:
    """Leave it as it was."""


def later_kill(expect: dict[str, Any]) -> None:
    """The first kill one adj higher."""
    record = next(record for record in expect["trace"] if "kill" in record)
    record["kill"][0][3] += 1


def other_internals(expect: dict[str, Any]) -> None:
    """Another thrashing value in the first decision."""
    next(record for record in expect["trace"] if "dbg" in record)["dbg"][0][3] += 5


def test_matching_recordings() -> None:
    code, lines = run(SUBSET)
    assert code == 0
    assert lines[-1].startswith("matched 75 of 75 scenarios, ")
    matched, total = lines[-1].split(", ")[1].removesuffix(" kills").split(" of ")
    assert matched == total and int(total) > 100


def test_plain_json_lines(tmp_path: Path) -> None:
    code, lines = run(changed(tmp_path, nothing))
    assert (code, lines[-1].split(",")[0]) == (0, "matched 3 of 3 scenarios")


def test_a_difference_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    code, lines = run(changed(tmp_path, later_kill))
    assert code == 1
    assert lines[-1].startswith("matched 0 of 3 scenarios, ")
    assert "kills at " in lines[0] and "changed.jsonl:1" in lines[0]


def test_first_stops_at_the_first_difference(tmp_path: Path) -> None:
    code, lines = run(changed(tmp_path, later_kill), "--first")
    assert code == 1
    assert lines[-1].startswith("matched 0 of 1 scenarios, ")
    assert any(line.startswith("  first difference: kills at ") for line in lines)


def test_explain_shows_internal_values_and_the_rule(tmp_path: Path) -> None:
    code, lines = run(changed(tmp_path, other_internals), "--first", "--explain")
    assert code == 1
    (row,) = [line for line in lines if line.split()[:1] == ["thrashing_pct"]]
    _, recorded, ours, mark = row.split()
    assert int(recorded) == int(ours) + 5 and mark == "<--"
    assert any(line.startswith("  rule: ") for line in lines)


def test_kind_and_sample_choose() -> None:
    assert run(SUBSET, "--kind", "ctrl")[1][-1].startswith("matched 18 of 18 scenarios")
    code, lines = run(SUBSET, "--sample", "20")
    assert code == 0 and 20 <= int(lines[-1].split()[3]) <= 75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "/nowhere: no such file or directory"),
        ([str(SUBSET), "--kind", "psy"], "no scenario was chosen"),
        ([str(SUBSET / "SOURCE")], "not JSON"),
        ([str(ROOT / "tools")], "no *.jsonl or *.jsonl.zst files"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = run(*arguments)
    error = capsys.readouterr().err
    assert code == 2 and lines == []
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ['{"id": "a23-x"}', '{"id": 3', "[]", "7"])
def test_lines_that_are_no_scenarios(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    code, _ = run(path)
    assert code == 2
    assert f"{path}:1: " in capsys.readouterr().err


def test_a_recording_of_an_unknown_lmkd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scenario, *_) = read_scenarios(PSI)
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({**scenario.script, "id": "other-1", "expect": scenario.expect}))
    assert run(path)[0] == 2
    assert "cannot tell which lmkd was recorded" in capsys.readouterr().err


def test_every_changed_field_is_noticed() -> None:
    scenarios = [s for path in find_files([SUBSET]) for s in read_scenarios(path)]
    for _ in range(2):  # replaying leaves a scenario as it was
        assert all(replay(scenario).matched for scenario in scenarios)
    missed = [m for m in mutations(scenarios, 150, seed=7) if not m.detected]
    assert [(m.scenario, m.path, m.before, m.after) for m in missed] == []


def test_self_test_reports() -> None:
    code, lines = run(PSI, "--self-test", "--changes", "30")
    assert (code, lines[-1]) == (0, "noticed 30 of 30 changed fields")


def test_self_test_of_recordings_that_differ(tmp_path: Path) -> None:
    code, lines = run(changed(tmp_path, later_kill), "--self-test")
    assert code == 1 and lines[-1].startswith("unchanged, this already differs: ")


def test_the_tool_itself() -> None:
    tool = [ROOT / "tools" / "check-vectors", PSI]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("matched 3 of 3 scenarios, ")
