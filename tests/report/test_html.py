"""The HTML report without a browser: one file, nothing asked for, the words of lmk explain, any record."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow, KillRow, KillSourceRow
from lmk.record.writer import RecordWriter
from lmk.report.explain import explain_kill, explained_lines
from lmk.report.html_model import kills_to_show
from tests.report.records import MS, small_record

BYTES_MAX = 3_000_000


def page_of(*runs: Path) -> str:
    out = runs[0].parent / "report.html"
    assert main(["report", *map(str, runs), "--html", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    packed = re.search(r'<script type="application/gzip" id="data">([^<]*)</script>', page)
    assert packed is not None
    model: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return model


def test_nothing_is_asked_for(tmp_path: Path) -> None:
    page = page_of(small_record(tmp_path / "run"))
    assert "default-src 'none'".replace("'", "&#x27;") in page
    assert not re.search(r'\b(src|href)="(?!#)', page)
    assert "@import" not in page
    assert len(page) < BYTES_MAX


def test_the_words_of_explain(tmp_path: Path) -> None:
    run = small_record(tmp_path / "run")
    model = data_of(page_of(run))
    with RecordReader(run) as record:
        expected = explained_lines(explain_kill(record, 1))
    first, second = model["runs"][0]["kills"]
    assert [model["words"][number] for number in first["why"]["text"]] == expected
    assert first["tier"] == "cached"
    assert first["t"] == 2.001
    assert second["kernel"]
    assert "kernel's OOM killer" in model["words"][second["why"]["text"][0]]


def test_panels_and_their_thresholds(tmp_path: Path) -> None:
    model = data_of(page_of(small_record(tmp_path / "run")))
    panels = {panel["id"]: panel for panel in model["panels"]}
    assert list(panels) == ["memory", "watermarks", "swap", "psi", "thrashing", "launches"]
    for panel in panels.values():
        assert sum(len(table) - 1 for table in panel["tables"]) == len(panel["lines"])
    levels = panels["watermarks"]["tables"][1]
    assert [column[0] for column in levels[1:]] == [39.06, 48.83, 58.59]
    assert [limit["value"] for limit in panels["psi"]["limits"]] == [70, 700]
    assert model["extent"] == [0, 5]
    free = dict(zip(*panels["watermarks"]["tables"][0], strict=True))
    assert free[2.0] == 42.97  # what lmkd read when it decided to kill


def test_lanes(tmp_path: Path) -> None:
    lanes = data_of(page_of(small_record(tmp_path / "run")))["runs"][0]["lanes"]
    assert [(lane["name"], lane["kills"], lane["system"]) for lane in lanes] == [
        ("com.a", 1, False),
        ("com.b", 1, False),
    ]
    assert lanes[0]["bars"][0]["spans"][-1] == [1.0, 2.031, 900, "cached"]


def test_tables_without_a_script(tmp_path: Path) -> None:
    page = page_of(small_record(tmp_path / "run"))
    for text in (
        "com.a",
        "low watermark is breached",
        "cached 900",
        "the kernel&#x27;s OOM killer",
        "100 + 2",
        ">1.5<",
        "20.0",
    ):
        assert text in page


def test_a_name_is_never_markup(tmp_path: Path) -> None:
    page = page_of(small_record(tmp_path / "run", name='<img src="x">&\'</script>'))
    assert '<img src="x">' not in page
    assert "&lt;img src=&quot;x&quot;&gt;" in page


def test_several_runs(tmp_path: Path) -> None:
    page = page_of(small_record(tmp_path / "one"), small_record(tmp_path / "two", name="com.z"))
    model = data_of(page)
    assert [run["label"] for run in model["runs"]] == ["one", "two"]
    available = next(panel for panel in model["panels"] if panel["id"] == "available")
    assert [line["label"] for line in available["lines"]] == ["one", "two"]
    assert [line["color"] for line in available["lines"]] == ["run0", "run1"]
    assert "com.z" in page


@pytest.mark.parametrize("kills", [False, True])
def test_a_record_with_little_in_it(tmp_path: Path, kills: bool) -> None:
    run = tmp_path / "run"
    with RecordWriter(run) as writer:
        if kills:
            writer.kill(KillRow(t_ns=5 * MS, pid=7))
            writer.kill(KillRow(t_ns=6 * MS, pid=8, oom_score_adj=12345))
    page = page_of(run)
    model = data_of(page)
    assert model["panels"] == []
    assert len(model["runs"][0]["kills"]) == 2 * kills
    assert (">No process was killed in this run" in page) != kills
    assert "cut short" in page


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    run = small_record(tmp_path / "run")
    with RecordReader(run) as record:
        decision = next(row.body for row in record.decisions() if row.body["killed_pids"])
    long = tmp_path / "long"
    with RecordWriter(long) as writer:
        writer.meta({"android": "14Q2", "properties": {}, "policy": "lmkd", "zero_ns": 0, "duration_ms": 86_400_000})
        for index in range(8000):
            row = CounterRow(t_ns=index * 10_800 * MS, mem_free_kib=index % 977, mem_available_kib=index % 613)
            writer.counter(row)
        for index in range(3000):
            t_ns = (10 + index * 28_000) * MS
            pid = 1000 + index
            body = decision | {
                "killed_pids": [pid],
                "evaluations": [decision["evaluations"][0] | {"free_pages": 9000 + index}],
            }
            writer.app_event(EventRow(t_ns=t_ns - 9 * MS, kind="spawned", body={"app": f"app{index % 20}", "pid": pid}))
            writer.decision(t_ns, t_ns, 8, pid, body)
            writer.kill(
                KillRow(
                    t_ns=t_ns, pid=pid, name=f"app{index % 20}", oom_score_adj=900 - (index == 1234), reason="x" * 60
                )
            )
    page = page_of(long)
    assert len(page) < BYTES_MAX
    model = data_of(page)
    kills = model["runs"][0]["kills"]
    assert len(kills) == 800
    assert "800 of 3000 kills" in page
    assert 1235 in {kill["n"] for kill in kills}  # the most protected one is never left out
    first = next(kill for kill in kills if kill["n"] == 1235)
    assert f"pid {1000 + 1234} " in model["words"][first["why"]["head"]]
    memory = model["panels"][0]["tables"][0]
    assert max(memory[4]) == round(976 / 1024, 2)
    assert len(memory[0]) < 8000


def test_kills_of_an_imported_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RecordWriter(run) as writer:
        kill = writer.kill(KillRow(t_ns=5 * MS, pid=7, name="a", killer="lmkd"))
        line = KillSourceRow(kill_id=kill, t_ns=5 * MS, kind="lmkd", shape="x", place="log.txt:3", text="Kill 'a' (7)")
        writer.kill_source(line)
    page = page_of(run)
    model = data_of(page)
    assert model["words"][model["runs"][0]["kills"][0]["why"]["log"][0]] == "log.txt:3: Kill 'a' (7)"
    assert "the device&#x27;s own lmkd" in page


def test_user_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_record(tmp_path / "run")
    assert main(["report", str(tmp_path / "none")]) == 2
    assert main(["report", str(run), "--html", str(tmp_path)]) == 2
    assert "give a file you may write" in capsys.readouterr().err
    assert main(["report", *[str(run)] * 7]) == 2
    assert "at most 6" in capsys.readouterr().err


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_record(tmp_path / "run")
    assert main(["report", str(run), str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1
    assert [one["summary"]["kills"] for one in result["runs"]] == [2, 2]
    assert result["html"] is None


def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(small_record(tmp_path / "run"))]) == 0
    text = capsys.readouterr().out
    assert "2 kills" in text
    assert "least MemAvailable" in text


def test_which_of_many_kills_are_shown() -> None:
    kills = [KillRow(t_ns=i, pid=i, oom_score_adj=[900, 900, 0, 950][i % 4] if i < 40 else 900) for i in range(400)]
    shown = kills_to_show(kills, 40)
    assert len(shown) == len(set(shown)) == 40
    assert shown == sorted(shown)
    assert {i for i in range(40) if i % 4 == 2} <= set(shown)
    rest = [i for i in shown if kills[i].oom_score_adj != 0]
    assert max(b - a for a, b in itertools.pairwise(rest)) <= 20
    assert kills_to_show(kills[:40], 40) == list(range(40))
    assert len(kills_to_show([KillRow(t_ns=i, pid=i) for i in range(100)], 10)) == 10
