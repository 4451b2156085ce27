"""earlyoom 1.8 with its default options, for comparison: percentages of memory and swap, SIGTERM, then SIGKILL.

From its manual and README (github.com/rfjakob/earlyoom) and its observable behaviour: it wakes between ten times and
once a second, the more often the less headroom there is; both available memory and free swap must be low; the
process with the highest oom_score dies. It knows no oom_score_adj tiers beyond what the kernel puts into oom_score.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmk.policy.api import SIGKILL, ListProcesses, ProcessRow, ReadProcess, Request, StartReaper, Wait
from lmk.policy.stepwise import Clock, Stepper, Steps, decided, kill_process, read_meminfo
from lmk.procfs.meminfo import Meminfo
from lmk.units import NS_PER_MS

SIGTERM = 15

#: -m and -s: at or below these percentages SIGTERM is sent, at or below half of them SIGKILL.
TERM_PCT = 10
KILL_PCT = 5
#: How fast memory can fill up at most, KiB per millisecond: what the sleep is computed from.
_MEMORY_FILL_KIB_PER_MS = 6000
_SWAP_FILL_KIB_PER_MS = 800
_SLEEP_MS = (100, 1000)
#: After a kill it looks every 100 ms, for ten seconds, whether the victim is gone.
_EXIT_POLL_MS = 100
_EXIT_WAIT_MS = 10_000
_FAILED_KILL_MS = 1000


@attrs.frozen(kw_only=True)
class Headroom:
    """What one look at /proc/meminfo says. Percent, as floats like the program's."""

    memory_pct: float
    swap_pct: float
    #: MemAvailable + AnonPages: what user space has or could have.
    user_total_kib: int
    swap_total_kib: int

    @property
    def signal(self) -> int:
        """The signal that is due, 0 for none. Without swap its percentage is 0, and memory alone decides."""
        if self.memory_pct <= KILL_PCT and self.swap_pct <= KILL_PCT:
            return SIGKILL
        return SIGTERM if self.memory_pct <= TERM_PCT and self.swap_pct <= TERM_PCT else 0

    @property
    def sleep_ms(self) -> int:
        """Until memory could have got low at the fastest."""
        memory_kib = max(0, int((self.memory_pct - TERM_PCT) * self.user_total_kib / 100))
        swap_kib = max(0, int((self.swap_pct - TERM_PCT) * self.swap_total_kib / 100))
        wanted_ms = memory_kib // _MEMORY_FILL_KIB_PER_MS + swap_kib // _SWAP_FILL_KIB_PER_MS
        return min(_SLEEP_MS[1], max(_SLEEP_MS[0], wanted_ms))


def headroom(meminfo: Meminfo) -> Headroom:
    """See ``Headroom``."""
    available = meminfo.get("MemAvailable") or 0
    user_total = available + (meminfo.get("AnonPages") or 0)
    swap_total = meminfo.get("SwapTotal") or 0
    return Headroom(
        memory_pct=available * 100 / user_total if user_total else 0.0,
        swap_pct=(meminfo.get("SwapFree") or 0) * 100 / swap_total if swap_total else 0.0,
        user_total_kib=user_total,
        swap_total_kib=swap_total,
    )


class EarlyoomPolicy:
    """See ``lmk.policy.api.Policy``."""

    name = "earlyoom"

    def __init__(self) -> None:
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
        # process_mrelease after SIGKILL, since 1.8.
        yield StartReaper(1, "fifo")
        while True:
            meminfo = yield from read_meminfo()
            look = headroom(meminfo)
            if look.signal:
                yield from self._kill(look)
            else:
                yield from self._sleep(look.sleep_ms)

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
        errno = yield from kill_process(victim, look.signal, queue=look.signal == SIGKILL)
        limit = KILL_PCT if look.signal == SIGKILL else TERM_PCT
        yield decided(
            self.name,
            f"memory available {look.memory_pct:.2f} % and swap free {look.swap_pct:.2f} %, both at most {limit} %",
            {"memory_pct": look.memory_pct, "swap_pct": look.swap_pct, "limit_pct": limit, "signal": look.signal},
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
            if signal != SIGKILL:
                meminfo = yield from read_meminfo()
                if headroom(meminfo).signal == SIGKILL:
                    signal = SIGKILL
                    yield from kill_process(victim, SIGKILL, queue=True)
            yield from self._sleep(_EXIT_POLL_MS)


def _worst() -> Steps:
    """The pid with the highest oom_score, the larger resident set deciding between equals; None if there is none."""
    best: tuple[int, int] | None = None
    chosen: int | None = None
    for pid in (yield ListProcesses()):
        score = yield ReadProcess(pid, "oom_score")
        adj = yield ReadProcess(pid, "oom_score_adj")
        statm = yield ReadProcess(pid, "statm")
        if not all(isinstance(text, str) for text in (score, adj, statm)) or int(adj) == -1000:
            continue
        rank = int(score), int(statm.split()[1])
        if rank[1] and (best is None or rank > best):
            best, chosen = rank, pid
    return chosen
