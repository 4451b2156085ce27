"""The GitHub action and the GitLab template: their scripts as written, run as a runner runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ACTION = ROOT / ".github" / "actions" / "lmk-ci" / "action.yml"
GITLAB = ROOT / ".gitlab" / "lmk-ci.yml"
MATRIX = "configs: [go-1gb]\nscenarios: [camera-burst]\nreplicas: 1\n"


def steps() -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]}


def gitlab_script() -> str:
    return "\n".join(yaml.safe_load(GITLAB.read_text())[".lmk-ci"]["script"])


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """A runner's scratch directory with lmk installed in it."""
    (tmp_path / "lmk" / "bin").mkdir(parents=True)
    program = tmp_path / "lmk" / "bin" / "lmk"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lmk "$@"\n')
    program.chmod(0o755)
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    return tmp_path


def bash(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("extra", "code"), [("", 0), ("--set vm.swappiness=500", 2)])
def test_the_action_keeps_the_reports_and_passes_the_exit_code_on(runner: Path, extra: str, code: int) -> None:
    files = {"GITHUB_OUTPUT": runner / "output", "GITHUB_STEP_SUMMARY": runner / "summary"}
    done = bash(
        steps()["lmk ci"]["run"],
        runner,
        RUNNER_TEMP=str(runner),
        MATRIX="matrix.yaml",
        BUNDLE="",
        SHARD="1/1",
        ARGUMENTS=extra,
        **{name: str(path) for name, path in files.items()},
    )
    assert done.returncode == code, done.stderr
    folder = Path(files["GITHUB_OUTPUT"].read_text().strip().removeprefix("directory="))
    if code == 0:
        assert ET.parse(folder / "junit.xml").getroot().get("failures") == "0"
        assert "| go-1gb | camera-burst |" in files["GITHUB_STEP_SUMMARY"].read_text()


def told(runner: Path) -> list[str]:
    """The arguments of the last ``lmk`` that ran."""
    return (runner / "arguments").read_text().splitlines()


@pytest.mark.parametrize(("bundle", "words"), [("a.bundle", ["--bundle", "a.bundle"]), ("", ["--only", "sim"])])
def test_a_bundle_brings_the_emulated_cells(runner: Path, bundle: str, words: list[str]) -> None:
    program = runner / "lmk" / "bin" / "lmk"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {runner}/arguments\n')
    output = {"GITHUB_OUTPUT": str(runner / "output"), "GITHUB_STEP_SUMMARY": str(runner / "summary")}
    github = {"RUNNER_TEMP": str(runner), "MATRIX": "", "BUNDLE": bundle, "SHARD": "", "ARGUMENTS": "--repeat 2"}
    assert bash(steps()["lmk ci"]["run"], runner, **output, **github).returncode == 0
    assert told(runner) == ["ci", "--output", str(runner / "lmk-ci"), *words, "--repeat", "2"]
    script = gitlab_script().replace("/opt/lmk", str(runner / "lmk"))
    assert bash(script, runner, LMK_MATRIX="m.yaml", LMK_BUNDLE=bundle).returncode == 0
    assert told(runner) == ["ci", "m.yaml", "--output", "lmk-ci", *words]


def test_the_gitlab_job_leaves_its_junit_report(runner: Path) -> None:
    script = gitlab_script().replace("/opt/lmk", str(runner / "lmk"))
    done = bash(script, runner, LMK_MATRIX="matrix.yaml", LMK_BUNDLE="", CI_NODE_INDEX="1", CI_NODE_TOTAL="1")
    assert done.returncode == 0, done.stderr
    assert ET.parse(runner / "lmk-ci" / "junit.xml").getroot().get("tests") == "1"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_their_scripts_are_clean() -> None:
    scripts = [step["run"] for step in steps().values() if "run" in step]
    for script in (*scripts, gitlab_script()):
        plain = script.replace("${{ inputs.install }}", "lmk")
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "-"], input=plain, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
