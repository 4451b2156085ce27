"""docs/scenarios.md says what the program and the loader know, and nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lmk.config.expect import MEASURES
from lmk.config.scenario import STEP_VERBS
from lmk.device.apprunner import AppRunner
from lmk.device.native import native_binary
from tests.device.apprunner_host import LocalDevice

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/scenarios.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "tools/lmk-helper").glob("apprunner*.c")))


def test_every_event_is_documented() -> None:
    added = set(re.findall(r'events_add(?:_at)?\((?:[a-z_>-]+, )?"([a-z_]+)"', SOURCES))
    chosen = set(re.findall(r'\? "([a-z_]+)" : "([a-z_]+)",\n', SOURCES))
    kinds = added | {kind for pair in chosen for kind in pair if kind not in ("true", "false")}
    assert {"launch", "home_shown", "died", "frozen", "service_started"} <= kinds
    missing = {kind for kind in kinds if f"`{kind}`" not in DOCUMENT}
    assert not missing


def test_every_step_key_and_expectation_is_documented() -> None:
    assert not [verb for verb in STEP_VERBS if f"| `{verb}:" not in DOCUMENT]
    assert not [name for name in MEASURES if f"`{name}`" not in DOCUMENT]


def test_timeline_keys_are_documented() -> None:
    keys = set(re.findall(r'strcmp\(key, "([a-z_]+)"\)', SOURCES)) | set(
        re.findall(r'strcmp\(name, "([a-z_]+)"\)\)\n', SOURCES)
    )
    assert not {key for key in keys if not re.search(rf"\b{key}\b", DOCUMENT)}


def test_the_example_loads(tmp_path: Path) -> None:
    example = next(text for text in DOCUMENT.split("```") if text.startswith("\nlmk-timeline"))
    runner = AppRunner(
        LocalDevice(tmp_path),
        binary=native_binary("lmk-apprunner", os.uname().machine),
        arguments=f"--lmkd none --pool none --cgroup {tmp_path} --no-realtime --linger 5",
        socket_name=f"lmk-apprunner-doc-{os.getpid()}",
    )
    with runner:
        runner.launch()
        runner._send(f"load {len(example.encode())}\n{example}".encode())
        loaded = runner._wait_for("loaded", 5)
    assert (loaded.body["processes"], loaded.body["steps"]) == (2, 6)
