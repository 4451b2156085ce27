"""A small scripted device for the worked cases: the common start of reference section 12.1, and its changes.

Times are milliseconds after the priming event. Between the calls the daemon's own main loop runs, so a case that
the reference states as one call of the handler is staged here as the event, or the poll, that makes that call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import attrs

from lmk.policy.api import HandlerBegin, HandlerEnd
from lmk.policy.decision import Decision
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.replay.target import Effect, Override, VectorTarget

PRIME_MS = 100_000
TAIL_MS = 200

MakePolicy = Callable[[str], LmkdPolicy]

MEMINFO = {
    "MemTotal": 4_000_000,
    "MemFree": 200_000,
    "Buffers": 0,
    "Cached": 0,
    "SwapCached": 0,
    "Active(anon)": 1_200_000,
    "Inactive(anon)": 800_000,
    "Active(file)": 399_996,
    "Inactive(file)": 400_000,
    "Unevictable": 0,
    "SwapTotal": 2_000_000,
    "SwapFree": 1_000_000,
    "Shmem": 40_000,
    "CmaFree": 0,
}
VMSTAT = {
    "nr_inactive_file": 100_000,
    "nr_active_file": 99_999,
    "workingset_refault_file": 0,
    "pgrefill": 2000,
    "pgscan_kswapd": 1000,
    "pgscan_direct": 500,
}
#: pid -> (adj, rss kB), registered in this order
APPS = {
    1001: (950, 100_000),
    1002: (910, 200_000),
    1003: (700, 300_000),
    1004: (200, 150_000),
    1005: (200, 250_000),
    1006: (0, 400_000),
}
#: What section 12.4 calls the table.
TARGETS = [[18432, 0], [23040, 100], [27648, 200], [32256, 250], [55296, 900], [80640, 950]]


def zone(low: int = 12500, minimum: int = 10000, high: int = 15000, prot: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """One populated zone, pages."""
    return {
        "name": "Normal",
        "free": 50000,
        "min": minimum,
        "low": low,
        "high": high,
        "present": 1_000_000,
        "managed": 1_000_000,
        "cma": 0,
        "prot": list(prot),
        "fcma": 0,
    }


def zones(*populated: dict[str, Any]) -> dict[str, Any]:
    """/proc/zoneinfo of one node."""
    stats = {"nr_inactive_file": 100_000, "nr_active_file": 99_999, "workingset_refault_file": 0}
    return {"fmt": "6.1", "nodes": [{"id": 0, "stats": stats, "zones": list(populated)}]}


def app(pid: int, rss: int, **fields: Any) -> dict[str, Any]:
    """A process that survives SIGKILL unless ``death`` says after how many µs it is gone."""
    base = {"pid": pid, "uid": pid + 9000, "name": f"app.{pid}", "rss": rss, "swap": 5000, "death": -1}
    return {**base, **fields}


def pressure(memory_full: float = 0.0) -> dict[str, list[list[float]]]:
    """PSI files."""
    return {
        "memory": [[memory_full, 0.0, 0.0, 0], [memory_full, 0.0, 0.0, 0]],
        "io": [[0.0, 0.0, 0.0, 0], [0.0, 0.0, 0.0, 0]],
        "cpu": [[0.0, 0.0, 0.0, 0]],
    }


@attrs.frozen(kw_only=True)
class Call:
    """One handler call. ``t_ms`` after the priming event; ``kills`` as (reason, lowest adj, pid)."""

    t_ms: int
    name: str
    data: int
    by_event: bool
    end: HandlerEnd | None
    effects: list[Effect]
    decision: Decision | None

    @property
    def kills(self) -> list[tuple[int, int, int]]:
        return [(e[6], e[4], e[1]) for e in self.effects if e[0] == "evlog"]

    @property
    def victims(self) -> list[int]:
        return [e[1] for e in self.effects if e[0] == "evlog"]

    @property
    def logs(self) -> list[str]:
        return [e[2] for e in self.effects if e[0] == "log"]

    @property
    def text(self) -> str:
        """The reason in the kill line."""
        lines = [line for line in self.logs if line.startswith("Kill '") or "reason: " in line]
        assert lines, f"no kill line at {self.t_ms} ms"
        return lines[0].partition("reason: ")[2]

    @property
    def update(self) -> tuple[int, int, int]:
        """Polled level, paused level, interval; level -1 for none."""
        assert self.end is not None
        return (self.end.polling, self.end.paused, self.end.interval_ms)


class Run:
    """What the daemon did in one small world."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.outside: list[tuple[int, Effect]] = []
        self.initial: list[Effect] = []
        self.ended = ""
        self.policy: LmkdPolicy | None = None

    # lmk.replay.target.Observer
    def start_up(self, effects: list[Effect]) -> None:
        self.initial = effects

    def handler(
        self,
        t_us: int,
        begin: HandlerBegin,
        end: HandlerEnd | None,
        effects: list[Effect],
        decisions: list[Decision],
    ) -> None:
        self.calls.append(
            Call(
                t_ms=t_us // 1000 - PRIME_MS,
                name=begin.name,
                data=begin.data,
                by_event=begin.by_event,
                end=end,
                effects=effects,
                decision=decisions[-1] if decisions else None,
            )
        )

    def loop(self, t_us: int, effects: list[Effect]) -> None:
        self.outside += [(t_us // 1000 - PRIME_MS, effect) for effect in effects]

    def end(self, why: str, t_us: int) -> None:
        self.ended = why

    # for the cases
    def pressure_calls(self) -> list[Call]:
        """Calls of the pressure handlers after the priming event."""
        return [call for call in self.calls if call.name in ("psi", "mp") and call.t_ms > 0]

    def at(self, t_ms: int, name: str = "psi") -> Call:
        """The one call of a handler at a time."""
        found = [call for call in self.calls if call.t_ms == t_ms and call.name == name]
        assert len(found) == 1, f"{len(found)} {name} calls at {t_ms}; calls: {self.times()}"
        return found[0]

    def times(self) -> list[int]:
        return [call.t_ms for call in self.pressure_calls()]

    def kills(self) -> list[tuple[int, int, int]]:
        return [kill for call in self.calls for kill in call.kills]

    def logs(self) -> list[str]:
        inside = [line for call in self.calls for line in call.logs]
        return inside + [effect[2] for _, effect in self.outside if effect[0] == "log"]

    def effects(self, kind: str) -> list[Effect]:
        """Effects of one kind after start-up, in handlers."""
        return [effect for call in self.calls for effect in call.effects if effect[0] == kind]


class Device:
    """A script being written; ``run`` replays it."""

    def __init__(self, **changes: Any) -> None:
        self._kswapd = VMSTAT["pgscan_kswapd"]
        self._direct = VMSTAT["pgscan_direct"]
        self.prime = True
        self.overrides: dict[type, Override] = {}
        self.start_ms = -100
        self.script: dict[str, Any] = {
            "id": "small-world",
            "kind": "psi",
            "cfg": {"start_us": 0, "pidfd": 1, "mrelease": 0, "memcg": "v1"},
            "props": {},
            "mi": dict(MEMINFO),
            "vs": dict(VMSTAT),
            "psi": pressure(),
            "zi": zones(zone()),
            "procs": [app(pid, rss) for pid, (_, rss) in APPS.items()],
            "reg": [[pid, adj, None] for pid, (adj, _) in APPS.items()],
            "setup": [["conn", 0]],
            "steps": [],
            "end": 0,
        }
        for key, value in changes.items():
            current = self.script.get(key)
            self.script[key] = {**current, **value} if isinstance(current, dict) and key != "zi" else value

    def process(self, pid: int, **fields: Any) -> Device:
        """Change a process before the start."""
        next(p for p in self.script["procs"] if p["pid"] == pid).update(fields)
        return self

    def only(self, *pids: int) -> Device:
        """Register only these of the common processes."""
        self.script["reg"] = [entry for entry in self.script["reg"] if entry[0] in pids]
        return self

    def with_process(self, pid: int, adj: int, rss: int, **fields: Any) -> Device:
        """One process more, registered last."""
        self.script["procs"].append(app(pid, rss, **fields))
        self.script["reg"].append([pid, adj, None])
        return self

    def at(self, t_ms: int, *events: list[Any], k: bool = False, d: bool = False, **changes: Any) -> Device:
        """A step. ``k``, ``d``: pgscan_kswapd, pgscan_direct move on; ``R``: workingset_refault_file;
        other numbers are meminfo kB, or vmstat counters where that has them."""
        step: dict[str, Any] = {"t": (PRIME_MS + t_ms) * 1000, "mi": {}, "vs": {}, "ev": list(events)}
        if k:
            self._kswapd += 1
            step["vs"]["pgscan_kswapd"] = self._kswapd
        if d:
            self._direct += 1
            step["vs"]["pgscan_direct"] = self._direct
        for key, value in changes.items():
            if key in ("psi", "zi", "props", "files", "new", "proc", "memfail"):
                step[key] = value
            elif key == "R":
                step["vs"]["workingset_refault_file"] = value
            elif key in ("mi", "vs"):
                step[key].update(value)
            elif key in VMSTAT:
                step["vs"][key] = value
            else:
                step["mi"][key] = value
        self.script["steps"].append(step)
        return self

    def event(self, t_ms: int, level: int = 1, **changes: Any) -> Device:
        """A pressure event with changes just before it."""
        return self.at(t_ms, ["psi", level], **changes)

    def run(self, tag: str, make: MakePolicy, until_ms: int | None = None, from_text: bool = True) -> Run:
        """Replay at a behaviour. Ends a little after the last step, or at ``until_ms``."""
        script = copy.deepcopy(self.script)
        script["cfg"]["start_us"] = (PRIME_MS + self.start_ms) * 1000
        if self.prime:
            script["steps"].append({"t": PRIME_MS * 1000, "ev": [["psi", 1]]})
        script["steps"].sort(key=lambda step: step["t"])
        last_ms = max((step["t"] // 1000 for step in script["steps"]), default=PRIME_MS)
        end_ms = PRIME_MS + until_ms if until_ms is not None else last_ms + TAIL_MS
        script["end"] = end_ms * 1000 + 1
        run = Run()
        run.policy = make(tag)
        VectorTarget(script, run, from_text=from_text, overrides=self.overrides).run(run.policy)
        return run
