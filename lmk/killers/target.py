"""A traced killer as the engine's target: our policy wakes when it woke, and reads what it read.

The recorded clock: a wait ends at the program's look at ``poll_path`` that is nearest to the time our policy asked for,
if it is near. A file is answered with the next reading of it that is still to come, and time moves to that reading;
where the program did not look for a while, with what it saw last.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections import defaultdict

from lmk.engine.target import RunOver
from lmk.killers.trace import Reading, Signal, Trace
from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.units import NS_PER_MS, NS_PER_S

CGROUP_ROOT = "/sys/fs/cgroup"
#: A round of looking at every process takes that long under strace on a machine that thrashes.
_ROUND_NS = 3 * NS_PER_S


class TraceTarget:
    """See ``lmk.engine.target.Target``; ``signals`` is what the policy sent, ``reasons`` what it said of it."""

    def __init__(self, trace: Trace, poll_path: str) -> None:
        self._files: dict[str, list[Reading]] = defaultdict(list)
        for reading in trace.readings:
            self._files[reading.path].append(reading)
        self._next: dict[str, int] = {}
        self._poll_path = poll_path
        self._polled_ns = 0
        #: When the last answered reading of a process was made: what is read after a look at them all is younger.
        self._scanned_ns = 0
        self._polls = [reading.t_ns for reading in self._files.get(poll_path, ())]
        self._end_ns = trace.end_ns
        self._now_ns = self._fresh_ns = self._polls[0] if self._polls else trace.end_ns
        self.signals: list[Signal] = []
        self.reasons: list[str] = []

    def now_ns(self) -> int:
        """See ``Target``."""
        return self._now_ns

    def close(self) -> None:
        """See ``Target``."""

    def answer(self, request: api.Request) -> object:
        """See ``Target``: what a killer asks for, and nothing else."""
        if isinstance(request, api.Wait):
            return self._wait(request)
        if isinstance(request, api.ReadFile):
            return self._text(request.path)
        if isinstance(request, api.ReadProcess):
            return self._text(f"/proc/{request.pid}/{request.file}")
        if isinstance(request, api.ListProcesses):
            listing = self._text("/proc")
            return tuple(int(name) for name in listing.split() if name.isdecimal()) if isinstance(listing, str) else ()
        if isinstance(request, api.ListGroups):
            return self._groups(request.group)
        if isinstance(request, api.Kill):
            self.signals.append(Signal(self._now_ns, request.signal, pid=request.pid))
            return api.Killed(0, queued=request.queue)
        if isinstance(request, Decision):
            self.reasons.append(request.reason_text)
        return isinstance(request, api.StartReaper) or None

    def _wait(self, request: api.Wait) -> api.Wakeup | RunOver:
        timeout_ns = (request.timeout_ms or 0) * NS_PER_MS
        wanted_ns = self._now_ns + timeout_ns
        index = bisect_right(self._polls, self._now_ns)
        near = [t_ns for t_ns in self._polls[index : index + 8] if abs(t_ns - wanted_ns) * 2 <= timeout_ns]
        nearest_ns = min(near, key=lambda t_ns: abs(t_ns - wanted_ns), default=wanted_ns)
        self._now_ns, self._fresh_ns = max(wanted_ns, nearest_ns), min(wanted_ns, nearest_ns)
        if self._now_ns >= self._end_ns:
            return RunOver("the trace ends")
        return api.Wakeup()

    def _text(self, path: str) -> str | api.FileError:
        readings = self._files.get(path, [])
        index = self._next.get(path, 0)
        of_process = path.startswith("/proc/") and path[6:7].isdigit()
        fresh_ns = max(self._fresh_ns, self._scanned_ns) if path == self._poll_path else self._fresh_ns
        while index < len(readings) and readings[index].t_ns < fresh_ns:
            index += 1
        if path in ("/proc/meminfo", "/proc/vmstat") and path != self._poll_path:
            # Read by the policy at another time than by the program: for what does not change.
            return readings[min(index, len(readings) - 1)].text if readings else api.FileError("open", errno.ENOENT)
        if index < len(readings) and readings[index].t_ns <= self._round_end_ns(path):
            self._next[path] = index + 1
            # Reading takes time: a decision comes no earlier than what it rests on.
            self._now_ns = max(self._now_ns, readings[index].t_ns)
            if of_process:
                self._scanned_ns = readings[index].t_ns
            if path == self._poll_path:
                self._polled_ns = self._fresh_ns = readings[index].t_ns
            return readings[index].text
        self._next[path] = index
        if of_process:
            # A process it did not look at any more is one that was gone.
            return api.FileError("open", errno.ENOENT)
        return readings[index - 1].text if index else api.FileError("open", errno.ENOENT)

    def _round_end_ns(self, path: str) -> int:
        """Up to when a reading belongs to this round: the next look at the poll file, which itself may come twice."""
        limit_ns = self._now_ns + _ROUND_NS
        if path == self._poll_path or not path.startswith(CGROUP_ROOT):
            return limit_ns
        index = bisect_right(self._polls, max(self._fresh_ns, self._polled_ns))
        return self._polls[index] if index < len(self._polls) else self._end_ns

    def _groups(self, group: str) -> tuple[str, ...] | api.FileError:
        """Groups below one that the program read something of, or listed, in this round."""
        prefix = f"{CGROUP_ROOT}{group}/"
        found: set[str] = set()
        for path, readings in self._files.items():
            name, slash, _ = path.removeprefix(prefix).partition("/")
            below = path.startswith(prefix) and (slash or path.startswith(f"{prefix}{name}/"))
            if below and any(self._fresh_ns <= reading.t_ns <= self._round_end_ns(path) for reading in readings):
                found.add(name)
        return tuple(f"{group}/{name}" for name in sorted(found)) or api.FileError("open", errno.ENOENT)
