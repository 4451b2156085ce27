"""``lmk record``, ``top`` and ``doctor --target`` on the kernel in the guest, with the stand-in for the stock lmkd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.backends import registry
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.device.adb import AdbDevice
from lmk.guest.image import build_guest_image
from lmk.record.reader import RecordReader
from tests.cli.test_top_verb import Terminal
from tests.conftest import Guests, test_kernel

pytestmark = pytest.mark.emulator
NAME = "test-guest-observe"


@pytest.fixture(scope="module")
def guest_adb(tmp_path_factory: pytest.TempPathFactory, guest_factory: Guests) -> Iterator[AdbDevice]:
    guest_factory.close()  # one guest at a time
    before = os.environ.get("LMK_STATE")
    os.environ["LMK_STATE"] = str(tmp_path_factory.mktemp("state"))
    config = load_device_config(find_config("go-1gb"))
    try:
        registry.up(config, test_kernel(config.kernel.base), build_guest_image(), name=NAME, idle_s=600)
        try:
            with registry.attach(NAME) as attached:
                attached.adb.check_shell("setprop lmk.standin_lmkd 1; start lmkd")
                yield attached.adb
        finally:
            registry.down(NAME)
    finally:
        os.environ.pop("LMK_STATE", None)
        if before is not None:
            os.environ["LMK_STATE"] = before


def lmk(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lmk", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_kill_of_the_devices_own_lmkd_is_recorded(guest_adb: AdbDevice, tmp_path: Path) -> None:
    victim = int(guest_adb.check_shell("sleep 600 >/dev/null 2>&1 </dev/null & echo $!").split()[-1])
    guest_adb.check_shell(f"echo 900 > /proc/{victim}/oom_score_adj")
    recording = lmk("record", "--target", f"emulator:{NAME}", "--output", str(tmp_path / "run"), "--json")
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "run.sqlite").exists():
            assert recording.poll() is None and time.monotonic() < deadline, recording.communicate()
            time.sleep(0.1)
        time.sleep(4)
        text = f"Kill 'sleep' ({victim}), uid 0, oom_score_adj 900 to free 1000kB rss, 0kB swap; reason: cw"
        guest_adb.check_shell(f'kill -9 {victim}; log -p i -t lowmemorykiller "{text}"')
        time.sleep(2)
        recording.send_signal(signal.SIGINT)
        out, err = recording.communicate(timeout=60)
    finally:
        recording.kill()
        recording.wait()
    assert recording.returncode == 0, err
    result = json.loads(out)
    (kill,) = [kill for kill in result["kills"] if not kill["dry_run"]]
    assert (kill["pid"], kill["killer"], kill["rss_kib"]) == (victim, "lmkd", 1000)
    assert (result["complete"], result["why"]) == (True, "stopped with Ctrl-C")
    with RecordReader(tmp_path / "run") as record:
        assert len(record.counters()) > 5
        assert record.device_events("processes")
        (sources,) = record.kill_sources().values()
        assert sources[0].text == text
    assert guest_adb.getprop("init.svc.lmkd") == "running"
    replayed = lmk("replay", str(tmp_path / "run"), "--output", str(tmp_path / "replay"), "--json")
    out, err = replayed.communicate(timeout=60)
    assert replayed.returncode == 0, err
    assert json.loads(out)["left_ms"] is None


def test_top_is_live_on_a_terminal(guest_adb: AdbDevice) -> None:
    # What lmkd manages, and so top shows, are processes of apps' users.
    guest_adb.check_shell("echo app:x:10001:10001::/:/system/bin/sh >> /etc/passwd")
    app = "busybox start-stop-daemon -S -p /none -c app -a /system/bin/sleep -- 600"
    victim = int(guest_adb.check_shell(f"{app} >/dev/null 2>&1 </dev/null & echo $!; sleep 1").split()[-1])
    guest_adb.check_shell(f"echo 905 > /proc/{victim}/oom_score_adj")
    terminal = Terminal([sys.executable, "-m", "lmk", "top", "--target", f"emulator:{NAME}"])
    try:
        terminal.until(r"free memory, low watermark +[█▏▎▍▌▋▊▉]*·* +\d")
        terminal.until(rf"cached +1 +\d+ +\S*sleep \({victim}\) +905")
        guest_adb.check_shell(f"kill -9 {victim}")
        terminal.until(rf"\A(?![\s\S]*sleep \({victim}\))[\s\S]*free memory")
        terminal.press(b"q")
        assert terminal.ended() == 0
    finally:
        terminal.close()
    assert guest_adb.getprop("init.svc.lmkd") == "running"


def test_doctor_verifies_every_step(guest_adb: AdbDevice) -> None:
    doctor = lmk("doctor", "--target", f"emulator:{NAME}", "--json")
    out, err = doctor.communicate(timeout=120)
    checks = {check["name"].partition(": ")[2]: check for check in json.loads(out)["checks"] if NAME in check["name"]}
    assert all(check["ok"] for check in checks.values()), checks
    assert list(checks) == [
        "starts", "adb answers", "boot completed", "root", "SELinux permissive", "memory", "kernel",
        "stops and starts the device's lmkd", "helper", "a sample", "a pressure trigger", "kill and reap",
    ]  # fmt: skip
    assert checks["kill and reap"]["found"].startswith("signalled, then process_reap")
    assert doctor.returncode == 0, err
    assert guest_adb.getprop("init.svc.lmkd") == "running"
