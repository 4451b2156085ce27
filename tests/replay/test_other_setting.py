"""A replay under another setting: exact as long as the dialogue is the recorded one."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, KillRow
from lmk.replay.other_setting import first_difference_ns, pair_kills
from lmk.replay.triggers import derived_events
from lmk.units import NS_PER_MS

CONFIG, SCENARIO = "go-1gb", "one-leaker"


def lmk(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = main([*words, "--json"])
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code in (0, 1), out
    return out


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("record") / "run"
    assert main(["sim", CONFIG, SCENARIO, "--record", str(path), "--json"]) == 0
    return path


def replay(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path, *words: str) -> dict[str, Any]:
    return lmk(capsys, "replay", str(recorded), "--output", str(tmp_path / "replay"), *words)


def test_the_same_setting_does_exactly_the_same(
    capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path
) -> None:
    capsys.readouterr()
    result = replay(capsys, recorded, tmp_path)
    with RecordReader(recorded) as before, RecordReader(tmp_path / "replay") as after:
        assert len(before.kills()) >= 3
        assert [(k.pid, k.t_ns, k.reason, k.rss_kib) for k in after.kills()] == [
            (k.pid, k.t_ns, k.reason, k.rss_kib) for k in before.kills()
        ]
        assert [row.body for row in after.decisions()] == [row.body for row in before.decisions()]
    assert (result["left_ms"], result["diverged_ms"], result["changes"]) == (None, None, [])
    assert result["summary"]["same"] == len(result["kills"])
    assert result["moments"]["differing"] == []


@pytest.mark.parametrize("percentage", ["5", "9", "11", "30"])
def test_what_is_exact_is_what_the_simulator_does(
    capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path, percentage: str
) -> None:
    capsys.readouterr()
    setting = f"ro.lmk.swap_free_low_percentage={percentage}"
    result = replay(capsys, recorded, tmp_path, "--set", setting)
    truth = lmk(capsys, "sim", CONFIG, SCENARIO, "--set", setting, "--record", str(tmp_path / "truth"))
    until_ms = result["left_ms"] if result["left_ms"] is not None else 10**9
    assert result["diverged_ms"] is None or result["diverged_ms"] >= result["left_ms"]
    replayed = [
        (kill["replayed_ms"], kill["replayed"]["pid"], kill["replayed"]["reason"])
        for kill in result["kills"]
        if kill["replayed"] is not None and kill["replayed_ms"] <= until_ms
    ]
    simulated = [(k["t_ms"], k["pid"], k["reason"]) for k in truth["kills"] if k["t_ms"] <= until_ms]
    assert replayed == simulated


def test_every_recorded_look_is_answered(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path) -> None:
    capsys.readouterr()
    more = replay(capsys, recorded, tmp_path / "more", "--set", "ro.lmk.swap_free_low_percentage=30")["moments"]
    fewer = replay(capsys, recorded, tmp_path / "fewer", "--set", "ro.lmk.swap_free_low_percentage=5")["moments"]
    assert more["would_kill"] > 0 == more["would_not_kill"]
    assert fewer["would_not_kill"] > 0 == fewer["would_kill"]
    assert len(fewer["differing"]) == fewer["would_not_kill"] + fewer["otherwise"]
    assert fewer["differing"][0]["other"] == "no kill"


def test_another_trigger_is_computed_from_samples(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    lmk(capsys, "sim", "phone-2gb", "app-switching", "--record", str(recorded))
    near = replay(capsys, recorded, tmp_path / "near", "--set", "ro.lmk.psi_partial_stall_ms=180")
    assert near["derived_triggers"] == [{"level": 1, "trigger": "some 180000 1000000"}]
    assert near["summary"]["same"] >= 2
    far = replay(capsys, recorded, tmp_path / "far", "--set", "ro.lmk.psi_partial_stall_ms=50")["summary"]
    assert far["earlier"] >= 3 and far["later"] == 0


def test_another_device_config(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path) -> None:
    capsys.readouterr()
    result = replay(capsys, recorded, tmp_path, "--config", "phone-2gb")
    assert result["changes"] != []
    assert result["moments"] is None or result["android"]["recorded"] == result["android"]["other"]


def test_tables(capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path) -> None:
    setting = "ro.lmk.swap_free_low_percentage=5"
    assert main(["replay", str(recorded), "--output", str(tmp_path / "r"), "--set", setting]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "swap_free_low_percentage" in out
    assert "What follows (*) is an estimate" in out
    assert "not killed*" in out


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--set", "vm.swappiness=10"], "cannot tell"),
        (["--set", "ro.lmk.nonsense=1"], "no such setting"),
        (["--set", "ro.lmk.thrashing_limit=x"], "fall back"),
        (["--config", "no-such-config"], "no-such-config"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path, words: list[str], cause: str
) -> None:
    capsys.readouterr()
    assert main(["replay", str(recorded), "--output", str(tmp_path / "r"), *words]) == 2
    assert cause in capsys.readouterr().err


def test_an_imported_log_cannot_be_replayed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = Path(__file__).resolve().parent.parent / "data" / "logs" / "lmkd.log"
    assert main(["import", str(log), "--output", str(tmp_path / "i"), "--json"]) == 0
    assert main(["replay", str(tmp_path / "i"), "--output", str(tmp_path / "r")]) == 2
    assert "holds no exchanges" in capsys.readouterr().err


def kill(pid: int, t_ms: int) -> KillRow:
    return KillRow(t_ns=t_ms * NS_PER_MS, pid=pid)


def test_pairs_of_kills() -> None:
    before = [kill(1, 1000), kill(2, 2000), kill(3, 3000), kill(4, 9000)]
    after = [kill(1, 1050), kill(2, 2900), kill(7, 3100), kill(8, 20000)]
    pairs = [(a and a.pid, b and b.pid) for a, b in pair_kills(before, after)]
    assert pairs == [(1, 1), (2, 2), (3, 7), (4, None), (None, 8)]
    assert first_difference_ns(pair_kills(before, after)) == 2000 * NS_PER_MS
    assert first_difference_ns(pair_kills(before[:1], after[:1])) is None


def test_a_trigger_fires_once_per_window() -> None:
    rows = [CounterRow(t_ns=n * 250 * NS_PER_MS, psi_some_us=max(0, n - 4) * 50_000) for n in range(40)]
    fired = [t_ns // NS_PER_MS for t_ns in derived_events(rows, "some 100000 1000000")]
    assert fired == list(range(1500, 10000, 1000))
    assert list(derived_events(rows, "full 100000 1000000")) == []
    assert list(derived_events(rows, "nonsense")) == []


def test_a_live_records_jitter_and_age_are_no_difference(
    capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path
) -> None:
    """A live clock moves on before a wait is asked for; an older lmk's requests lack the fields added since."""
    capsys.readouterr()
    shutil.copytree(recorded, tmp_path / "run")
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as database, database:
        steps = database.execute("SELECT seq, t_ns, request FROM step ORDER BY seq").fetchall()
        before_ns = 0
        for seq, t_ns, text in steps:
            request = json.loads(text)
            if request["type"] == "Kill":
                del request["release"]
            elif request["type"] == "Wait" and request["timeout_ms"]:
                request["timeout_ms"] -= min(40, (t_ns - before_ns) // 1_000_000, request["timeout_ms"] - 1)
            before_ns = t_ns
            database.execute("UPDATE step SET request = ? WHERE seq = ?", (json.dumps(request), seq))
    result = replay(capsys, tmp_path / "run", tmp_path)
    assert result["left_ms"] is None
    assert result["summary"]["same"] == len(result["kills"]) >= 3
