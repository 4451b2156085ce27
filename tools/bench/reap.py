"""SIGKILL until the memory is back: .venv/bin/python tools/bench/reap.py [CONFIG] [--repeats N] [--json]

Victims of 100, 300 and 600 MiB of anonymous memory, each way of taking it (process_reap, process_mrelease, exit
alone), the victim on an idle CPU of its own and on one that a busy loop at nice -20 has to itself; the helper and
its reapers run on the other CPU. Back is when nr_free_pages has risen by 95 % of the victim's RssAnon; the last column
also counts pages on the allocator's per-CPU lists, which nr_free_pages leaves out although they can be had. Software
emulation: compare the rows of one run, the times themselves say nothing about a phone.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import statistics
import sys
import tempfile
import time
from typing import Any

from _guest import booted, device_config, host_load, show

from lmk.config.scenario import load_scenario
from lmk.config.timeline import Timeline, compile_timeline
from lmk.device.adb import AdbDevice
from lmk.device.apprunner import AppRunner
from lmk.device.helper import HelperStream, start_helper
from lmk.device.helper_messages import Killed, SettingsDone
from lmk.device.helper_requests import Kill, Settings, Stop
from lmk.device.helper_types import KillFlag, ReapMethod

SIZES_MIB = (100, 300, 600)
METHODS = (ReapMethod.PROCESS_REAP, ReapMethod.PROCESS_MRELEASE, ReapMethod.NONE)
SCENARIO = """\
name: victims
description: processes to be killed, one after the other
seed: 1
apps:
{apps}
steps:
  - wait: 900s
"""
#: The victim and the hog on CPU 1, the helper on CPU 0.
_HELPER_CPUS = 0b01
_VICTIM_CPUS = "2"
_HOG_PID = "/data/local/tmp/hog.pid"


def timeline() -> Timeline:
    """One app per size; nothing is launched by itself."""
    apps = "\n".join(
        f"  victim{size}: {{anon: {size}MiB, file: 4MiB, hot: 0.1, cold_start: 1ms}}" for size in SIZES_MIB
    )
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(SCENARIO.format(apps=apps))
        file.flush()
        return compile_timeline(load_scenario(file.name), None, 1)


def spawn(runner: AppRunner, adb: AdbDevice, app: int, name: str) -> int:
    """Launch a victim, wait until its memory is written and pin it; its pid."""
    runner.step(f"launch {app}")
    pid = 0
    for event in runner.events(until="filled", timeout_s=120):
        if event.kind == "spawned" and event.body["app"] == name:
            pid = int(event.body["pid"])
    adb.check_shell(f"busybox taskset -ap {_VICTIM_CPUS} {pid}")
    time.sleep(0.3)
    return pid


def kill(stream: HelperStream, pid: int, method: ReapMethod) -> Killed:
    """Kill it; the whole story."""
    ticks = next(row.start_ticks for row in stream.table(1) if row.pid == pid)  # type: ignore[arg-type]
    kill_id = stream.post(Kill(pid=pid, start_ticks=ticks, method=method, flags=KillFlag.MEASURE), as_event=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        received = stream.next_event(1)
        if received is not None and received.id == kill_id and isinstance(received.message, Killed):
            return received.message
    raise TimeoutError(f"no end of the kill of {pid}")


def main() -> int:
    """Measure every combination, print the medians."""
    parser = argparse.ArgumentParser(description="SIGKILL until memory is back.")
    parser.add_argument("config", nargs="?", default="phone-2gb")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no further repeat after so long")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    plan = timeline()
    names = {size: process for size in SIZES_MIB for process in plan.processes if process.name == f"victim{size}"}
    stories: dict[tuple[bool, int, ReapMethod], list[Killed]] = {}
    with (
        booted(device_config(args.config)) as guest,
        start_helper(guest.adb).connect() as stream,
        AppRunner(guest.adb) as runner,
        host_load(guest) as loads,
    ):
        stream.request(Settings(flags=0, main_cpus=_HELPER_CPUS, reaper_cpus=_HELPER_CPUS), SettingsDone)
        runner.start(plan)
        until_s = time.monotonic() + args.minutes * 60
        for starved, size, method in itertools.chain.from_iterable(
            itertools.product((False, True), SIZES_MIB, METHODS)
            for repeat in range(args.repeats)
            if repeat == 0 or time.monotonic() < until_s
        ):
            process = names[size]
            pid = spawn(runner, guest.adb, process.id, process.process_name)
            hog = start_hog(guest.adb, pid) if starved else 0
            story = kill(stream, pid, method)
            if hog:
                guest.adb.check_shell(f"kill -9 {hog}")
            stories.setdefault((starved, size, method), []).append(story)
            stream.keep_alive()
        stream.done(Stop(handback=0))
        facts: dict[str, Any] = {"config": args.config, "kernel": guest.facts.release, "accel": guest.accel.name}
    facts |= {"host_load": round(loads[0].other_fraction, 3), "disturbed": loads[0].disturbed}
    show("SIGKILL to memory back, median ms (emulated)", rows(stories), facts, as_json=args.json)
    return 0


def start_hog(adb: AdbDevice, victim: int) -> int:
    """A busy loop at nice -20 on the victim's CPU; its pid. The victim, at nice 19, gets 0.02 % of that CPU."""
    adb.check_shell(f"busybox renice 19 -p {victim}")
    loop = f"exec taskset {_VICTIM_CPUS} nice -n -20 sh -c 'while :; do :; done'"
    # It writes its own pid: setsid may fork, and each exec keeps the pid.
    adb.check_shell(f'setsid sh -c "echo \\$\\$ > {_HOG_PID}; {loop}" </dev/null >/dev/null 2>&1 &')
    time.sleep(0.3)
    return int(adb.check_shell(f"cat {_HOG_PID}"))


def rows(stories: dict[tuple[bool, int, ReapMethod], list[Killed]]) -> list[dict[str, Any]]:
    """One row per CPU, size and method; times in ms after the signal, medians, None if that was never seen."""
    found = []
    for (starved, size, method), kills in sorted(stories.items()):
        found.append(
            {
                "victim's CPU": "starved" if starved else "idle",
                "MiB": size,
                "method": method.name.lower(),
                "n": len(kills),
                "call answered ESRCH": sum(kill.reap_error == errno.ESRCH for kill in kills),
                "reaped": _median(kills, "reap_end_ns") if method is not ReapMethod.NONE else None,
                "exit": _median(kills, "exit_ns"),
                "nr_free_pages back": _median(kills, "back_ns"),
                "with per-CPU lists": _median(kills, "back_allocatable_ns"),
            }
        )
    return found


def _median(kills: list[Killed], name: str) -> float | None:
    values = [(getattr(kill, name) - kill.signal_ns) / 1e6 for kill in kills if getattr(kill, name)]
    return round(statistics.median(values), 1) if values else None


if __name__ == "__main__":
    sys.exit(main())
