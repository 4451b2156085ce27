"""``lmk import``: from files to a record, its JSON object and its tables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.record.reader import RecordReader

DATA = Path(__file__).resolve().parent.parent / "data" / "logs"


def imported(capsys: pytest.CaptureFixture[str], tmp_path: Path, *names: str) -> dict[str, Any]:
    files = [str(DATA / name) for name in names]
    assert main(["import", *files, "--output", str(tmp_path / "run"), "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_one_kill_with_all_its_sources(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = imported(capsys, tmp_path, "lmkd.log")
    by_pid = {kill["pid"]: kill for kill in result["kills"]}
    assert len(result["kills"]) == 10
    kill = by_pid[4105]
    assert [source["kind"] for source in kill["sources"]] == ["lmkd", "died", "am_died", "signal", "killinfo"]
    assert (kill["killer"], kill["tier"], kill["min_oom_score_adj"], kill["reason_code"]) == ("lmkd", "cached", 201, 3)
    assert (kill["rss_kib"], kill["swap_kib"], kill["uid"]) == (40500, 4500, 1010105)
    assert kill["sources"][0]["place"].startswith("lmkd.log:")
    assert result["deaths"] == {
        "killed_by_activity_manager": 3,
        "reasons": {"empty N": 2, "Trimming phantom processes": 1},
        "not_explained": 1,
        "not_explained_sigkill": 0,
        "oom_reaper_alone": 0,
    }
    assert [line["why"] for line in result["unknown"]] == ["lmkd speaks of killing", "a malformed am_kill event"]


def test_the_kernels_kills(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = imported(capsys, tmp_path, "kernel.log")
    assert result["clock"] == "boot"
    assert result["kills_by_killer"] == {"kernel_lmk": 4, "kernel_oom": 2}
    kills = {kill["pid"]: kill for kill in result["kills"]}
    assert (kills[5102]["oom_score_adj"], kills[5102]["rss_kib"]) == (588, 6624)
    assert (kills[5107]["oom_score_adj"], kills[5104]["rss_kib"], kills[5104]["oom_score_adj"]) == (1000, 480000, 0)
    assert kills[5101]["reason"] == "cache 694804kB is below limit 322560kB for oom_score_adj 606"
    assert result["deaths"]["oom_reaper_alone"] == 1


def test_a_bug_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = imported(capsys, tmp_path, "bugreport.txt")
    (kill,) = result["kills"]
    assert sorted(source["kind"] for source in kill["sources"]) == ["am_died", "died", "lmkd", "reap"]
    assert kill["when"] == "2025-03-02 08:00:30.000"
    assert (result["android"], result["properties"], result["notes"]) == ("14", 5, [])
    assert result["device"]["mem_total_kib"] == 3_900_000
    with RecordReader(tmp_path / "run") as record:
        (counter,) = record.counters()
        assert (counter.mem_free_kib, counter.psi_full_us, counter.refault_file_pages) == (90_000, 234_567, 300)
        assert record.meta["properties"]["persist.example.lines"] == "first\nsecond"
        (dump,) = record.device_events("dumpsys_meminfo")
        assert dump.body["ram_kib"]["Total RAM"] == 3_900_000
        (exit_info,) = record.device_events("exit_info")
        assert exit_info.body["reason_text"] == "LOW_MEMORY"
        (lru,) = record.device_events("lru")
        assert [process["adj"] for process in lru.body["processes"]] == [0, 925]


def test_the_year_is_that_of_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text((DATA / "lmkd.log").read_text())
    os.utime(log, (1_577_836_800, 1_577_836_800))  # 2020-01-01: in March that was last year
    assert main(["import", str(log), "--output", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"].startswith("2019-03-02")


def test_several_files_are_one_device(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = imported(capsys, tmp_path, "lmkd.log", "bugreport.txt")
    assert len(result["kills"]) == 11
    assert {kill["when"][:10] for kill in result["kills"]} == {"2025-03-02"}
    assert [file["name"] for file in result["files"]] == ["lmkd.log", "bugreport.txt"]


def test_the_tables_show_kills_and_what_was_not_understood(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["import", str(DATA / "lmkd.log"), "--output", str(tmp_path / "run")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "10 kills: 10 by lmkd" in out
    assert "2 lines speak of killing in words lmk does not know" in out
    assert "lmkd speaks of killing" in out


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["import", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert main(["import", str(DATA / "lmkd.log"), "--output", str(tmp_path / "full")]) == 2
    assert "--output" in capsys.readouterr().err
