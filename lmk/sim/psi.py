"""Pressure stall information of the whole system as the kernel computes it: per-CPU times, totals, averages, triggers.

Source: kernel/sched/psi.c (collect_percpu_times, update_averages, psi_rtpoll_work, update_triggers, window_update,
psi_trigger_create), include/linux/sched/loadavg.h, Linux 6.12. Times are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lmk.procfs.psi import Pressure, Stall
from lmk.units import NS_PER_S, NS_PER_US

MEM_SOME: Final = 0
MEM_FULL: Final = 1
IO_SOME: Final = 2
IO_FULL: Final = 3
CPU_SOME: Final = 4
_STATES: Final = 5
_NONIDLE: Final = 5

#: CONFIG_HZ of Android's kernels.
HZ: Final = 250
JIFFY_NS: Final = NS_PER_S // HZ
#: PSI_FREQ is 2 * HZ + 1 jiffies.
_PERIOD_NS: Final = (2 * HZ + 1) * JIFFY_NS
_UPDATES_PER_WINDOW: Final = 10
_WINDOW_MAX_US: Final = 10_000_000
#: 1/exp(period/10s), 60s and 300s in fixed point.
_EXP: Final = (1677, 1981, 2034)
_FSHIFT: Final = 11
_FIXED_1: Final = 1 << _FSHIFT
_EXP_AND_REST: Final = tuple((exp, _FIXED_1 - exp) for exp in _EXP)

_NONE: Final = [0, 0, 0]

EINVAL: Final = 22


class Trigger:
    """One open trigger: what it watches and its tracking window."""

    __slots__ = (
        "last_event_ns",
        "level",
        "pending",
        "prev_growth",
        "size_ns",
        "start_ns",
        "start_value",
        "state",
        "threshold_ns",
    )

    def __init__(self, level: int, state: int, threshold_ns: int, size_ns: int, now_ns: int, value: int) -> None:
        self.level = level
        self.state = state
        self.threshold_ns = threshold_ns
        self.size_ns = size_ns
        self.last_event_ns = 0
        self.pending = False
        self.reset(now_ns, value, 0)

    def reset(self, now_ns: int, value: int, prev_growth: int) -> None:
        """window_reset."""
        self.start_ns, self.start_value, self.prev_growth = now_ns, value, prev_growth

    def update(self, now_ns: int, value: int) -> int:
        """window_update: growth over the last window, interpolated."""
        elapsed = now_ns - self.start_ns
        growth = value - self.start_value
        if elapsed > self.size_ns:
            self.reset(now_ns, value, growth)
        else:
            growth += self.prev_growth * (self.size_ns - elapsed) // self.size_ns
        return growth


class Psi:
    """The system's group. ``account`` is told what each CPU did; ``fire`` is called with a trigger's level.

    ``base_permille``: the part of every CPU's time in which somebody else runs who never stalls.
    """

    def __init__(self, cpus: int, fire: Callable[[int], None], base_permille: int = 0) -> None:
        self._fire = fire
        self._base_permille = base_permille
        #: Per CPU: time in each state, and not idle, since boot.
        self._times = [[0] * (_STATES + 1) for _ in range(cpus)]
        self._seen_average = [[0] * (_STATES + 1) for _ in range(cpus)]
        self._seen_poll = [[0] * (_STATES + 1) for _ in range(cpus)]
        self._totals = [0] * _STATES
        self._poll_totals = [0] * _STATES
        self._average_totals = [0] * _STATES
        self._averages = [[0, 0, 0] for _ in range(_STATES)]
        #: All averages are zero.
        self._calm = True
        self._next_average_ns = _PERIOD_NS
        self._last_average_ns = 0
        self._triggers: list[Trigger] = []
        self._poll_seen_totals = [0] * _STATES
        self._min_period_ns = 0
        self._poll_until_ns = -1
        self._next_poll_update_ns: int | None = None
        #: When the poll worker runs next, None: not scheduled.
        self.poll_at_ns: int | None = None

    def account(self, cpu: int, spans: tuple[int, int, int, int, int, int], now_ns: int) -> None:
        """A CPU spent these spans in MEM_SOME, MEM_FULL, IO_SOME, IO_FULL, CPU_SOME and not idle, until now."""
        if now_ns >= self._next_average_ns:
            self._catch_up(now_ns)
        times = self._times[cpu]
        some, full, io_some, io_full, waiting, busy = spans
        # Most spans are of tasks that only run.
        if some or io_some or waiting:
            # Nothing is full while somebody else runs.
            alone = 1000 - self._base_permille
            times[0] += some
            times[1] += full * alone // 1000
            times[2] += io_some
            times[3] += io_full * alone // 1000
            times[4] += waiting
        times[_NONIDLE] += busy
        if some and self.poll_at_ns is None and self._triggers:
            self.poll_at_ns = now_ns + JIFFY_NS

    # ---- triggers

    def arm(self, level: int, text: str, now_ns: int) -> int:
        """Write a trigger; 0 or an errno."""
        words = text.replace("\0", "").split()
        numbers = words[1:3]
        if len(numbers) < 2 or words[0] not in ("some", "full") or not all(word.isdecimal() for word in numbers):
            return EINVAL
        threshold_us, window_us = int(numbers[0]), int(numbers[1])
        if not 0 < window_us <= _WINDOW_MAX_US or not 0 < threshold_us <= window_us:
            return EINVAL
        state = MEM_SOME if words[0] == "some" else MEM_FULL
        size_ns = window_us * NS_PER_US
        trigger = Trigger(level, state, threshold_us * NS_PER_US, size_ns, now_ns, self._poll_totals[state])
        self._triggers.append(trigger)
        period_ns = size_ns // _UPDATES_PER_WINDOW
        self._min_period_ns = min(self._min_period_ns or period_ns, period_ns)
        return 0

    def disarm(self, level: int) -> None:
        """Close the triggers of a level."""
        self._triggers = [trigger for trigger in self._triggers if trigger.level != level]
        self._min_period_ns = min((t.size_ns // _UPDATES_PER_WINDOW for t in self._triggers), default=0)
        if not self._triggers:
            self.poll_at_ns = None
            self._poll_until_ns = -1
            self._next_poll_update_ns = None

    def poll(self, now_ns: int) -> None:
        """psi_rtpoll_work."""
        self.poll_at_ns = None
        changed = self._collect(self._seen_poll, self._poll_totals, now_ns)
        if changed:
            if now_ns > self._poll_until_ns:
                for trigger in self._triggers:
                    trigger.reset(now_ns, self._poll_totals[trigger.state], 0)
                self._poll_seen_totals = list(self._poll_totals)
                self._next_poll_update_ns = now_ns + self._min_period_ns
            self._poll_until_ns = now_ns + self._min_period_ns * _UPDATES_PER_WINDOW
        if now_ns > self._poll_until_ns:
            self._next_poll_update_ns = None
            return
        if self._next_poll_update_ns is None or now_ns >= self._next_poll_update_ns:
            if changed:
                self._update_triggers(now_ns)
                self._poll_seen_totals = list(self._poll_totals)
            self._next_poll_update_ns = now_ns + self._min_period_ns
        self.poll_at_ns = self._next_poll_update_ns + JIFFY_NS

    def _update_triggers(self, now_ns: int) -> None:
        # The newest first: psi_trigger_create puts it at the head of the list.
        for trigger in reversed(self._triggers):
            total = self._poll_totals[trigger.state]
            if total != self._poll_seen_totals[trigger.state]:
                growth = trigger.update(now_ns, total)
                if not trigger.pending:
                    if growth < trigger.threshold_ns:
                        continue
                    trigger.pending = True
            elif not trigger.pending:
                continue
            if now_ns < trigger.last_event_ns + trigger.size_ns:
                continue
            trigger.last_event_ns = now_ns
            trigger.pending = False
            self._fire(trigger.level)

    # ---- totals and averages

    def pressure(self, resource: str, now_ns: int) -> Pressure:
        """/proc/pressure/RESOURCE: memory, io or cpu (psi_show)."""
        if now_ns >= self._next_average_ns:
            self._catch_up(now_ns)
        self._collect(self._seen_average, self._totals, now_ns)
        some, full = {"memory": (MEM_SOME, MEM_FULL), "io": (IO_SOME, IO_FULL), "cpu": (CPU_SOME, None)}[resource]
        # Since 5.13 cpu has a full row; for the system it is always zero.
        empty = Stall(avg10_pct=0.0, avg60_pct=0.0, avg300_pct=0.0, total_us=0)
        return Pressure(some=self._stall(some), full=empty if full is None else self._stall(full))

    def memory_totals_us(self, now_ns: int) -> tuple[int, int]:
        """Totals of memory some and full until now."""
        self._collect(self._seen_average, self._totals, now_ns)
        return self._totals[MEM_SOME] // NS_PER_US, self._totals[MEM_FULL] // NS_PER_US

    def _stall(self, state: int) -> Stall:
        hundredths = [_hundredths(average) for average in self._averages[state]]
        return Stall(
            avg10_pct=hundredths[0] / 100,
            avg60_pct=hundredths[1] / 100,
            avg300_pct=hundredths[2] / 100,
            total_us=self._totals[state] // NS_PER_US,
        )

    def _collect(self, seen: list[list[int]], totals: list[int], now_ns: int) -> bool:
        """collect_percpu_times: a mean over the CPUs, weighted by the jiffies they were not idle."""
        weight_sum = 0
        deltas = [0] * _STATES
        changed = False
        for cpu, times in enumerate(self._times):
            old = seen[cpu]
            # Of the time in which nobody here wanted the CPU a part went to somebody else.
            busy = times[_NONIDLE]
            busy += (now_ns - busy) * self._base_permille // 1000
            span = busy - old[_NONIDLE]
            if span <= 0:
                continue
            weight = span // JIFFY_NS
            weight_sum += weight
            for state in range(_STATES):
                delta = times[state] - old[state]
                if delta:
                    deltas[state] += delta * weight
                    changed = changed or state <= MEM_FULL
                    old[state] = times[state]
            old[_NONIDLE] = busy
        if weight_sum:
            for state in range(_STATES):
                totals[state] += deltas[state] // weight_sum
        return changed

    def _catch_up(self, now_ns: int) -> None:
        """psi_avgs_work: it ran when it was due, and stopped its clock after a period without activity."""
        self._update_averages(self._next_average_ns)
        if now_ns >= self._next_average_ns:
            self._update_averages(now_ns)

    def _update_averages(self, now_ns: int) -> None:
        self._collect(self._seen_average, self._totals, now_ns)
        expires = self._next_average_ns
        missed = (now_ns - expires) // _PERIOD_NS if now_ns - expires >= _PERIOD_NS else 0
        self._next_average_ns = expires + (1 + missed) * _PERIOD_NS
        period = now_ns - (self._last_average_ns + missed * _PERIOD_NS)
        self._last_average_ns = now_ns
        if not self._calm or self._totals != self._average_totals:
            self._decay_all(period, missed)

    def _decay_all(self, period: int, missed: int) -> None:
        self._calm = True
        slept = [_power(exp, missed) for exp in _EXP] if missed else None
        for state, averages in enumerate(self._averages):
            sample = self._totals[state] - self._average_totals[state]
            if not sample:
                if averages != _NONE:
                    self._calm = False
                    # calc_load of nothing
                    for factors in (slept, _EXP) if slept is not None else (_EXP,):
                        averages[:] = [load * exp >> _FSHIFT for load, exp in zip(averages, factors, strict=True)]
                continue
            if sample > period:
                sample = period
            self._average_totals[state] += sample
            self._calm = False
            active = sample * 100 // (period or 1) * _FIXED_1
            if slept is not None:
                averages[:] = [load * exp // _FIXED_1 for load, exp in zip(averages, slept, strict=True)]
            # calc_load
            for at, (exp, rest) in enumerate(_EXP_AND_REST):
                load = averages[at]
                averages[at] = (load * exp + active * rest + (_FIXED_1 - 1 if active >= load else 0)) >> _FSHIFT


def _power(base: int, exponent: int) -> int:
    """fixed_power_int with FSHIFT fractional bits."""
    result = _FIXED_1
    while exponent:
        if exponent & 1:
            result = (result * base + (1 << (_FSHIFT - 1))) >> _FSHIFT
        exponent >>= 1
        if exponent:
            base = (base * base + (1 << (_FSHIFT - 1))) >> _FSHIFT
    return result


def _hundredths(average: int) -> int:
    """LOAD_INT and LOAD_FRAC as one number of hundredths."""
    return (average >> _FSHIFT) * 100 + ((average & (_FIXED_1 - 1)) * 100 >> _FSHIFT)
