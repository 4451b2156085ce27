"""Frames of ``lmk top`` from a record: what stood where at any moment of a finished run."""

from __future__ import annotations

from bisect import bisect_right

from lmk.policy.decision import Evaluation
from lmk.policy.lmkd.params import LmkdParams, load_params
from lmk.policy.lmkd.versions import Behaviour, behaviour
from lmk.record.decode import decision_of
from lmk.record.reader import RecordReader
from lmk.record.schema import KILLER_WORDS, KillRow
from lmk.report.timeline import Timeline, read_timeline, stall_in_window_ms
from lmk.report.top_frame import Frame, Gauge, LastKill, Running, gauges, tier_rows
from lmk.units import NS_PER_MS

_KILLS = 30
_DEFAULT_RELEASE = "16"


class ReplayFrames:
    """Reads the record once; ``frame`` then answers for any moment, in seconds since the scenario began."""

    def __init__(self, record: RecordReader) -> None:
        timeline = read_timeline(record)
        self._timeline: Timeline = timeline
        self._behaviour: Behaviour = behaviour(timeline.meta.get("android") or _DEFAULT_RELEASE)
        self._params: LmkdParams = load_params(timeline.meta.get("properties") or {}, self._behaviour)
        self._knows_lmkd = "android" in timeline.meta and timeline.meta.get("policy", "lmkd") == "lmkd"
        self._looks = _looks(record)
        self._look_times = [t_ns for t_ns, _ in self._looks]
        self._counter_times = [row.t_ns for row in timeline.counters]
        window_ms = self._params.psi_window_size_ms
        self._some = stall_in_window_ms(timeline.counters, "psi_some_us", window_ms)
        self._full = stall_in_window_ms(timeline.counters, "psi_full_us", window_ms)
        self.begin_s = min(0.0, timeline.ms(timeline.begin_ns) / 1000)
        duration_ms = timeline.meta.get("duration_ms")
        # A live run's apps are ended after its scenario: nobody wants to see them gone.
        self.end_s = (timeline.ms(timeline.end_ns) if duration_ms is None else float(duration_ms)) / 1000

    def frame(self, t_s: float, status: str, keys: str) -> Frame:
        """The screen at ``t_s``."""
        timeline = self._timeline
        t_ns = timeline.zero_ns + int(t_s * 1000 * NS_PER_MS)
        meta = timeline.meta
        title = f"lmk top  {meta.get('scenario') or 'a recorded device'}"
        title += f" on {meta['config']}" if meta.get("config") else ""
        return Frame(
            title=f"{title}, {t_s:.1f} of {self.end_s:.1f} s",
            status=status,
            gauges=self._gauges(t_ns) if self._knows_lmkd else (),
            tiers=tier_rows(self._running(t_ns), self._params, self._behaviour),
            kills=tuple(_last_kill(timeline, kill) for kill in timeline.kills if kill.t_ns <= t_ns)[-_KILLS:],
            notes=self._notes(t_ns),
            keys=keys,
        )

    def _gauges(self, t_ns: int) -> tuple[Gauge, ...]:
        row = bisect_right(self._counter_times, t_ns) - 1
        stalls = (self._some[row], self._full[row]) if row >= 0 else (None, None)
        return gauges(self._look(t_ns), stalls, self._params, self._behaviour)

    def _look(self, t_ns: int) -> Evaluation | None:
        index = bisect_right(self._look_times, t_ns) - 1
        return self._looks[index][1] if index >= 0 else None

    def _notes(self, t_ns: int) -> tuple[str, ...]:
        """lmkd looks only when woken: between two looks its numbers are the last ones."""
        index = bisect_right(self._look_times, t_ns) - 1
        if not self._knows_lmkd or (index >= 0 and t_ns - self._look_times[index] < 1000 * NS_PER_MS):
            return ()
        if index < 0:
            return ("lmkd has not looked yet",)
        return (f"lmkd last looked {(t_ns - self._look_times[index]) / NS_PER_MS / 1000:.1f} s ago",)

    def _running(self, t_ns: int) -> list[Running]:
        """Processes alive then that had a score; whoever was scored last is the newest of its slot."""
        found = []
        for life in self._timeline.lives:
            # Who was not seen to end is there at the record's end as well.
            until_ns = life.end_ns if life.ended else life.end_ns + 1
            if not life.begin_ns <= t_ns < until_ns:
                continue
            span = next((span for span in reversed(life.spans) if span.begin_ns <= t_ns), None)
            if span is not None and span.adj is not None:
                name = life.name or f"pid {life.pid}"
                found.append(Running(pid=life.pid, name=name, adj=span.adj, order=span.begin_ns))
        return found


def _looks(record: RecordReader) -> list[tuple[int, Evaluation]]:
    found = []
    for row in record.decisions():
        decision = decision_of(row.body)
        if decision.evaluations:
            found.append((row.t_ns, decision.evaluations[-1]))
    return found


def _last_kill(timeline: Timeline, kill: KillRow) -> LastKill:
    by = KILLER_WORDS.get(kill.killer)
    reason = ": ".join(part for part in (by, kill.reason) if part)
    name = kill.name or f"pid {kill.pid}"
    return LastKill(t_s=timeline.ms(kill.t_ns) / 1000, name=name, adj=kill.oom_score_adj, reason=reason)
