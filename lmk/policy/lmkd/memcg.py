"""Memory cgroup attributes (reference: sections 3.3, 5 and 10).

``resolve_attribute`` is what AOSP's cgroups.json and task_profiles.json say, for targets that answer
``CgroupAttributePath`` themselves.
"""

from __future__ import annotations

from lmk.policy.api import DescribeMemcg
from lmk.policy.lmkd.daemon import Daemon, Steps

#: Attribute -> file name in version 1 and 2.
_FILES: dict[str, tuple[str, str]] = {
    "MemSoftLimit": ("memory.soft_limit_in_bytes", "memory.low"),
    "MemStats": ("memory.stat", "memory.stat"),
    "MemUsage": ("memory.usage_in_bytes", "memory.current"),
    "MemAndSwapUsage": ("memory.memsw.usage_in_bytes", "memory.swap.current"),
    "MemPressureLevel": ("memory.pressure_level", "memory.pressure"),
    "MemCgroupEventControl": ("cgroup.event_control", "cgroup.event_control"),
}
MEMCG_V1_ROOT = "/dev/memcg"
CGROUP_V2_ROOT = "/sys/fs/cgroup"


def find_memcg(d: Daemon) -> Steps:
    """memcg_version: 0 none, 1 or 2; asked once."""
    if d.memcg_version is None:
        d.memcg_version = (yield DescribeMemcg()).version
    return d.memcg_version


def resolve_attribute(attribute: str, version: int, cgroup: str | None) -> str | None:
    """Path of an attribute. ``version``: where the memory controller is; ``cgroup``: text of the task's
    ``/proc/<pid>/cgroup``, None for the root. None: no such controller, attribute or group."""
    files = _FILES.get(attribute)
    if files is None or version not in (1, 2):
        return None
    group = "" if cgroup is None else _group_of(cgroup, version)
    if group is None:
        return None
    root = MEMCG_V1_ROOT if version == 1 else CGROUP_V2_ROOT
    return f"{root}{group.rstrip('/')}/{files[version - 1]}"


def _group_of(cgroup: str, version: int) -> str | None:
    """``5:memory:/apps/…`` in version 1, ``0::/…`` in version 2."""
    for line in cgroup.split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3 and (parts[1] == "memory" if version == 1 else parts[0] == "0" and not parts[1]):
            return parts[2]
    return None
