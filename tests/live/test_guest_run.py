"""``lmk run`` on the real kernel in the real guest: a whole run, and what is left when something dies in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmk.backends import registry
from lmk.config.device import load_device_config
from lmk.device.adb import AdbDevice
from lmk.device.apprunner import AppRunner
from lmk.guest.image import build_guest_image
from lmk.record.reader import RecordReader
from tests.conftest import Guests, test_kernel

pytestmark = pytest.mark.emulator
NAME = "test-guest-run"
CONFIG = """\
name: test-1gb
description: a small phone for tests, with lmkd's debug lines
source: ["measured: made up for tests"]
memory: 1GiB
cpus: 2
arch: x86_64
android: 14
zram: {size: 512MiB, algorithm: lz4}
kernel: {base: "6.12", mglru: true, memcg: v2}
system:
  system_server: {adj: -900, anon: 60MiB, file: 30MiB, hot: 0.5}
properties: {ro.lmk.debug: true, ro.config.low_ram: true}
"""
SCENARIO = """\
name: hurry
description: more apps than fit, opened one after the other
seed: 1
apps:
  home: {role: home, anon: 20MiB, file: 10MiB}
  a: {anon: 180MiB, file: 30MiB, compressibility: 2.0, hot: 0.3}
  b: {anon: 200MiB, file: 30MiB, compressibility: 1.8, hot: 0.3}
  c: {anon: 220MiB, file: 30MiB, compressibility: 1.6, hot: 0.3}
  d: {anon: 190MiB, file: 30MiB, compressibility: 2.2, hot: 0.3}
  e: {anon: 210MiB, file: 30MiB, compressibility: 1.9, hot: 0.3}
steps:
  - repeat: 2
    steps:
      - launch: a
      - wait: 3s
      - launch: b
      - wait: 3s
      - launch: c
      - wait: 3s
      - launch: d
      - wait: 3s
      - launch: e
      - wait: 3s
expect:
  foreground_kills: 0
  kernel_oom_kills: 0
  kills: {min: 2}
"""
KILL_LINE = re.compile(
    r"Kill '(?P<name>\S+)' \((?P<pid>\d+)\), uid (?P<uid>\d+), oom_score_adj (?P<adj>\d+) to free (?P<rss>\d+)kB rss, "
    r"(?P<swap>\d+)kB swap; reason: (?P<reason>.+)"
)
REAP_LINE = re.compile(r"Process (?P<pid>\d+) was reaped in (?P<ms>\d+)ms")


class Emulator:
    """A registered guest and the command line that uses it."""

    def __init__(self, folder: Path, adb: AdbDevice) -> None:
        self.folder, self.adb = folder, adb
        self._runs: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        """``lmk run`` as a process of its own; its record directory."""
        directory = self.folder / f"run{len(self._runs) + 1}"
        command = [sys.executable, "-m", "lmk", "run", str(self.folder / "phone.yaml"), str(self.folder / "hurry.yaml")]
        command += ["--target", f"emulator:{NAME}", "--record", str(directory), "--json"]
        command += options
        with directory.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err)
        self._runs.append(process)
        return process, directory

    def end_runs(self) -> None:
        """Nothing a failed test began lives on in the next one's guest."""
        for process in self._runs:
            if process.stdout is not None and not process.stdout.closed:
                process.terminate()
                process.communicate()

    def kernel_oom_kills(self) -> int:
        return self.adb.check_shell("dmesg").count("Killed process")

    def helpers(self, *names: str) -> list[str]:
        """Pids of the helper's processes, by the names they give themselves."""
        wanted = "|".join(names or ("lmk-helper", "lmk-guardian"))
        script = (
            f"for p in /proc/[0-9]*; do read -r n < $p/comm && case $n in {wanted}) echo ${{p#/proc/}};; esac; done"
        )
        return self.adb.shell(f"({script}) 2>/dev/null").stdout.split()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory, guest_factory: Guests) -> Iterator[Emulator]:
    folder = tmp_path_factory.mktemp("emulator")
    (folder / "phone.yaml").write_text(CONFIG)
    (folder / "hurry.yaml").write_text(SCENARIO)
    guest_factory.close()  # one guest at a time
    before = os.environ.get("LMK_STATE")
    os.environ["LMK_STATE"] = str(folder / "state")
    try:
        config = load_device_config(folder / "phone.yaml")
        registry.up(config, test_kernel(), build_guest_image(), name=NAME, idle_s=600)
        try:
            with registry.attach(NAME) as attached:
                yield Emulator(folder, attached.adb)
        finally:
            registry.down(NAME)
    finally:
        os.environ.pop("LMK_STATE")
        if before is not None:
            os.environ["LMK_STATE"] = before


@pytest.fixture(autouse=True)
def no_run_is_left(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.end_runs()


def finish(process: subprocess.Popen[bytes], timeout_s: float = 240) -> tuple[int, dict[str, Any]]:
    out, _ = process.communicate(timeout=timeout_s)
    return process.returncode, json.loads(out)


def wait_for_kill(directory: Path, timeout_s: float = 120) -> None:
    """Until the run has killed somebody: memory is short then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (directory / "run.sqlite").exists():
            with RecordReader(directory) as record:
                if record.kills():
                    return
        time.sleep(0.3)
    pytest.fail("nobody was killed")


def foreground_deaths(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e["adj"] <= 0 and not e.get("expected")]


def test_a_run_from_boot_to_record(emulator: Emulator) -> None:
    emulator.adb.shell("logcat -c")
    process, directory = emulator.start()
    code, result = finish(process)
    assert code == 0, result["summary"]["expectations"]
    assert result["complete"] is True
    assert result["device"]["reap"] == "process_reap"
    assert 0.9 * 1024 * 1024 - 65536 <= result["device"]["mem_total_kib"] <= 1024 * 1024
    lmk_kills = [kill for kill in result["kills"] if kill["killer"] == "lmk"]
    assert len(lmk_kills) >= 2
    assert {kill["reap_method"] for kill in lmk_kills if kill["reap_method"]} == {"process_reap"}
    assert any(kill["signal_to_reaped_us"] for kill in lmk_kills)
    assert all(kill["oom_score_adj"] > 0 and kill["rss_kib"] > 0 for kill in lmk_kills)
    assert result["summary"]["launches"] == 10
    with RecordReader(directory) as record:
        assert record.meta["why"] == "the scenario ended"
        assert len(record.counters()) > 30
    assert emulator.helpers() == []


def test_logcat_shows_what_aosps_lmkd_tests_look_for(emulator: Emulator) -> None:
    """As AOSP's lmkd_tests: somebody who only speaks the socket protocol is killed, and logcat tells it."""
    log = emulator.adb.check_shell("logcat -d -s lowmemorykiller")
    kills = {found["pid"]: found for found in KILL_LINE.finditer(log)}
    assert kills, log
    assert all(int(found["rss"]) > 0 for found in kills.values())
    reaped = {found["pid"] for found in REAP_LINE.finditer(log)}
    assert reaped & kills.keys()
    for pid in reaped & kills.keys():
        line = REAP_LINE.search(log, kills[pid].end())
        assert line is not None, "the reap line comes after the kill line"
    events = emulator.adb.check_shell("logcat -d -b events")
    assert "killinfo" in events
    fields = next(line for line in events.splitlines() if "killinfo" in line).split("[")[1].split("]")[0].split(",")
    assert len(fields) == 38
    assert fields[0] in kills


def test_a_dry_run_beside_the_devices_own_lmkd(emulator: Emulator) -> None:
    """It signals nobody, writes no log, chooses cached apps only, and lists what the device's lmkd did."""
    emulator.adb.check_shell("setprop lmk.standin_lmkd 1; setprop lmk.standin_kill_adj 600; start lmkd")
    try:
        before = emulator.adb.check_shell("logcat -d -b main,events | grep -c -e Kill -e killinfo || true")
        process, directory = emulator.start("--dry-run")
        code, result = finish(process)
        after = emulator.adb.check_shell("logcat -d -b main,events | grep -c -e Kill -e killinfo || true")
        assert emulator.adb.getprop("init.svc.lmkd") == "running"
    finally:
        emulator.adb.check_shell("stop lmkd; setprop lmk.standin_lmkd 0; setprop lmk.standin_kill_adj ''")
    assert code in (0, 1)
    assert result["complete"] is True
    dry = result["dry_run"]
    with RecordReader(directory) as record:
        deaths = [event.body for event in record.app_events("died") if not event.body.get("expected")]
        chosen = [kill for kill in record.kills() if kill.dry]
        end_ms = record.meta["duration_ms"]
    assert chosen and dry["decided"] == len({kill.pid for kill in chosen})
    # The scenario's apps are cached as soon as the next one is opened: somebody could always be spared.
    assert min(kill.oom_score_adj or 0 for kill in chosen) >= 600
    killed = [kill["pid"] for kill in dry["device_kills"]]
    dead = {death["pid"] for death in deaths}
    # Whoever is killed as the scenario ends may not be seen dying any more.
    late = {one["pid"] for one in dry["processes"] if (one["killed_t_ms"] or 0) > end_ms - 1000}
    assert killed and dead <= set(killed) and set(killed) - late <= dead
    assert int(after) - int(before) == len(killed), "only the device's lmkd has written its log"
    assert dry["agreed"] >= 1
    assert {p["pid"] for p in dry["processes"]} == {kill.pid for kill in chosen} | set(killed)


@pytest.mark.parametrize("fault", ["host stopped", "helper killed", "adb server killed"])
def test_a_run_outlives_it(emulator: Emulator, fault: str) -> None:
    process, directory = emulator.start()
    wait_for_kill(directory)
    if fault == "host stopped":
        process.send_signal(signal.SIGSTOP)
        time.sleep(10)
        process.send_signal(signal.SIGCONT)
    elif fault == "helper killed":
        (worker,) = emulator.helpers("lmk-helper")
        emulator.adb.check_shell(f"kill -9 {worker}")
    else:
        server = subprocess.run(["pgrep", "-P", str(process.pid), "adb"], capture_output=True, text=True, check=True)
        os.kill(int(server.stdout.split()[0]), signal.SIGKILL)
    code, result = finish(process)
    assert code in (0, 1), directory.with_suffix(".err").read_text()
    assert result["complete"] is True
    with RecordReader(directory) as record:
        assert foreground_deaths([event.body for event in record.app_events("died")]) == []
        assert record.device_events("failsafe"), "the helper says what it did meanwhile"
    assert emulator.kernel_oom_kills() == 0
    assert emulator.helpers() == []


def test_without_its_host_the_helper_keeps_the_device_alive(emulator: Emulator) -> None:
    process, directory = emulator.start()
    wait_for_kill(directory)
    process.kill()
    process.communicate()
    with AppRunner(emulator.adb) as runner:
        runner.status()
        events = [event.body for event in runner.events(timeout_s=120) if event.kind == "died"]
    assert events
    assert foreground_deaths(events) == []
    assert emulator.kernel_oom_kills() == 0
    with RecordReader(directory) as record:
        assert record.kills(), "what was recorded before is there"
        assert record.meta.get("complete") is not True
