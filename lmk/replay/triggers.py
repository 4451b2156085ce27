"""When a PSI trigger would have fired, from sampled totals of /proc/pressure/memory.

A trigger fires when the stall grew by its threshold within its window, at most once per window (kernel/sched/psi.c,
update_triggers). Samples are coarser than the kernel's own ten looks per window: a moment is right to a sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from lmk.record.schema import CounterRow
from lmk.units import NS_PER_US


class SampledTrigger:
    """One trigger, "some 70000 1000000" as written to the file (µs). A text of another form never fires."""

    def __init__(self, text: str) -> None:
        words = text.rstrip("\0").split()
        valid = len(words) == 3 and words[0] in ("some", "full") and words[1].isdecimal() and words[2].isdecimal()
        self.kind = words[0] if valid else ""
        self._threshold_us = int(words[1]) if valid else 0
        self._window_ns = int(words[2]) * NS_PER_US if valid else 0
        self._points: deque[tuple[int, int]] = deque()
        self._fired_ns: int | None = None

    def offer(self, t_ns: int, some_us: int | None, full_us: int | None) -> bool:
        """A sample, in order of time; whether the trigger fires with it."""
        total_us = {"some": some_us, "full": full_us}.get(self.kind)
        if total_us is None:
            return False
        points = self._points
        points.append((t_ns, total_us))
        while len(points) > 2 and points[1][0] <= t_ns - self._window_ns:
            points.popleft()
        if total_us - self._total_at(t_ns - self._window_ns) < self._threshold_us or len(points) == 1:
            return False
        if self._fired_ns is not None and t_ns - self._fired_ns < self._window_ns:
            return False
        self._fired_ns = t_ns
        return True

    def _total_at(self, t_ns: int) -> float:
        """Between the two oldest samples kept; before the first one it is that one's."""
        (t0, v0), (t1, v1) = self._points[0], self._points[min(1, len(self._points) - 1)]
        return v0 if t_ns <= t0 or t1 <= t0 else v0 + (v1 - v0) * (t_ns - t0) / (t1 - t0)


def derived_events(counters: Sequence[CounterRow], text: str) -> Iterator[int]:
    """Moments (ns) at which a trigger would have fired over recorded samples."""
    trigger = SampledTrigger(text)
    for row in counters:
        if trigger.offer(row.t_ns, row.psi_some_us, row.psi_full_us):
            yield row.t_ns
