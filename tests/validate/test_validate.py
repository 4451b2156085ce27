"""Whole validations, with the simulator itself in the emulator's place: what is kept, resumed, cut and told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lmk.cli import validate as verb
from lmk.cli.main import main
from lmk.cli.validate_tables import tables
from lmk.config.calibration import Calibration, find_calibration, load_calibration
from lmk.config.device import load_device_config
from lmk.config.find import find_config, find_scenario
from lmk.config.scenario import load_scenario
from lmk.config.timeline import compile_timeline
from lmk.errors import TargetError, UserError
from lmk.live.watcher import Watcher
from lmk.policy.scheduled import ScheduledPolicy
from lmk.record.reader import RecordReader
from lmk.record.writer import update_meta
from lmk.sim.run import SimPlan, run_sim
from lmk.validate import runs
from lmk.validate.closedloop import oldest_cached
from lmk.validate.inputs import Input, make_input
from lmk.validate.ranking import SETTINGS
from lmk.validate.runs import kept_runs, make_runs, open_loop, view
from lmk.validate.window import OPENING_MS, Window, cut, parse_window, starting_table

WINDOW = "20s+10s"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))


def rates() -> Calibration:
    return load_calibration(find_calibration("emulator-tcg"))


def piece(seed: int = 1) -> Input:
    config, scenario = load_device_config(find_config("phone-2gb")), load_scenario(find_scenario("app-switching"))
    return make_input(config, scenario, rates(), seed=seed, window=parse_window(WINDOW))


def simulated(*, disturbed: bool) -> Callable[[Input, Path, Watcher], None]:
    """A run as the emulator leaves it, made by the simulator."""

    def make(given: Input, run_dir: Path, watcher: Watcher) -> None:
        policy = given.make_policy()
        run_sim(
            SimPlan(
                config=given.config,
                calibration=rates(),
                scenario=given.scenario,
                timeline=given.timeline,
                policy_name=policy.name,
                make_policy=lambda: policy,
                run_dir=run_dir,
                on_started=policy.begin if isinstance(policy, ScheduledPolicy) else lambda _: None,
            )
        )
        update_meta(run_dir, {"disturbed": disturbed})

    return make


def test_runs_are_kept_and_not_made_again() -> None:
    given, made = piece(), simulated(disturbed=False)
    first = make_runs(given, 1, Watcher(), until_s=float("inf"), make_run=made)
    both = make_runs(given, 2, Watcher(), until_s=float("inf"), make_run=made)
    assert both[0] == first[0] and len(both) == 2
    assert make_runs(given, 2, Watcher(), until_s=float("-inf"), make_run=made) == both
    assert kept_runs(piece(seed=2)) == []


def test_disturbed_runs_count_for_nothing() -> None:
    with pytest.raises(TargetError, match="disturbed"):
        make_runs(piece(), 1, Watcher(), until_s=float("inf"), make_run=simulated(disturbed=True))
    assert kept_runs(piece()) == []


def test_open_loop_repeats_the_kills_of_a_run() -> None:
    given = piece()
    path = make_runs(given, 1, Watcher(), until_s=float("inf"), make_run=simulated(disturbed=False))[0]
    real = view(path, given.from_ms)
    prediction, missed = open_loop(given, rates(), path)
    assert real.kills and missed == 0
    assert [kill.name for kill in prediction.kills] == [kill.name for kill in real.kills]
    assert all(
        abs(a.t_ms - b.t_ms) < 50 for a, b in zip(prediction.kills, real.kills, strict=True)
    )  # the way to the signal
    # The same model with the same input: its curves are all but the same, but for what lmkd's own looks took.
    pairs = list(zip(prediction.curves.mem_available_kib, real.curves.mem_available_kib, strict=True))
    assert sum(abs(a - b) for a, b in pairs) < 0.1 * sum(b for _, b in pairs)


def test_the_chance_baseline_names_somebody_for_each_kill_while_anybody_is_cached() -> None:
    given = piece()
    path = make_runs(given, 1, Watcher(), until_s=float("inf"), make_run=simulated(disturbed=False))[0]
    real = view(path, given.from_ms)
    baseline = oldest_cached(real, given.timeline)
    named = {kill.t_ms for kill in baseline}
    assert len(named) == len(baseline) > 0
    assert named >= {kill.t_ms for kill in real.kills if kill.tier == "cached"}
    assert named <= {kill.t_ms for kill in real.kills}
    assert all(kill.name.startswith("com.example.") for kill in baseline)


@pytest.fixture
def instead_of_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    made = simulated(disturbed=False)
    monkeypatch.setattr(verb, "check_target", lambda *_, **__: None)
    monkeypatch.setattr(verb, "make_runs", lambda *a, **k: make_runs(*a, make_run=made, **k))


WORDS = ["validate", "phone-2gb", "app-switching", "--runs", "2", "--ranking-runs", "2"]


@pytest.mark.usefixtures("instead_of_the_emulator")
def test_the_verb_compares_resumes_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--window", WINDOW, "--parts", "open,closed"]
    assert main([*words, "--minutes", "0", "--json"]) == 1
    nothing = json.loads(capsys.readouterr().out)
    assert nothing["complete"] is False and nothing["scenarios"][0]["open_loop"] is None
    main([*words, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["complete"] is True and result["calibration"]["class"] == "emulator-tcg"
    assert result["ranking"] is None
    (loop,) = result["scenarios"]
    # Its record has a sample every quarter of a second, not one for each look of lmkd at the device.
    assert loop["open_loop"]["median"] < 0.25
    assert loop["closed_loop"]["f1"]["emulator"]["mean"] == 1
    text = Console(width=200, file=io.StringIO())
    text.print(tables(result))
    assert isinstance(text.file, io.StringIO)
    assert "(A) open loop" in (out := text.file.getvalue()) and "(B) closed loop" in out


@pytest.mark.usefixtures("instead_of_the_emulator")
def test_the_verb_repeats_runs_with_their_own_kills(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--window", WINDOW, "--parts", "open", "--json"]
    main([*words, "--repeats", "1"])
    result = json.loads(capsys.readouterr().out)
    (loop,) = result["scenarios"]
    assert result["complete"] is True and len(loop["records"]) == 2
    # The simulator stands in for the emulator here: what it repeats is what it predicts.
    assert loop["open_loop"]["median_repeated"] == loop["open_loop"]["median"]
    text = Console(width=200, file=io.StringIO())
    text.print(tables(result))
    assert isinstance(text.file, io.StringIO)
    assert "the emulator with the same kills: median" in text.file.getvalue()
    main(words)
    assert json.loads(capsys.readouterr().out)["scenarios"][0]["open_loop"]["median_repeated"] is None


@pytest.mark.usefixtures("instead_of_the_emulator")
def test_the_verb_ranks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = dict(list(SETTINGS.items())[:3])
    monkeypatch.setattr(verb, "SETTINGS", few)
    main([*WORDS, "--window", "20s+4s", "--parts", "ranking", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["complete"] is True and result["scenarios"] == []
    assert [len(table["rows"]) for table in result["ranking"]["tables"]] == [3, 3]
    text = Console(width=200, file=io.StringIO())
    text.print(tables(result))
    assert isinstance(text.file, io.StringIO) and "(C) ranking" in text.file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["phone-2gb", "day"], "too long for the emulator"),
        (["phone-2gb", "day", "--window", "9h"], "START+LEN, for example 9h+60s"),
        (["phone-2gb", "day", "--window", "9h+5min"], "not a piece of at most two minutes"),
        (["phone-2gb", "day", "--window", "30h+60s"], "choose an earlier one"),
        (["phone-2gb", "app-switching", "--parts", "some"], "--parts some: no such part"),
        (["phone-2gb", "app-switching", "--runs", "1"], "no spread"),
        (["phone-2gb", "app-switching", "--calibration", "published"], "its class is published"),
        (["phone-2gb", "app-switching", "--minutes", "-1"], "is negative"),
        (["no-such", "app-switching"], "no shipped device config"),
    ],
)
def test_user_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "check_target", lambda *_, **__: None)
    assert main(["validate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_window_of_a_day_begins_with_what_fits() -> None:
    config = load_device_config(find_config("phone-4gb"))
    timeline = compile_timeline(load_scenario(find_scenario("day")), config, 1)
    at_ms = [step.t_ms for step in timeline.steps if step.action == "launch"][200]
    window = Window(start_ms=at_ms, length_ms=60_000)
    alive = starting_table(timeline, config.memory_bytes, window.start_ms)
    cut_out, from_ms = cut(timeline, window, alive)
    assert 20 <= len(alive) <= 150
    launches = [step for step in cut_out.steps if step.t_ms < from_ms and step.action == "launch"]
    assert len(launches) * 300 < from_ms <= OPENING_MS and cut_out.duration_ms == from_ms + 60_000
    within = [step for step in timeline.steps if 0 <= step.t_ms - window.start_ms < window.length_ms]
    later = [(step.action, step.process) for step in cut_out.steps[-len(within) :]]
    assert within and later == [(step.action, step.process) for step in within]


def test_windows_are_read_strictly() -> None:
    assert parse_window("9h+60s") == Window(start_ms=32_400_000, length_ms=60_000)
    for text in ("", "+", "9h", "9h+", "x+60s", "9h+0s", "1s+121s"):
        with pytest.raises(UserError):
            parse_window(text)


def test_recorded_moments_replace_planned_ones() -> None:
    given = piece()
    path = make_runs(given, 1, Watcher(), until_s=float("inf"), make_run=simulated(disturbed=False))[0]
    with RecordReader(path) as record:
        steps = record.app_events("step")
    assert runs.with_recorded_times(given.timeline, steps) == given.timeline
    assert runs.with_recorded_times(given.timeline, steps[:-1]) == given.timeline
