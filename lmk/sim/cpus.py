"""Who gets how much of the CPUs, and what each CPU then shows to PSI.

Source: kernel/sched/core.c (sched_prio_to_weight), kernel/sched/fair.c (select_task_rq_fair, load_balance; on one CPU
each task's part is its weight's part of all that want to run), kernel/sched/psi.c (psi_group_change, test_states),
Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: sched_prio_to_weight of nice -20, 0 and 10.
NICE_HIGHEST: Final = 88761
NICE_NORMAL: Final = 1024
NICE_BACKGROUND: Final = 110

#: CPU time is wall time times the second over the first.
Share = tuple[int, int]
WHOLE: Share = (1, 1)
#: The demand of who never sleeps.
WHOLE_TIME: Final = 1000


class Usage:
    """What a runner did during a step, in nanoseconds of wall time."""

    __slots__ = ("io", "io_stall", "run", "stall")

    def __init__(self, run: int = 0, stall: int = 0) -> None:
        self.run = run  #: on a CPU, stalled or not
        self.stall = stall  #: on a CPU, in reclaim or waiting for it
        self.io = 0  #: asleep, waiting for storage
        self.io_stall = 0  #: of that, for pages of the working set


def demand(cpu_ns: int, wait_ns: int) -> int:
    """Thousandths of the time in which somebody wants a CPU who computes and waits by turns."""
    return WHOLE_TIME * cpu_ns // (cpu_ns + wait_ns)


def spread(lanes: Sequence[int], weights: Sequence[int], demands: Sequence[int], cpus: int, turn: int) -> list[int]:
    """A CPU for each task: who runs goes where the least weight is, the heaviest first (load_balance evens out load by
    weight), beginning with another task and CPU each ``turn``; who mostly sleeps stays where it ran."""
    load = [0] * cpus
    found = list(lanes)
    count, first = len(found), turn % cpus
    order = [(place + turn) % count for place in range(count)]
    if count > cpus:
        order.sort(key=lambda index: -weights[index])
    for index in order:
        lane = found[index]
        if demands[index] * 2 >= WHOLE_TIME and load[lane]:
            least = min(load)
            lane = found[index] = load.index(least, first if least in load[first:] else 0)
        load[lane] += demands[index] * weights[index]
    return found


def shares(lanes: Sequence[int], weights: Sequence[int], demands: Sequence[int], cpus: int) -> list[Share]:
    """Each task's part of its CPU, by weight, while it wants it: who wants less than that has what it wants."""
    found = [WHOLE] * len(lanes)
    for cpu in range(cpus):
        left = WHOLE_TIME
        rest = [index for index, lane in enumerate(lanes) if lane == cpu]
        while True:
            total = sum([weights[index] for index in rest])
            more = [index for index in rest if demands[index] * total > left * weights[index]]
            if len(more) == len(rest):
                break
            left -= sum([demands[index] for index in rest if index not in more])
            rest = more
        for index in rest:
            # What it gets is left * weight / total. Who waits in between, and wants the part d of the time when
            # alone, gets so much if each piece of work takes 1 / got - 1 / d + 1 times as long.
            part, wanted = left * weights[index], demands[index]
            found[index] = (WHOLE_TIME * (total * wanted - part) + part * wanted, part * wanted)
    return found


def beside(share: Share, looking_ns: int, span_ns: int) -> Share:
    """A share of a CPU that somebody of higher priority takes for ``looking_ns`` of a step."""
    if not looking_ns:
        return share
    wanted, cpus = share
    return max(wanted, cpus) * span_ns, cpus * (span_ns - looking_ns)


def on_one_cpu(usages: Sequence[tuple[Usage, Share]], span_ns: int) -> tuple[int, int, int, int, int, int]:
    """Spans of several tasks on one CPU, as ``Psi.account`` takes them. Some is any of them stalled; full is the one
    that runs being in reclaim (cpu_curr()->in_memstall), or nobody running while one sleeps on a page."""
    wall = run = stall_wall = stall_cpu = io = io_stall = 0
    for usage, (wanted, cpus) in usages:
        wall += usage.run
        stall = usage.stall
        stall_wall += stall + usage.io_stall
        run += usage.run * cpus // wanted
        stall_cpu += stall * cpus // wanted
        if usage.io > io:
            io = usage.io
        if usage.io_stall > io_stall:
            io_stall = usage.io_stall
    run, stall_wall = min(run, span_ns), min(stall_wall, span_ns)
    idle = span_ns - run
    io_full, stall_idle = min(io, idle), min(io_stall, idle)
    waiting = min(max(0, wall - run), span_ns)
    return stall_wall, min(stall_cpu, run) + stall_idle, min(io, span_ns), io_full, waiting, run + io_full
