"""What a device brings along: its own lmkd, its properties, where its memory controller is.

A stock lmkd is stopped before lmk takes over and always started again: by ``Stop(handback)`` at the end of a run, by
the helper's fail-safe when the host has vanished.
"""

from __future__ import annotations

from lmk.device.adb import AdbDevice
from lmk.logs.scan import scan_lines
from lmk.policy.api import Memcg
from lmk.procfs.properties import parse_getprop

SERVICE = "lmkd"


def read_properties(adb: AdbDevice) -> dict[str, str]:
    """All properties of the device."""
    return parse_getprop(adb.check_shell("getprop"))


def stock_lmkd_runs(properties: dict[str, str]) -> bool:
    """Whether init says that the device's own lmkd is running."""
    return properties.get(f"init.svc.{SERVICE}") == "running"


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


def parse_kill_lines(log: str) -> list[dict[str, int | str | None]]:
    """Kills that the device's own lmkd logged: pid, name, uid and oom_score_adj of each, in order."""
    return [
        {"pid": report.pid, "name": report.name, "uid": report.uid, "oom_score_adj": report.adj}
        for report in scan_lines(log.splitlines()).reports
        if report.kind == "lmkd"
    ]


def logged_kills(adb: AdbDevice) -> list[dict[str, int | str | None]]:
    """What the device's lmkd has killed, as far as its log reaches back; empty where there is no logcat."""
    result = adb.shell("logcat -d -s lowmemorykiller")
    return parse_kill_lines(result.stdout) if result.exit_code == 0 else []
