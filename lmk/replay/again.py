"""A recording as a target for a policy with another setting: the recorded clock, the recorded answers.

As long as the policy asks what the recorded one asked, it gets the recorded answers at the recorded moments. From the
first request that differs each read is the last value recorded before the moment, and events come as recorded: still
the world as it was, seen a little coarser. From the first kill that differs the recorded world no longer answers: what
an additional kill would have freed is added to MemFree and SwapFree until the record's own end of that process, and
what was killed in the record stays dead. That part is an estimate.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from lmk.engine.target import RunOver
from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.procfs.meminfo import Meminfo, parse_meminfo
from lmk.record.encode import to_plain
from lmk.replay.recorded import Exchange, Recorded
from lmk.replay.samples import refreshed
from lmk.replay.triggers import derived_events
from lmk.units import NS_PER_MS, NS_PER_US

#: From the signal to the exit, where the record has no kill to take it from.
_EXIT_US = 20_000
#: How much a wait may differ without being another one.
_WAIT_SLACK_MS = 3
#: Not part of the dialogue that is compared.
_UNRECORDED = (api.HandlerBegin, api.HandlerEnd, api.Log, api.EventLog, Decision)
#: These are asked with what the settings say; another text is no other decision.
_TOLERATED = ("GetProperties", "ArmPsi", "Send", "WriteFile", "SetProperty")


@attrs.frozen(kw_only=True)
class Freed:
    """What a kill that the record does not have would have freed."""

    pid: int
    t_ns: int
    rss_kib: int
    swap_kib: int


class Again:
    """See ``lmk.engine.target.Target``; ``properties`` are those the policy is to run with."""

    def __init__(self, world: Recorded, properties: Mapping[str, str]) -> None:
        self._world = world
        self._properties = dict(properties)
        self._next = 0
        self._now_ns = world.exchanges[0].t_ns
        #: When the dialogue left the recorded one; None: never.
        self.left_ns: int | None = None
        #: Levels whose pressure events are computed, because the other setting wants another trigger.
        self.derived_levels: dict[int, str] = {}
        #: Reads answered with a value older than a second.
        self.stale_reads = 0
        self.unknown_sizes = 0
        self._handles: dict[int, int] = {}
        self._next_handle = 1
        self._watched: set[int] = set()
        self._exits: dict[int, int] = {}
        self._dead: dict[int, int] = {}
        self._freed: list[Freed] = []
        self._stimuli: list[tuple[int, tuple[api.Event, ...]]] = []
        self._memory_events_at = 0
        self._last_wait: tuple[int | None, int | None] = (0, 0)
        self._texts: dict[str, int] = {}
        self._times = {kind: deque(times) for kind, times in world.times.items()}
        self._exit_us = _typical_exit_us(world)
        self._handlers = self._request_handlers()

    # ---- Target

    def now_ns(self) -> int:
        """See ``Target``: the recorded clock."""
        return self._now_ns

    def answer(self, request: api.Request) -> object:
        """See ``Target``."""
        if isinstance(request, _UNRECORDED):
            if self.left_ns is None:
                self._take_time(type(request))
            return None
        if self.left_ns is None:
            in_step, answer = self._in_step(request)
            if in_step:
                return answer
            self._leave()
        return self._handlers[type(request)](request)

    def close(self) -> None:
        """See ``Target``: nothing to let go of."""

    # ---- in step with the record

    def _take_time(self, kind: type[Any]) -> None:
        """What is no exchange took time all the same: the next deadline counts from then."""
        times = self._times.get(kind)
        if times:
            self._now_ns = max(self._now_ns, times.popleft())

    def _in_step(self, request: api.Request) -> tuple[bool, object]:
        if self._next >= len(self._world.exchanges):
            return isinstance(request, api.Wait), RunOver("the record ended")
        exchange = self._world.exchanges[self._next]
        kind = type(request).__name__
        if exchange.kind != kind:
            return False, None
        if kind not in _TOLERATED and not self._is_same(request, exchange):
            return False, None
        if isinstance(request, api.ArmPsi) and request.text != exchange.request["text"]:
            self.derived_levels[request.level] = request.text
        self._next += 1
        self._now_ns = exchange.t_ns
        if isinstance(exchange.plain_answer, dict) and exchange.plain_answer.get("type") == "RunOver":
            return True, RunOver("the record ended")
        answer = self._world.answer(exchange)
        if isinstance(request, api.GetProperties):
            return True, {name: self._properties[name] for name in request.names if name in self._properties}
        if isinstance(request, api.OpenPidfd) and answer.handle > 0:
            self._handles[answer.handle] = request.pid
            self._next_handle = max(self._next_handle, answer.handle + 1)
        elif isinstance(request, api.WatchExit):
            self._watched.add(request.handle)
        elif isinstance(request, api.UnwatchExit | api.ClosePidfd):
            self._watched.discard(request.handle)
        elif isinstance(request, api.Kill):
            self._note_recorded_kill(request)
        elif isinstance(request, api.Wait) and self.derived_levels:
            # Other triggers would have fired at other moments: only the start was in step.
            self._next -= 1
            return False, None
        return True, answer

    def _is_same(self, request: api.Request, recorded: Exchange) -> bool:
        """A field that the recording lmk did not have yet is no difference while it says nothing."""
        ours, theirs = to_plain(request, self._text_id), self._comparable(recorded.request)
        if isinstance(request, api.Wait):
            pair = (request.timeout_ms, theirs["timeout_ms"])
            passed_ms = (recorded.t_ns - self._now_ns) // NS_PER_MS
            # After an event that does not end the wait the same one is asked for once more.
            same = pair == self._last_wait or _about_the_same(*pair, passed_ms)
            self._last_wait = pair
            return same
        return all(ours[name] == theirs[name] if name in theirs else not ours[name] for name in ours)

    def _text_id(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _comparable(self, plain: Any) -> Any:
        """A recorded request with its long texts numbered as ours are."""
        if isinstance(plain, dict):
            if set(plain) == {"text"} and isinstance(plain["text"], int):
                return {"text": self._text_id(self._world.text(plain["text"]).decode(errors="surrogateescape"))}
            return {key: self._comparable(item) for key, item in plain.items()}
        if isinstance(plain, list):
            return [self._comparable(item) for item in plain]
        return plain

    def _note_recorded_kill(self, request: api.Kill) -> None:
        """A kill both have: the record tells when the victim was gone."""
        end_ns = self._world.deaths[request.pid].after(self._now_ns - 1) if request.pid in self._world.deaths else None
        self._exits[request.pid] = end_ns if end_ns is not None else self._now_ns + self._exit_us * NS_PER_US

    def _leave(self) -> None:
        """The first difference: from here on by time."""
        self.left_ns = self._now_ns
        recorded = [
            (one.t_ns, kept)
            for one in self._world.stimuli
            if one.index >= self._next
            if (kept := tuple(e for e in one.events if not self._is_derived(e)))
        ]
        derived = [
            (t_ns, (api.PressureEvent(level),))
            for level, text in self.derived_levels.items()
            for t_ns in derived_events(self._world.counters, text)
            if t_ns > self._now_ns
        ]
        self._stimuli = sorted([*recorded, *derived], key=lambda item: item[0], reverse=True)

    def _is_derived(self, event: api.Event) -> bool:
        return isinstance(event, api.PressureEvent) and event.level in self.derived_levels

    # ---- by time

    def _wait(self, request: api.Wait) -> api.Wakeup | RunOver:
        deadline_ns = None if request.timeout_ms is None else self._now_ns + request.timeout_ms * NS_PER_MS
        exits = {handle: self._exit_ns(pid) for handle, pid in self._handles.items() if handle in self._watched}
        soonest = min((t_ns for t_ns in exits.values() if t_ns is not None), default=None)
        times = [self._stimuli[-1][0] if self._stimuli else None, deadline_ns, soonest]
        due = [t_ns for t_ns in times if t_ns is not None]
        if not due or min(due) > self._world.end_ns:
            return RunOver("the record ended")
        self._now_ns = max(self._now_ns, min(due))
        events: list[api.Event] = []
        while self._stimuli and self._stimuli[-1][0] <= self._now_ns:
            events.extend(self._stimuli.pop()[1])
        events.extend(api.ExitEvent(h) for h, t_ns in exits.items() if t_ns is not None and t_ns <= self._now_ns)
        return api.Wakeup(tuple(events))

    def _exit_ns(self, pid: int) -> int | None:
        if pid in self._exits:
            return self._exits[pid]
        return self._world.deaths[pid].after(self._now_ns) if pid in self._world.deaths else None

    def _alive(self, pid: int) -> bool:
        if pid in self._dead and self._now_ns >= self._exits.get(pid, 0):
            again_ns = self._world.births[pid].before(self._now_ns) if pid in self._world.births else None
            ended_ns = self._world.deaths[pid].before(self._now_ns) if pid in self._world.deaths else None
            if again_ns is None or ended_ns is None or not self._dead[pid] < ended_ns < again_ns:
                return False
            del self._dead[pid], self._exits[pid]
        return self._world.alive(pid, self._now_ns)

    def _read_file(self, request: api.ReadFile) -> object:
        found = self._world.files[request.path].at(self._now_ns) if request.path in self._world.files else None
        if found is None:
            return api.FileError("open", errno.ENOENT)
        answer, seen_ns = refreshed(request.path, self._world.value(found[1]), found[0], self._world, self._now_ns)
        self._note_age(seen_ns)
        return self._with_freed(answer) if request.path == "/proc/meminfo" else answer

    def _with_freed(self, answer: object) -> object:
        freed = [one for one in self._freed if self._still_in_record(one)]
        if not freed or isinstance(answer, api.FileError):
            return answer
        known = answer if isinstance(answer, Meminfo) else parse_meminfo(str(answer))
        kib = dict(known.kib)
        for name, amount, total in (
            ("MemFree", sum(one.rss_kib for one in freed), "MemTotal"),
            ("SwapFree", sum(one.swap_kib for one in freed), "SwapTotal"),
        ):
            if name in kib:
                kib[name] = min(kib[name] + amount, kib.get(total, kib[name] + amount))
        return Meminfo(kib=kib)

    def _still_in_record(self, freed: Freed) -> bool:
        ends = self._world.deaths.get(freed.pid)
        end_ns = ends.after(freed.t_ns) if ends is not None else None
        return end_ns is None or end_ns > self._now_ns

    def _note_age(self, t_ns: int) -> None:
        if self._now_ns - t_ns > 1_000 * NS_PER_MS:
            self.stale_reads += 1

    def _read_process(self, request: api.ReadProcess) -> object:
        if not self._alive(request.pid):
            return api.FileError("open", errno.ENOENT)
        series = self._world.process_files.get((request.pid, request.file))
        found = series.at(self._now_ns) if series is not None else None
        if found is not None and request.file != "status":
            return self._world.value(found[1])
        if request.file == "cmdline":
            return self._world.names.get(request.pid, f"pid {request.pid}") + "\0"
        if request.file != "status":
            return api.FileError("open", errno.ENOENT)
        rss_kib, swap_kib = self._size(request.pid)
        name = self._world.names.get(request.pid, "")[-15:]
        return (
            f"Name:\t{name}\nTgid:\t{request.pid}\nPid:\t{request.pid}\n"
            f"VmRSS:\t{rss_kib:8d} kB\nVmSwap:\t{swap_kib:8d} kB\n"
        )

    def _size(self, pid: int) -> tuple[int, int]:
        found = self._world.size_kib(pid, self._now_ns)
        if found is None:
            # Nobody ever looked: a page, so that it stays a candidate and is nobody's heaviest.
            self.unknown_sizes += 1
            return 4, 0
        return found

    def _read_sizes(self, request: api.ReadSizes) -> list[int | api.FileError]:
        return [
            self._size(pid)[0] // 4 if self._alive(pid) else api.FileError("open", errno.ENOENT) for pid in request.pids
        ]

    def _set_oom_score_adj(self, request: api.SetOomScoreAdj) -> api.AdjWritten:
        if self._alive(request.pid):
            return api.AdjWritten(request.pid)
        return api.AdjWritten(None, api.FileError("open", errno.ENOENT))

    def _open_pidfd(self, request: api.OpenPidfd) -> api.Opened:
        if not self._alive(request.pid):
            return api.Opened(-1, errno.ESRCH)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[handle] = request.pid
        return api.Opened(handle)

    def _close_pidfd(self, request: api.ClosePidfd) -> None:
        self._handles.pop(request.handle, None)
        self._watched.discard(request.handle)

    def _watch_exit(self, request: api.WatchExit) -> int:
        self._watched.add(request.handle)
        return 0

    def _kill(self, request: api.Kill) -> api.Killed:
        pid = request.pid
        if pid in self._dead or not self._world.alive(pid, self._now_ns):
            return api.Killed(errno.ESRCH)
        rss_kib, swap_kib = self._size(pid)
        self._dead[pid] = self._now_ns
        self._exits[pid] = self._now_ns + self._exit_us * NS_PER_US
        self._freed.append(Freed(pid=pid, t_ns=self._now_ns, rss_kib=rss_kib, swap_kib=swap_kib))
        return api.Killed(0, queued=request.queue)

    def _take_memory_events(self, _: api.TakeMemoryEvents) -> api.MemoryEvents:
        entries: list[api.MemoryEvent] = []
        events = self._world.memory_events
        while self._memory_events_at < len(events) and events[self._memory_events_at][0] <= self._now_ns:
            t_ns, items = events[self._memory_events_at]
            if self.left_ns is None or t_ns >= self.left_ns:
                entries.extend(items)
            self._memory_events_at += 1
        return api.MemoryEvents(tuple(entries))

    def _fact(self, request: api.Request) -> object:
        """The recorded answer to the same request, whenever it was asked."""
        wanted = to_plain(request, self._text_id)
        for exchange in self._world.exchanges:
            if exchange.kind == wanted["type"] and self._comparable(exchange.request) == wanted:
                return self._world.answer(exchange)
        return None

    def _request_handlers(self) -> dict[type[Any], Callable[[Any], object]]:
        return {
            api.Wait: self._wait,
            api.DescribeMachine: lambda q: self._fact(q) or api.Machine(),
            api.DescribeMemcg: lambda q: self._fact(q) or api.Memcg(0),
            api.CgroupAttributePath: self._fact,
            api.ReadFile: self._read_file,
            api.ReadProcess: self._read_process,
            api.ListProcesses: lambda _: (),
            api.ListGroups: lambda _: (),
            api.ReadSizes: self._read_sizes,
            api.ProcessExists: lambda q: self._alive(q.pid),
            api.CheckWritable: lambda _: False,
            api.ReadGpuTotal: lambda _: None,
            api.WriteFile: lambda _: None,
            api.SetOomScoreAdj: self._set_oom_score_adj,
            api.GetProperties: lambda q: {n: self._properties[n] for n in q.names if n in self._properties},
            api.SetProperty: lambda _: None,
            api.ProbePidfd: lambda q: self._fact(q) is not False,
            api.OpenPidfd: self._open_pidfd,
            api.ClosePidfd: self._close_pidfd,
            api.WatchExit: self._watch_exit,
            api.UnwatchExit: lambda q: self._watched.discard(q.handle),
            api.StartReaper: lambda q: bool(self._fact(q)),
            api.Kill: self._kill,
            api.ArmPsi: self._arm_psi,
            api.ArmVmpressure: lambda _: api.FileError("pressure_level", errno.ENOENT),
            api.Disarm: lambda _: None,
            api.TakeVmpressure: lambda _: (0, 0, 0),
            api.TakeMemoryEvents: self._take_memory_events,
            api.OpenMemoryEvents: lambda q: self._fact(q) or api.MemoryEventSupport(),
            api.OpenKernelKills: lambda _: errno.ENOENT,
            api.Send: lambda _: 0,
            api.CloseConnection: lambda _: None,
        }

    def _arm_psi(self, request: api.ArmPsi) -> None:
        if self._world.triggers.get(request.level) != request.text:
            self.derived_levels[request.level] = request.text
            self._leave()


def _about_the_same(ours_ms: int | None, theirs_ms: int | None, passed_ms: int) -> bool:
    """A live clock moves on before the policy asks to wait, a recorded one does not: theirs is shorter by that."""
    if ours_ms is None or theirs_ms is None:
        return ours_ms == theirs_ms
    return -_WAIT_SLACK_MS <= ours_ms - theirs_ms <= passed_ms + _WAIT_SLACK_MS


def _typical_exit_us(world: Recorded) -> int:
    known = sorted(kill.signal_to_exit_us for kill in world.kills if kill.signal_to_exit_us is not None)
    return known[len(known) // 2] if known else _EXIT_US
