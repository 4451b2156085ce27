"""The cgroup v2 files that oomd and systemd-oomd read, in the layout of the guest: /apps and /system, a group per uid,
in it one per process (tools/lmk-helper/apprunner_cgroup.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lmk.policy.api import FileError
from lmk.procfs.psi import Pressure
from lmk.sim.machine import Machine
from lmk.sim.memory import Memory
from lmk.sim.process import SimProcess
from lmk.sim.zone import PAGE_BYTES

ROOT = "/sys/fs/cgroup"
_ENOENT = 2


def group_of(process: SimProcess) -> str:
    """The path of a process's group, from the root of cgroup v2."""
    top = "apps" if process.of_app else "system"
    return f"/{top}/uid_{process.plan.uid}/pid_{process.pid}"


#: Of the root of memory cgroup v1: memory that is charged, alone and with swap.
V1_USAGE = ("/dev/memcg/memory.usage_in_bytes", "/dev/memcg/memory.memsw.usage_in_bytes")


def v1_usage(memory: Memory, path: str) -> str:
    """mm/memcontrol-v1.c, mem_cgroup_usage of the root: file and anonymous pages, and swap."""
    pages = memory.file_pages + memory.anon_pages + memory.locked_pages
    if path == V1_USAGE[1] and memory.zram is not None:
        pages += memory.zram.used
    return f"{pages * PAGE_BYTES}\n"


class Cgroups:
    """Answers from the living processes."""

    def __init__(self, machine: Machine, processes: Callable[[], list[SimProcess]]) -> None:
        self._machine = machine
        self._processes = processes
        self._files: Mapping[str, Callable[[list[SimProcess]], str]] = {
            "cgroup.procs": lambda members: "".join(f"{p.pid}\n" for p in members),
            "memory.current": lambda members: f"{sum(p.rss_pages for p in members) * PAGE_BYTES}\n",
            "memory.swap.current": lambda members: f"{sum(p.swap_pages for p in members) * PAGE_BYTES}\n",
            "memory.stat": self._stat,
            "memory.min": lambda _: "0\n",
            "memory.low": lambda _: "0\n",
            "memory.swap.max": lambda _: "max\n",
        }

    def children(self, group: str) -> tuple[str, ...] | FileError:
        """Groups directly below one; only those with a process in them, or below them."""
        prefix = group.rstrip("/") + "/"
        groups = [group_of(process) for process in self._processes()]
        if group and not any(path == group or path.startswith(prefix) for path in groups):
            return FileError("open", _ENOENT)
        below = {prefix + path.removeprefix(prefix).split("/")[0] for path in groups if path.startswith(prefix)}
        return tuple(sorted(below))

    def read(self, path: str) -> str | Pressure | FileError:
        """A file below the root."""
        group, _, name = path.removeprefix(ROOT).rpartition("/")
        members = [p for p in self._processes() if group_of(p) == group or group_of(p).startswith(group + "/")]
        if name == "memory.pressure" and group in ("", "/apps"):
            # Of the two groups that matter: everything, and what apps do, reclaim in the background left out.
            psi = self._machine.apps_psi() if group else self._machine.psi
            return psi.pressure("memory", self._machine.now_ns)
        if not members or name not in self._files:
            return FileError("open", _ENOENT)
        if name == "cgroup.procs":
            members = [process for process in members if group_of(process) == group]
        return self._files[name](members)

    def _stat(self, members: list[SimProcess]) -> str:
        scanned = sum(self._machine.memory.scanned.get(process.pid, 0) for process in members)
        anon = sum(process.anon_pages for process in members) * PAGE_BYTES
        # Text is what others read, and so is what is left of a former life.
        file = sum(process.hot_file.resident + process.cold_file.resident for process in members) * PAGE_BYTES
        return f"anon {anon}\nfile {file}\nkernel 0\nshmem 0\npgscan {scanned}\n"
