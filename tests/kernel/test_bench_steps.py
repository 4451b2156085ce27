"""The measurement in steps: what a guest's console says about each, what is kept, and how it goes on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest

from lmk import resources
from lmk.errors import BootError, InfraError
from lmk.kernel import bench
from lmk.kernel.bench_steps import SCENES, Collector, Measured, Results, Step, parse_row, plan, script
from lmk.kernel.cache import KernelImage

A = Step(name="a", arguments=("speed",), limit_s=1)
B = Step(name="b", arguments=("groups", "8, one in D state"), limit_s=2)


def console(step: Step, *rows: str, exit_code: int = 0, printed: int | None = None) -> list[str]:
    total = len(rows) if printed is None else printed
    begin, end = f'{{"row": "begin", "step": "{step.name}"}}', f'{{"row": "end", "exit": {exit_code}}}'
    return [begin, *rows, f'{{"row": "total", "rows": {total}}}', end]


def collected(lines: Sequence[str], steps: Sequence[Step] = (A, B)) -> list[Measured]:
    found: list[Measured] = []
    collector = Collector(steps, lambda step: None, found.append)
    for line in lines:
        collector.line(line)
    collector.close("cut")
    return found


def test_rows_are_found_among_other_lines() -> None:
    assert parse_row('{"row": "hits", "reader": true}') == {"row": "hits", "reader": True}
    for line in ("booting", '{"row": "hits", "rea[ 1.0] kernel', '{"row": 3}', '[1.0] {"row": "hits"}'):
        assert parse_row(line) is None


def test_rows_belong_to_the_step_between_its_lines() -> None:
    lines = ["boot", *console(A, '{"row": "x", "n": 1}', '{"row": "x", "n": 2}'), *console(B, '{"row": "y"}')]
    first, second = collected(lines)
    assert (first.step, first.rows, first.done) == (A, {"x": [{"n": 1}, {"n": 2}]}, True)
    assert (second.step, second.rows, second.done) == (B, {"y": [{}]}, True)


@pytest.mark.parametrize("kind", ["overdue", "left_out", "failed"])
def test_a_step_with_a_row_that_went_wrong_is_not_done(kind: str) -> None:
    (measured,) = collected(console(A, '{"row": "x"}', f'{{"row": "{kind}", "what": "w"}}'))
    assert not measured.done
    assert measured.rows["x"] == [{}]


def test_rows_that_did_not_come_through_are_missed() -> None:
    (measured,) = collected(console(A, '{"row": "x"}', printed=2))
    assert not measured.done
    assert measured.rows["lost"] == [{"what": "a", "why": "1 rows did not come through"}]


def test_a_program_that_failed_is_not_done() -> None:
    (measured,) = collected(console(A, exit_code=2))
    assert measured.rows == {"failed": [{"what": "a", "status": 2}]}


def test_a_step_without_an_end_is_lost() -> None:
    first, second = collected([*console(A)[:-1], *console(B)])
    assert not first.done and "did not come through" in first.rows["lost"][0]["why"]
    assert second.done


def test_the_script_says_what_begins_and_how_it_ended(tmp_path: Path) -> None:
    program = tmp_path / "reap_bench"
    program.write_text('#!/bin/sh\necho "$@"; exit 3\n')
    program.chmod(0o755)
    text = script("", [A, B]).replace("/reap_bench", str(program))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout.splitlines() == [
        '{"row": "begin", "step": "a"}',
        "-t 1 speed",
        '{"row": "end", "exit": 3}',
        '{"row": "begin", "step": "b"}',
        "-t 2 groups 8, one in D state",
        '{"row": "end", "exit": 3}',
    ]


def test_parts_run_in_their_order_and_the_scenes_are_the_programs() -> None:
    steps = plan(["instructions", "sharing", "groups"], (0, 5), 3)
    names = [step.name for step in steps]
    assert names == [*(f"groups: {name}" for name in SCENES), "sharing", "instructions: speed", "instructions: sharing"]
    assert steps[len(SCENES)].arguments == ("sharing", "0", "5")
    source = (resources.data_dir("android-kernel-patch") / "bench" / "groups.c").read_text()
    assert tuple(re.findall(r'\{ \.name = "([^"]+)"', source)) == SCENES


def test_no_row_takes_longer_than_the_guest_may_be_silent() -> None:
    for file in (resources.data_dir("android-kernel-patch") / "bench").glob("*.c"):
        for limit_s in re.findall(r"\tisolated\([^;]*?, (\d+), \w+, [^;]*;", file.read_text()):
            assert int(limit_s) <= 120, file.name


def test_kept_steps_are_those_of_the_same_inputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMK_CACHE", str(tmp_path))
    results = Results(kernel_key="k", inputs="program")
    measured = Measured(step=A, rows={"x": [{"n": 1}]}, done=True)
    results.store(measured, "2026-01-02T03:04:05+00:00")
    assert results.load(A) == ({"x": [{"n": 1}]}, "2026-01-02T03:04:05+00:00")
    assert results.load(B) is None
    assert results.load(attrs.evolve(A, counted=True)) is None
    assert Results(kernel_key="k", inputs="another").load(A) is None
    assert Results(kernel_key="other", inputs="program").load(A) is None


# --- a whole run, with a guest that is only its console

Guest = Callable[[Callable[[str], None]], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[bench.BenchRows, list[str]]]:
    """Runs the measurement with these guests, one after the other; what it found, and what each was asked."""
    monkeypatch.setenv("LMK_CACHE", str(tmp_path))
    program = tmp_path / "reap_bench"
    program.write_text("")
    monkeypatch.setattr(bench, "bench_program", lambda arch: program)
    image = KernelImage(
        image=tmp_path, config=tmp_path, release="6.0", base="6.12", arch="x86_64", key="key", patched=True
    )

    def runner(
        guests: Sequence[Guest], parts: Sequence[str] = ("speed", "verdicts"), *, fresh: bool = False
    ) -> tuple[bench.BenchRows, list[str]]:
        asked: list[str] = []

        def fake(kernel: object, text: str, files: object, *, on_line: Callable[[str], None], **_: object) -> None:
            asked.append(" ".join(re.findall(r'"step": "([^"]+)"', text)))
            guests[len(asked) - 1](on_line)

        monkeypatch.setattr(bench, "run_trial", fake)
        return bench.run_bench(image, parts=parts, fresh=fresh), asked

    return runner


def says(*lines: str) -> Guest:
    def guest(on_line: Callable[[str], None]) -> None:
        for line in lines:
            on_line(line)

    return guest


def goes_down(*lines: str, error: Exception | None = None) -> Guest:
    def guest(on_line: Callable[[str], None]) -> None:
        says(*lines)(on_line)
        raise error or BootError("the guest died", detail="Oops")

    return guest


SPEED, VERDICTS = plan(["speed", "verdicts"], bench.PROCESSES, 500)
SPEED_LINES = console(SPEED, '{"row": "speed", "n": 1}')
VERDICTS_LINES = console(VERDICTS, '{"row": "verdicts", "n": 2}')


def test_an_interrupted_run_goes_on(run: Callable[..., tuple[bench.BenchRows, list[str]]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run([goes_down(*SPEED_LINES, VERDICTS_LINES[0], error=KeyboardInterrupt())])  # type: ignore[arg-type]
    rows, asked = run([says(*VERDICTS_LINES)])
    assert asked == ["verdicts"]
    assert rows.rows == {"speed": [{"n": 1}], "verdicts": [{"n": 2}]}
    assert list(rows.kept) == ["speed"]
    rows, asked = run([])
    assert (asked, list(rows.kept)) == ([], ["speed", "verdicts"])
    rows, asked = run([says(*SPEED_LINES, *VERDICTS_LINES)], fresh=True)
    assert (asked, rows.kept) == (["speed verdicts"], {})
    # An interrupted fresh run, too, goes on with what it had not come to.
    with pytest.raises(KeyboardInterrupt):
        run([goes_down(*SPEED_LINES, error=KeyboardInterrupt())], fresh=True)  # type: ignore[arg-type]
    _, asked = run([says(*VERDICTS_LINES)])
    assert asked == ["verdicts"]


def test_another_guest_goes_on_after_the_step_that_ended_one(
    run: Callable[..., tuple[bench.BenchRows, list[str]]],
) -> None:
    rows, asked = run([goes_down(SPEED_LINES[0], SPEED_LINES[1]), says(*VERDICTS_LINES)])
    assert asked == ["speed verdicts", "verdicts"]
    assert rows.of("lost") == [{"what": "speed", "why": "the guest died", "console": "Oops"}]
    assert rows.of("speed") == [{"n": 1}]
    # What went wrong is not kept.
    _, asked = run([says(*SPEED_LINES)])
    assert asked == ["speed"]


def test_a_guest_that_begins_nothing_is_an_error(run: Callable[..., tuple[bench.BenchRows, list[str]]]) -> None:
    with pytest.raises(BootError):
        run([goes_down("boot")])
    with pytest.raises(InfraError, match="began no measurement"):
        run([says("boot")])
    # It went down between two steps: the rest is for another one.
    rows, asked = run([goes_down(*SPEED_LINES), says(*VERDICTS_LINES)])
    assert asked == ["speed verdicts", "verdicts"]
    assert not rows.of("lost")
