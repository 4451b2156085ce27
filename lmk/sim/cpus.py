"""Who gets how much of the CPUs, and what each CPU then shows to PSI.

Source: kernel/sched/core.c (sched_prio_to_weight), kernel/sched/fair.c (each task's part is its weight's part of all
that want to run, and never more than one CPU), kernel/sched/psi.c (psi_group_change, test_states), Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Sequence

#: sched_prio_to_weight of nice -20, 0 and 10.
NICE_HIGHEST, NICE_NORMAL, NICE_BACKGROUND = 88761, 1024, 110

#: CPU time is wall time times the second over the first.
Share = tuple[int, int]
WHOLE: Share = (1, 1)


class Usage:
    """What a runner did during a step, in nanoseconds of wall time."""

    __slots__ = ("io", "io_stall", "run", "stall")

    def __init__(self, run: int = 0, stall: int = 0) -> None:
        self.run = run  #: on a CPU, stalled or not
        self.stall = stall  #: on a CPU, in reclaim or waiting for it
        self.io = 0  #: asleep, waiting for storage
        self.io_stall = 0  #: of that, for pages of the working set


def shares(weights: Sequence[int], sleeping: Sequence[bool], cpus: int) -> list[Share]:
    """Each task's part by weight; who sleeps takes none from the others, and has its part when it wakes."""
    total = sum(weight for weight, asleep in zip(weights, sleeping, strict=True) if not asleep)
    free = cpus
    # Whose part would be more than a CPU has one, and the rest share what is left.
    for weight in sorted((w for w, asleep in zip(weights, sleeping, strict=True) if not asleep), reverse=True):
        if weight * free < total:
            break
        total -= weight
        free -= 1
    return [WHOLE if weight * free >= total else (total, weight * free) for weight in weights]


def spread(lanes: Sequence[int], sleeping: Sequence[bool], cpus: int) -> list[int]:
    """The load balancer puts who runs onto CPUs that have fewest; who sleeps counts where it ran."""
    load = [0] * cpus
    found = []
    for home, asleep in zip(lanes, sleeping, strict=True):
        lane = home
        if not asleep:
            if load[lane]:
                lane = load.index(min(load))
            load[lane] += 1
        found.append(lane)
    return found


def on_one_cpu(
    usages: Sequence[tuple[Usage, Share]], span_ns: int, *, crowded: bool
) -> tuple[int, int, int, int, int, int]:
    """Spans of several tasks on one CPU, as ``Psi.account`` takes them. Some is any of them stalled; full is the one
    that runs being in reclaim (cpu_curr()->in_memstall), or nobody running while one sleeps on a page. ``crowded``:
    there is always somebody who waits for a CPU."""
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
    waiting = span_ns if crowded else min(max(0, wall - run), span_ns)
    return stall_wall, min(stall_cpu, run) + stall_idle, min(io, span_ns), io_full, waiting, run + io_full
