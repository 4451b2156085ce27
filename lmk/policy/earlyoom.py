"""earlyoom 1.8 with its default options, for comparison: percentages of memory and swap, SIGTERM, then SIGKILL.

From its manual and README (github.com/rfjakob/earlyoom) and its observable behaviour: it wakes between ten times and
once a second, the more often the less headroom there is; both available memory and free swap must be low, before and
after the search for a victim; the process with the highest oom_score dies. It knows no oom_score_adj tiers beyond what
the kernel puts into oom_score. docs/killers.md compares it with the program.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmk.policy.api import SIGKILL, ListProcesses, ProcessRow, ReadProcess, Request, StartReaper, Wait
from lmk.policy.stepwise import Clock, Stepper, Steps, decided, kill_process, read_meminfo
from lmk.procfs.meminfo import Meminfo
from lmk.units import NS_PER_MS

SIGTERM = 15

#: PF_KTHREAD, among the flags of /proc/PID/stat.
_KERNEL_THREAD = 0x200000
#: How fast memory can fill up at most, KiB per millisecond: what the sleep is computed from.
_MEMORY_FILL_KIB_PER_MS = 6000
_SWAP_FILL_KIB_PER_MS = 800
_SLEEP_MS = (100, 1000)
#: After a kill it looks every 100 ms, for ten seconds, whether the victim is gone.
_EXIT_POLL_MS = 100
_EXIT_WAIT_MS = 10_000
_FAILED_KILL_MS = 1000
#: init and kthreadd are never looked at.
_INIT_PIDS = 2


@attrs.frozen(kw_only=True)
class Limits:
    """-m and -s, percent: at or below ``term`` SIGTERM is sent, at or below ``kill`` SIGKILL."""

    memory_term_pct: float = 10
    memory_kill_pct: float = 5
    swap_term_pct: float = 10
    swap_kill_pct: float = 5


@attrs.frozen(kw_only=True)
class Headroom:
    """What one look at /proc/meminfo says. Percent, as floats like the program's."""

    memory_pct: float
    swap_pct: float
    #: MemAvailable + AnonPages: what user space has or could have.
    user_total_kib: int
    swap_total_kib: int
    limits: Limits

    @property
    def signal(self) -> int:
        """The signal that is due, 0 for none. Without swap its percentage is 0, and memory alone decides."""
        limits = self.limits
        if self.memory_pct <= limits.memory_kill_pct and self.swap_pct <= limits.swap_kill_pct:
            return SIGKILL
        return SIGTERM if self.memory_pct <= limits.memory_term_pct and self.swap_pct <= limits.swap_term_pct else 0

    @property
    def sleep_ms(self) -> int:
        """Until memory could have got low at the fastest."""
        memory_kib = max(0, int((self.memory_pct - self.limits.memory_term_pct) * self.user_total_kib / 100))
        swap_kib = max(0, int((self.swap_pct - self.limits.swap_term_pct) * self.swap_total_kib / 100))
        wanted_ms = memory_kib // _MEMORY_FILL_KIB_PER_MS + swap_kib // _SWAP_FILL_KIB_PER_MS
        return min(_SLEEP_MS[1], max(_SLEEP_MS[0], wanted_ms))


def headroom(meminfo: Meminfo, limits: Limits = Limits()) -> Headroom:
    """See ``Headroom``."""
    available = meminfo.get("MemAvailable") or 0
    user_total = available + (meminfo.get("AnonPages") or 0)
    swap_total = meminfo.get("SwapTotal") or 0
    return Headroom(
        memory_pct=available * 100 / user_total if user_total else 0.0,
        swap_pct=(meminfo.get("SwapFree") or 0) * 100 / swap_total if swap_total else 0.0,
        user_total_kib=user_total,
        swap_total_kib=swap_total,
        limits=limits,
    )


class EarlyoomPolicy:
    """See ``lmk.policy.api.Policy``."""

    name = "earlyoom"

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._clock = Clock()
        self._stepper = Stepper(self._clock, self._run())

    def start(self, now_ns: int) -> Request:
        """See ``Policy``."""
        return self._stepper.start(now_ns)

    def step(self, answer: object, now_ns: int) -> Request:
        """See ``Policy``."""
        return self._stepper.step(answer, now_ns)

    def processes(self) -> Sequence[ProcessRow]:
        """It keeps no table."""
        return ()

    def _run(self) -> Steps:
        # process_mrelease after a signal, since 1.8.
        yield StartReaper(1, "fifo")
        while True:
            look = yield from self._look()
            if look.signal:
                yield from self._kill(look)
            else:
                yield from self._sleep(look.sleep_ms)

    def _look(self) -> Steps:
        return headroom((yield from read_meminfo()), self._limits)

    def _sleep(self, span_ms: int) -> Steps:
        """Events (packets meant for lmkd) wake the target, not the program."""
        until_ns = self._clock.now_ns + span_ms * NS_PER_MS
        while self._clock.now_ns < until_ns:
            yield Wait(max(1, -(-(until_ns - self._clock.now_ns) // NS_PER_MS)))

    def _kill(self, look: Headroom) -> Steps:
        victim = yield from _worst()
        if victim is None:
            yield from self._sleep(_FAILED_KILL_MS)
            return
        # Looking at every process takes time: is it still necessary?
        again = yield from self._look()
        if not again.signal:
            yield from self._sleep(again.sleep_ms)
            return
        errno = yield from kill_process(victim, look.signal, queue=True)
        kills = look.signal == SIGKILL
        memory_limit = self._limits.memory_kill_pct if kills else self._limits.memory_term_pct
        swap_limit = self._limits.swap_kill_pct if kills else self._limits.swap_term_pct
        yield decided(
            self.name,
            f"memory available {look.memory_pct:.2f} % <= {memory_limit:g} % and swap free {look.swap_pct:.2f} % "
            f"<= {swap_limit:g} %",
            {
                "memory_pct": look.memory_pct,
                "swap_pct": look.swap_pct,
                "memory_limit_pct": memory_limit,
                "swap_limit_pct": swap_limit,
                "signal": look.signal,
            },
            () if errno else (victim,),
        )
        if errno:
            yield from self._sleep(_FAILED_KILL_MS)
        else:
            yield from self._await_exit(victim, look.signal)

    def _await_exit(self, victim: int, signal: int) -> Steps:
        """kill_wait: until the victim is gone; SIGTERM becomes SIGKILL once memory is that low."""
        for _ in range(_EXIT_WAIT_MS // _EXIT_POLL_MS):
            if not isinstance((yield ReadProcess(victim, "stat")), str):
                return
            if signal != SIGKILL and (yield from self._look()).signal == SIGKILL:
                signal = SIGKILL
                yield from kill_process(victim, SIGKILL, queue=True)
            yield from self._sleep(_EXIT_POLL_MS)


def _worst() -> Steps:
    """The pid with the highest oom_score, the larger resident set deciding between equals; None if there is none."""
    best: tuple[int, int] = (0, 0)
    chosen: int | None = None
    for pid in (yield ListProcesses()):
        resident = _resident_pages((yield ReadProcess(pid, "stat")))
        if resident is None:
            continue
        score = yield ReadProcess(pid, "oom_score")
        if not isinstance(score, str) or (int(score), resident) <= best:
            continue
        adj = yield ReadProcess(pid, "oom_score_adj")
        if isinstance(adj, str) and int(adj) != -1000:
            best, chosen = (int(score), resident), pid
    return chosen


def _resident_pages(stat: object) -> int | None:
    """Field 24 of /proc/PID/stat (rss); None for init, kernel threads and processes that are gone."""
    if not isinstance(stat, str):
        return None
    pid, fields = stat.split(" ", 1)[0], stat.rpartition(")")[2].split()
    if int(pid) <= _INIT_PIDS or int(fields[6]) & _KERNEL_THREAD:
        return None
    return int(fields[21])
