"""``lmk ci`` through its command line, on the simulator and on a stand-in for ``lmk run``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lmk.cli.main import main
from tests.fakes.lmk_run import FakeRuns

MATRIX = """
name: small
configs: [go-1gb]
scenarios: [quick.yaml]
replicas: 2
baseline_replicas: 4
"""
SCENARIO = """
name: quick
seed: 1
apps:
  chat: {process: com.example.chat, anon: 30%, file: 5%, cold_start: 300ms}
  maps: {process: com.example.maps, anon: 30%, file: 5%, cold_start: 300ms}
  game: {process: com.example.game, anon: 45%, file: 5%, cold_start: 300ms}
steps:
  - launch: chat
  - wait: 2s
  - launch: maps
  - wait: 2s
  - launch: game
  - wait: 4s
expect:
  kills: EXPECTED
"""
Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMK_STATE", str(tmp_path / "state"))
    (tmp_path / "small.yaml").write_text(MATRIX)
    (tmp_path / "quick.yaml").write_text(SCENARIO.replace("EXPECTED", "{min: 1}"))
    return tmp_path


@pytest.fixture
def call(folder: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*argv: str) -> tuple[int, dict[str, Any]]:
        code = main(["ci", str(folder / "small.yaml"), "--json", *argv])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_learns_a_baseline_and_then_holds_to_it(folder: Path, call: Call) -> None:
    code, body = call("--update-baseline")
    assert (code, body["baseline"]) == (0, str(folder / "small.baseline.json"))
    code, body = call()
    assert (code, body["counts"]) == (0, {"passed": 1, "failed": 0, "infra": 0, "timeout": 0})
    assert {row["metric"] for row in body["cells"][0]["baseline"]} >= {"kills", "event_to_signal_p50_ms"}


def test_a_slow_sigkill_fails_it(folder: Path, call: Call) -> None:
    call("--update-baseline")
    code, body = call("--inject-kill-delay", "200ms")
    assert code == 1
    assert any(text.startswith("event_to_signal_p50_ms: 200") for text in body["cells"][0]["failures"])


def test_a_failed_expectation_names_the_kills_in_every_output(folder: Path, call: Call) -> None:
    (folder / "quick.yaml").write_text(SCENARIO.replace("EXPECTED", "0"))
    code, body = call("--output", str(folder / "out"))
    assert code == body["exit_code"] == 1
    victim = "com.example.chat (adj"
    assert victim in body["cells"][0]["failures"][0]
    failure = ET.parse(folder / "out" / "junit.xml").find(".//failure")
    assert failure is not None
    assert failure.text is not None
    assert victim in failure.text
    assert failure.get("message", "").startswith("kills: ")
    for name in ("summary.md", "report.html"):
        assert victim in (folder / "out" / name).read_text()


def test_the_report_links_to_a_page_for_each_cell(folder: Path, call: Call) -> None:
    _, body = call("--output", str(folder / "out"), "--repeat", "2")
    links = set(re.findall(r'href="([^"]+)"', (folder / "out" / "report.html").read_text()))
    assert links == {f"pages/0/{body['cells'][0]['key'].replace('/', '_')}.html"}
    page = (folder / "out" / links.pop()).read_text()
    assert "com.example.chat" in page
    assert "Kills" in page


def test_a_failed_cell_of_a_later_repeat_has_its_page_too(folder: Path, call: Call) -> None:
    (folder / "quick.yaml").write_text(SCENARIO.replace("EXPECTED", "0"))
    call("--output", str(folder / "out"), "--repeat", "2")
    assert len(list((folder / "out" / "pages").glob("*/*.html"))) == 2


def test_junit_counts_agree_with_its_cases(folder: Path, call: Call) -> None:
    call("--output", str(folder / "out"), "--repeat", "2")
    root = ET.parse(folder / "out" / "junit.xml").getroot()
    assert root.tag == "testsuites"
    assert int(root.get("tests", "0")) == len(root.findall("testsuite/testcase")) == 2
    assert [suite.get("name") for suite in root] == ["small", "small (repeat 2)"]


def test_resume_runs_only_what_is_missing(folder: Path, call: Call) -> None:
    out = folder / "out"
    _, first = call("--output", str(out), "--repeat", "2")
    (missing,) = (out / "results" / "1").glob("*.json")
    missing.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("results/0/*.json")}
    code, second = call("--output", str(out), "--repeat", "2", "--resume")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("results/0/*.json")} == stamps
    assert missing.is_file()
    assert [cell["expectations"] for cell in first["cells"]] == [cell["expectations"] for cell in second["cells"]]


def test_results_of_other_inputs_are_not_taken_for_these(folder: Path, call: Call) -> None:
    call("--output", str(folder / "out"))
    code, body = call("--output", str(folder / "out"))
    assert (code, "--resume" in body["error"]["remedy"]) == (2, True)
    code, body = call("--output", str(folder / "out"), "--resume", "--set", "vm.swappiness=10")
    assert (code, "other inputs" in body["error"]["cause"]) == (2, True)


def test_equal_inputs_give_equal_results(folder: Path, call: Call) -> None:
    _, first = call()
    _, second = call()
    assert first["cells"][0]["expectations"] == second["cells"][0]["expectations"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--repeat", "0"], "--repeat 0"),
        (["--retries", "-1"], "--retries -1"),
        (["--shard", "3/2"], "not I/N"),
        (["--only", "qemu"], "no cell is left"),
        (["--set", "thrashing=1"], "no such setting"),
        (["--baseline", "/nowhere/base.json"], "no such file"),
        (["--resume"], "no earlier run"),
    ],
)
def test_user_errors_are_one_line_each(call: Call, argv: list[str], words: str) -> None:
    code, body = call(*argv)
    assert code == 2
    assert words in body["error"]["cause"]
    assert "\n" not in body["error"]["cause"]


def test_a_broken_baseline_is_an_error(folder: Path, call: Call) -> None:
    (folder / "small.baseline.json").write_text("{}")
    code, body = call()
    assert (code, "not a baseline" in body["error"]["cause"]) == (2, True)


def test_a_cell_over_its_time_is_not_judged(folder: Path, call: Call) -> None:
    (folder / "small.yaml").write_text(MATRIX + "time_limit: 1ms\n")
    code, body = call()
    assert (code, body["counts"]["timeout"]) == (3, 1)


EMULATED = "name: small\ncells: [{config: go-1gb, scenario: quick.yaml, target: qemu}]\n"


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    (folder / "small.yaml").write_text(EMULATED)
    return FakeRuns(folder, monkeypatch)


def test_faults_of_the_machinery_are_tried_again_and_told(call: Call, runs: FakeRuns) -> None:
    runs.plan(runs.lost("adb went away"), runs.disturbed(0.4), runs.good())
    code, body = call("--bundle", "b.tar")
    assert (code, [a["kind"] for a in body["cells"][0]["spoilt"]]) == (0, ["target", "disturbed"])
    assert len(runs.calls()) == 3


def test_a_failed_expectation_is_never_tried_again(call: Call, runs: FakeRuns) -> None:
    runs.plan(runs.failed("kills", 7, {"min": None, "max": 3}), runs.good())
    code, body = call("--bundle", "b.tar")
    assert (code, body["cells"][0]["spoilt"], len(runs.calls())) == (1, [], 1)


def test_retries_end_and_the_machinery_is_named(call: Call, runs: FakeRuns) -> None:
    runs.plan(*[runs.lost("the guest did not reach adb")] * 3)
    code, body = call("--bundle", "b.tar")
    assert (code, body["cells"][0]["status"], body["cells"][0]["failures"]) == (
        3,
        "infra",
        ["the guest did not reach adb"],
    )


def test_a_disturbed_run_counts_where_that_is_allowed(call: Call, runs: FakeRuns) -> None:
    runs.plan(runs.disturbed(0.4))
    code, body = call("--bundle", "b.tar", "--allow-disturbed")
    assert (code, body["cells"][0]["spoilt"]) == (0, [])


def test_a_users_mistake_found_by_lmk_run_ends_it(call: Call, runs: FakeRuns) -> None:
    runs.plan(runs.error("no adb", 2, "user"))
    code, body = call("--bundle", "b.tar")
    assert (code, body["error"]["cause"]) == (2, "no adb")


def test_settings_bundle_and_fault_reach_lmk_run(folder: Path, call: Call, runs: FakeRuns) -> None:
    runs.plan(runs.good())
    call("--bundle", "b.tar", "--set", "vm.swappiness=10", "--inject-kill-delay", "200ms")
    (argv,) = runs.calls()
    assert argv[:1] == ["run"]
    for words in (["--set", "vm.swappiness=10"], ["--set", "kernel.base=6.12"], ["--inject-kill-delay", "200ms"]):
        assert words in [argv[i : i + 2] for i in range(len(argv))]
    assert argv[argv.index("--bundle") + 1] == "b.tar"


def test_an_emulated_cell_is_learned_run_by_run(folder: Path, call: Call, runs: FakeRuns) -> None:
    (folder / "small.yaml").write_text(EMULATED + "baseline_runs: 4\n")
    learn = ("--bundle", "b.tar", "--update-baseline", "--output", str(folder / "out"), "--retries", "0")
    runs.plan(runs.good(), runs.lost("adb went away"), runs.good(), runs.good(), runs.good())
    code, body = call(*learn)
    assert (code, body["counts"]["infra"]) == (3, 1)
    code, body = call(*learn, "--resume")
    assert (code, len(runs.calls())) == (0, 5)
    cells = json.loads((folder / "small.baseline.json").read_text())["cells"]
    assert [len(cell["values"]["kills"]) for cell in cells.values()] == [4]


def test_runs_of_another_bundle_are_not_taken_for_these(folder: Path, call: Call, runs: FakeRuns) -> None:
    (folder / "b.tar").write_text("one")
    runs.plan(runs.good(), runs.good())
    argv = ("--bundle", str(folder / "b.tar"), "--output", str(folder / "out"), "--resume")
    assert call(*argv)[0] == 0
    (folder / "b.tar").write_text("another")
    code, body = call(*argv)
    assert (code, "other inputs" in body["error"]["cause"]) == (2, True)


def test_ctrl_c_ends_a_run_that_is_under_way(folder: Path) -> None:
    (folder / "small.yaml").write_text(EMULATED)
    slow = folder / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    script = f"import sys; sys.executable = {str(slow)!r}; from lmk.cli.main import main; sys.exit(main(sys.argv[1:]))"
    argv = ["ci", str(folder / "small.yaml"), "--bundle", "b.tar"]
    with subprocess.Popen([sys.executable, "-c", script, *argv], stderr=subprocess.PIPE) as process:
        try:
            deadline_s = time.monotonic() + 60
            while not (folder / "pid").is_file():
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
            child = int((folder / "pid").read_text())
            while Path(f"/proc/{child}").exists():
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        finally:
            process.kill()
