"""What a device brings along: its own lmkd, its properties, where its memory controller is.

A stock lmkd is stopped before lmk takes over and always started again: by ``Stop(handback)`` at the end of a run, by
the helper's fail-safe when the host has vanished.
"""

from __future__ import annotations

import re

from lmk.device.adb import AdbDevice
from lmk.policy.api import Memcg

_PROPERTY = re.compile(r"^\[(?P<name>[^\]]*)\]: \[(?P<value>.*?)\]$", re.MULTILINE | re.DOTALL)
SERVICE = "lmkd"


def parse_getprop(text: str) -> dict[str, str]:
    """``getprop`` without arguments prints ``[name]: [value]`` per line; a value may hold newlines."""
    return {found["name"]: found["value"] for found in _PROPERTY.finditer(text.replace("\r\n", "\n"))}


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
