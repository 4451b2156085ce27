"""What a device brings along: its own lmkd, its properties, where its memory controller is.

A stock lmkd is stopped before lmk takes over and always started again: by ``Stop(handback)`` at the end of a run, by
the helper's fail-safe when the host has vanished.
"""

from __future__ import annotations

from typing import Any

from lmk.device.adb import AdbDevice
from lmk.device.helper_messages import Hello
from lmk.engine.observer import LOG_TAG
from lmk.logs.scan import scan_lines
from lmk.policy.api import Memcg
from lmk.procfs.properties import parse_getprop
from lmk.units import NS_PER_MS

SERVICE = "lmkd"


def read_properties(adb: AdbDevice) -> dict[str, str]:
    """All properties of the device."""
    return parse_getprop(adb.check_shell("getprop"))


def stock_lmkd_runs(properties: dict[str, str]) -> bool:
    """Whether init says that the device's own lmkd is running."""
    return properties.get(f"init.svc.{SERVICE}") == "running"


def transport_cpus(properties: dict[str, str]) -> int:
    """Mask of the CPUs that carry the bytes between host and device, where the device says so; 0 where it does not.

    The helper's main thread belongs there: a message to another CPU waits for what cannot be interrupted on that one.
    """
    text = properties.get("ro.lmk_guest.transport_cpus", "0")
    return int(text) if text.isdecimal() else 0


def parse_memcg(mounts: str) -> Memcg:
    """The memory controller from /proc/mounts: a v1 hierarchy with it wins over cgroup2, as in libprocessgroup."""
    version = 0
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        if fields[2] == "cgroup" and "memory" in fields[3].split(","):
            return Memcg(1)
        if fields[2] == "cgroup2":
            version = 2
    return Memcg(version)


def find_memcg(adb: AdbDevice) -> Memcg:
    """Where the device's memory controller is mounted."""
    return parse_memcg(adb.check_shell("cat /proc/mounts"))


def parse_kill_lines(log: str, now_ns: int, realtime_ns: int) -> list[dict[str, Any]]:
    """Kills that the device's own lmkd logged (``logcat -v epoch``) since the device's clocks showed these times.

    ``t_ns`` (monotonic), pid, name, uid and oom_score_adj of each, in order. A kill without such a time is left out: it
    may be from before.
    """
    return [
        {
            "t_ns": report.stamp.ns - realtime_ns + now_ns,
            "pid": report.pid,
            "name": report.name,
            "uid": report.uid,
            "oom_score_adj": report.adj,
        }
        for report in scan_lines(log.splitlines()).reports
        if report.kind == "lmkd"
        and report.stamp is not None
        and report.stamp.dated
        and not report.stamp.boot
        # logcat tells milliseconds, rounded down
        and report.stamp.ns >= realtime_ns - realtime_ns % NS_PER_MS
    ]


def logged_kills(adb: AdbDevice, hello: Hello) -> list[dict[str, Any]]:
    """What the device's lmkd has killed since the helper said hello; empty where there is no logcat."""
    result = adb.shell(f"logcat -d -v epoch -s {LOG_TAG}")
    return parse_kill_lines(result.stdout, hello.now_ns, hello.realtime_ns) if result.exit_code == 0 else []
