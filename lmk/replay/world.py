"""The state of a recorded virtual machine: its files, processes, properties and what each step changes.

Nothing here knows a policy or a clock beyond the times written in the script; see ``vectors/README.md``.
"""

from __future__ import annotations

import copy
import errno
import heapq
from collections.abc import Callable
from typing import Any

from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure, parse_pressure
from lmk.procfs.vmstat import Vmstat
from lmk.procfs.zoneinfo import Zoneinfo, parse_zoneinfo
from lmk.replay import render

MEMCG_ROOT = "/dev/memcg"
PID_FILES = ("status", "statm", "stat", "cmdline", "cgroup", "oom_score_adj")

Parsed = Meminfo | Vmstat | Zoneinfo | Pressure


class Process:
    """One process; outlives its pid, because a pidfd still refers to it."""

    __slots__ = ("born", "dead", "fields", "hidden", "killed", "pid")

    def __init__(self, fields: dict[str, Any]) -> None:
        #: As it started: the recorder writes memory.stat once and never again.
        self.born = fields
        self.fields = dict(fields)
        self.pid = int(fields["pid"])
        self.hidden = frozenset(fields.get("no") or ())
        self.killed = False
        self.dead = False

    def change(self, fields: dict[str, Any]) -> None:
        self.fields.update(fields)
        self.hidden = frozenset(self.fields.get("no") or ())


class _File:
    """One file outside /proc/<pid>. Text, or rendered from the world's values when asked for."""

    __slots__ = ("error", "parse", "parsed", "render", "text")

    def __init__(
        self,
        text: str | None = None,
        render: Callable[[], str] | None = None,
        parse: Callable[[str], Parsed | None] | None = None,
    ) -> None:
        self.text = text
        self.render = render
        self.parse = parse
        self.parsed: Parsed | None = None
        self.error = 0

    def content(self) -> str:
        if self.text is None:
            assert self.render is not None
            self.text = self.render()
        return self.text


class World:
    """One scenario's world. All times in microseconds."""

    def __init__(self, script: dict[str, Any]) -> None:
        cfg = script["cfg"]
        self.page_bytes = int(cfg.get("pagesize", 4096))
        self.page_kib = self.page_bytes // 1024
        self.props: dict[str, str] = {}
        self._change_props(script["props"])
        self.gpu_bytes: int | None = script.get("gpu")
        self.memory_events_fail = False
        self._memcg_apps = bool(script.get("memcg_apps"))
        self._meminfo: dict[str, int] = dict(script["mi"])
        self._vmstat: dict[str, int] = dict(script["vs"])
        self._pressure: dict[str, list[list[float]]] = dict(script["psi"])
        self._zones: dict[str, Any] = copy.deepcopy(script["zi"])
        self._files: dict[str, _File] = {}
        self._kept_open: set[str] = set()
        self._deaths: list[tuple[int, int, Process]] = []
        self._signals = 0
        #: Those with files in /proc, by pid.
        self.processes: dict[int, Process] = {}
        self._latest: dict[int, Process] = {}
        for fields in script["procs"]:
            self.add_process(fields)
        self._render_meminfo()
        self._render_vmstat()
        self._render_zoneinfo()
        # A step that changes pressure creates the files, as the recorder does.
        for name in () if cfg.get("nopsi") else self._pressure:
            self._render_pressure(name)
        self._change_files(script.get("files", {}))

    # ---- what steps change ---------------------------------------------------------------

    def apply_step(self, step: dict[str, Any]) -> None:
        """Everything of a step but its events. Rendered texts replace overrides, as in the recorder."""
        if step.get("mi"):
            self._meminfo.update(step["mi"])
            self._render_meminfo()
        if step.get("vs"):
            self._vmstat.update(step["vs"])
            self._render_vmstat()
        for name, rows in step.get("psi", {}).items():
            self._pressure[name] = rows
            self._render_pressure(name)
        if step.get("zi"):
            for path, value in step["zi"].items():
                self._change_zone(path.split("."), value)
            self._render_zoneinfo()
        self._change_files(step.get("files", {}))
        self._change_props(step.get("props", {}))
        self.gpu_bytes = step.get("gpu", self.gpu_bytes)
        self.memory_events_fail = bool(step.get("memfail", self.memory_events_fail))
        for fields in step.get("new", ()):
            self.add_process(fields)
        for pid, fields in step.get("proc", {}).items():
            # The recorder writes the files of a changed process anew, also when it is dead.
            process = self._latest.get(int(pid))
            if process is not None:
                process.change(fields)
                self.processes[process.pid] = process

    def add_process(self, fields: dict[str, Any]) -> None:
        """A process starts; one that has its pid is dead from now on."""
        process = Process(fields)
        if process.pid in self.processes:
            self.end_process(self.processes[process.pid])
        self.processes[process.pid] = self._latest[process.pid] = process

    def end_process(self, process: Process) -> None:
        """Gone, with its /proc directory."""
        process.dead = True
        if self.processes.get(process.pid) is process:
            del self.processes[process.pid]

    def signal(self, process: Process | None, now_us: int) -> int:
        """SIGKILL; errno, 0 when sent. The first one that succeeds sets the time of death."""
        if process is None or process.dead:
            return errno.ESRCH
        if process.fields.get("kerr"):
            return int(process.fields["kerr"])
        if not process.killed:
            process.killed = True
            delay_us = int(process.fields["death"])
            if delay_us >= 0:
                self._signals += 1
                heapq.heappush(self._deaths, (now_us + delay_us, self._signals, process))
        return 0

    def next_death_us(self) -> float:
        """Time of the next death, infinity if none is due."""
        while self._deaths and self._deaths[0][2].dead:
            heapq.heappop(self._deaths)
        return self._deaths[0][0] if self._deaths else float("inf")

    def bury(self, now_us: int) -> None:
        """Deaths that are due."""
        while self._deaths and self._deaths[0][0] <= now_us:
            self.end_process(heapq.heappop(self._deaths)[2])

    def _change_props(self, changes: dict[str, str | None]) -> None:
        for name, text in changes.items():
            if text is None:
                self.props.pop(name, None)
            else:
                self.props[name] = text

    def _change_zone(self, path: list[str], value: int) -> None:
        node = self._zones["nodes"][int(path[0])]
        if path[1] == "stats":
            node["stats"][path[2]] = value
        else:
            node["zones"][int(path[1])][path[2]] = value

    # ---- files ---------------------------------------------------------------------------

    def _render_meminfo(self) -> None:
        file = _File(render=lambda: render.meminfo(self._meminfo))
        file.parsed = Meminfo(kib=self._meminfo)
        self._files["/proc/meminfo"] = file

    def _render_vmstat(self) -> None:
        file = _File(render=lambda: render.vmstat(self._vmstat))
        file.parsed = Vmstat(counters=self._vmstat)
        self._files["/proc/vmstat"] = file

    def _render_zoneinfo(self) -> None:
        self._files["/proc/zoneinfo"] = _File(render=lambda: render.zoneinfo(self._zones), parse=parse_zoneinfo)

    def _render_pressure(self, name: str) -> None:
        rows = self._pressure[name]
        self._files[f"/proc/pressure/{name}"] = _File(render=lambda: render.pressure(rows), parse=parse_pressure)

    def _change_files(self, changes: dict[str, str | int | None]) -> None:
        for path, content in changes.items():
            if content is None:
                self._files.pop(path, None)
            elif isinstance(content, str):
                self._files[path] = _File(text=content)
            elif path in self._files:
                self._files[path].error = content
            else:
                file = self._files[path] = _File(text="")
                file.error = content

    def exists(self, path: str) -> bool:
        """Can this file be opened?"""
        return path in self._files or self._cgroup_owner(path) is not None

    def text(self, path: str) -> str | None:
        """A file's text whatever reading it would give; None if it is absent. For tests."""
        if path in self._files:
            return self._files[path].content()
        _, _, pid, name = [*path.split("/"), "", "", ""][:4]
        if path.startswith("/proc/") and pid not in ("", "pressure") and name in PID_FILES:
            answer = self.read_process(int(pid), name)
            return answer if isinstance(answer, str) else None
        answer = self._read_cgroup(path)
        return answer if isinstance(answer, str) else None

    def read(self, path: str, keep: bool, parsed: bool) -> str | Parsed | tuple[str, int]:
        """A file's text, its parsed form (``parsed``, where the text is well-formed), or (op, errno).

        ``keep``: through a descriptor that stays open until a read fails.
        """
        file = self._files.get(path)
        if file is None:
            if path in self._kept_open:
                self._kept_open.discard(path)
                return ("read", errno.ESRCH)
            return self._read_cgroup(path)
        if file.error:
            self._kept_open.discard(path)
            return ("read", file.error)
        if keep:
            self._kept_open.add(path)
        if parsed:
            if file.parsed is not None:
                return file.parsed
            if file.parse is not None:
                file.parsed = file.parse(file.content())
                if file.parsed is not None:
                    return file.parsed
        return file.content()

    def write(self, path: str, text: str) -> int:
        """Replace a file's content; errno of the open, 0 when written."""
        if path in self._files:
            self._files[path] = _File(text=text)
            return 0
        return 0 if self._cgroup_owner(path) is not None else errno.ENOENT

    def read_process(self, pid: int, name: str) -> str | tuple[str, int]:
        """Text of /proc/<pid>/<name>, or (op, errno)."""
        process = self.processes.get(pid)
        if process is None or name in process.hidden:
            return ("open", errno.ENOENT)
        match name:
            case "status":
                return render.status(process.fields)
            case "cmdline":
                return render.cmdline(process.fields)
            case "statm":
                return render.statm(process.fields, self.page_kib)
            case "stat":
                return render.stat(process.fields, self.page_kib)
            case "cgroup":
                return render.cgroup(process.fields)
            case "oom_score_adj":
                return "0\n"
        return ("open", errno.ENOENT)

    def resident_pages(self, pid: int) -> int | tuple[str, int]:
        """Second number of statm, or (op, errno)."""
        process = self.processes.get(pid)
        if process is None or "statm" in process.hidden:
            return ("open", errno.ENOENT)
        return render.resident_pages(process.fields, self.page_kib)

    def _cgroup_owner(self, path: str) -> Process | None:
        """The process whose own memory cgroup this file is in, if the file exists."""
        if not self._memcg_apps or not path.startswith(f"{MEMCG_ROOT}/apps/"):
            return None
        parts = path.split("/")
        if len(parts) != 7 or not parts[5].startswith("pid_"):
            return None
        if parts[6] not in ("memory.soft_limit_in_bytes", "memory.stat"):
            return None
        process = self.processes.get(int(parts[5][4:]))
        return process if process and parts[4] == f"uid_{process.fields['uid']}" else None

    def _read_cgroup(self, path: str) -> str | tuple[str, int]:
        process = self._cgroup_owner(path)
        if process is None:
            return ("open", errno.ENOENT)
        return render.memory_stat(process.born) if path.endswith("memory.stat") else "0\n"
