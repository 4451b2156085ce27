"""The memory files of /proc for the present state: as values, or as the text a kernel of the config's base prints.

Source: fs/proc/meminfo.c (meminfo_proc_show), mm/vmstat.c (vmstat_text, zoneinfo_show_print), kernel/sched/psi.c
(psi_show). Both forms say the same: parsing the text gives the values. Counters of things that the simulation leaves
out (slab, shmem, dirty pages) are there and zero.
"""

from __future__ import annotations

from typing import Final

from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure, Stall
from lmk.procfs.vmstat import Vmstat
from lmk.procfs.zoneinfo import Zone, Zoneinfo
from lmk.sim.memory import Memory
from lmk.sim.process import SimProcess
from lmk.sim.region import ANON, FILE
from lmk.sim.zone import HIGH, LOW, MIN, PAGE_KIB
from lmk.units import NS_PER_S


def meminfo(memory: Memory) -> Meminfo:
    """/proc/meminfo."""
    active_anon, inactive_anon = memory.lru.counts(ANON)
    active_file, inactive_file = memory.lru.counts(FILE)
    zram = memory.zram
    swap_pages = zram.slots if zram is not None else 0
    pages = {
        "MemTotal": memory.zones.managed,
        "MemFree": memory.zones.free,
        "MemAvailable": memory.available_pages(),
        "Buffers": 0,
        "Cached": memory.file_pages,
        "SwapCached": 0,
        "Active": active_anon + active_file,
        "Inactive": inactive_anon + inactive_file,
        "Active(anon)": active_anon,
        "Inactive(anon)": inactive_anon,
        "Active(file)": active_file,
        "Inactive(file)": inactive_file,
        "Unevictable": memory.locked_pages,
        "Mlocked": memory.locked_pages,
        "SwapTotal": swap_pages,
        "SwapFree": zram.free if zram is not None else 0,
        "Dirty": 0,
        "Writeback": 0,
        "AnonPages": memory.anon_pages + memory.locked_pages,
        "Mapped": memory.file_pages,
        "Shmem": 0,
        "KReclaimable": 0,
        "Slab": memory.process_pages,
        "SReclaimable": 0,
        "SUnreclaim": memory.process_pages,
        "KernelStack": 0,
        "PageTables": 0,
        "CmaTotal": 0,
        "CmaFree": 0,
    }
    return Meminfo(kib={name: count * PAGE_KIB for name, count in pages.items()})


def meminfo_text(value: Meminfo) -> str:
    """As show_val_kb prints it."""
    return "".join(f"{name + ':':<15} {kib:>8} kB\n" for name, kib in value.kib.items())


def swaps_text(memory: Memory) -> str:
    """/proc/swaps (mm/swapfile.c, swap_show)."""
    text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    if memory.zram is not None:
        size, used = memory.zram.slots * PAGE_KIB, memory.zram.used * PAGE_KIB
        text += f"{'/dev/zram0':<40}partition\t{size}\t\t{used}\t\t-2\n"
    return text


#: Counters of other things than kswapd and direct reclaim; in 6.12 pgdemote_kswapd is one of the node's.
_BETWEEN_STEAL_AND_SCAN: Final = {"5.10": {}, "6.1": {"pgdemote_kswapd": 0}, "6.12": {"pgsteal_khugepaged": 0}}


def vmstat(memory: Memory, base: str) -> Vmstat:
    """/proc/vmstat: of the kernel's names those of what is simulated, in the kernel's order."""
    counters: dict[str, int] = {"nr_free_pages": memory.zones.free}
    counters["nr_zspages"] = memory.zram.pool_pages if memory.zram is not None else 0
    counters["nr_free_cma"] = 0
    counters.update(_node_stats(memory, base))
    events = memory.events
    counters.update(
        {
            "pgpgin": events.pgpgin_kib,
            "pgpgout": 0,
            "pswpin": events.pswpin,
            "pswpout": events.pswpout,
            "allocstall_movable": events.allocstall,
            "pgfree": events.pgfree,
            "pgactivate": events.pgactivate,
            "pgfault": events.pgfault,
            "pgmajfault": events.pgmajfault,
            "pgrefill": memory.lru.refilled,
            "pgsteal_kswapd": events.pgsteal_kswapd,
            "pgsteal_direct": events.pgsteal_direct,
            **_BETWEEN_STEAL_AND_SCAN[base],
            "pgscan_kswapd": events.pgscan_kswapd,
            "pgscan_direct": events.pgscan_direct,
            **({"pgscan_khugepaged": 0} if base == "6.12" else {}),
            "pgscan_direct_throttle": 0,
            "pgscan_anon": events.pgscan_anon,
            "pgscan_file": events.pgscan_file,
            "pgsteal_anon": events.pgsteal_anon,
            "pgsteal_file": events.pgsteal_file,
            "pageoutrun": events.pageoutrun,
            "drop_pagecache": 0,
            "oom_kill": events.oom_kill,
        }
    )
    return Vmstat(counters=counters)


def vmstat_text(value: Vmstat) -> str:
    """One counter a line."""
    return "".join(f"{name} {count}\n" for name, count in value.counters.items())


def zoneinfo(memory: Memory, base: str) -> Zoneinfo:
    """/proc/zoneinfo: node 0 with its populated zones, then those without memory."""
    zones = memory.zones.zones
    # 5.12: a6ea8b5b9f1c shows the boost, 3c381db1fac8 the zone's CMA pages
    has_boost = has_cma = base != "5.10"
    empty = memory.zones.empty
    padding = (0,) * (len(empty) - 1)
    found = []
    for index, zone in enumerate(zones):
        fields = {
            "free": zone.free,
            **({"boost": 0} if has_boost else {}),
            "min": zone.marks[MIN],
            "low": zone.marks[LOW],
            "high": zone.marks[HIGH],
            **({"promo": 2 * zone.marks[HIGH] - zone.marks[LOW]} if base == "6.12" else {}),
            "spanned": zone.present,
            "present": zone.present,
            "managed": zone.managed,
            **({"cma": 0} if has_cma else {}),
            "nr_free_pages": zone.free,
            "nr_free_cma": 0,
        }
        stats = _node_stats(memory, base) if index == 0 else None
        protection = zone.protection + padding
        found.append(Zone(node=0, name=zone.name, fields=_parsed(fields), protection=protection, node_stats=stats))
    nothing = dict.fromkeys(("free", "boost", "min", "low", "high", "promo", "spanned", "present", "managed", "cma"), 0)
    if not has_boost:
        del nothing["boost"], nothing["cma"]
    if base != "6.12":
        del nothing["promo"]
    for name in empty:
        protection = (0,) * (len(zones) + len(empty))
        found.append(Zone(node=0, name=name, fields=_parsed(nothing), protection=protection))
    return Zoneinfo(zones=tuple(found))


def zoneinfo_text(value: Zoneinfo, free: tuple[int, ...]) -> str:
    """As zoneinfo_show_print does; ``free`` is each zone's "pages free", which the parsed value does not keep."""
    lines: list[str] = []
    for zone, pages_free in zip(value.zones, free, strict=True):
        lines.append(f"Node {zone.node}, zone {zone.name:>8}")
        if zone.node_stats is not None:
            lines.append("  per-node stats")
            lines += [f"      {name:<12} {count}" for name, count in zone.node_stats.items()]
        lines.append(f"  pages free     {pages_free}")
        marks = [name for name in zone.fields if not name.startswith("nr_")]
        lines += [f"        {name:<8} {zone.fields[name]}" for name in marks]
        lines.append(f"        protection: ({', '.join(str(number) for number in zone.protection)})")
        if zone.fields["present"]:
            lines += [f"      {name:<12} {count}" for name, count in zone.fields.items() if name.startswith("nr_")]
            lines += ["  pagesets", "  node_unreclaimable:  0", "  start_pfn:           1"]
    return "\n".join(lines) + "\n"


def zones_free(memory: Memory) -> tuple[int, ...]:
    """For ``zoneinfo_text``."""
    return (*(zone.free for zone in memory.zones.zones), *(0 for _ in memory.zones.empty))


def pressure_text(value: Pressure) -> str:
    """As psi_show prints it."""
    rows = [("some", value.some)] + ([("full", value.full)] if value.full is not None else [])
    return "".join(_pressure_row(name, stall) for name, stall in rows)


def status_text(process: SimProcess) -> str:
    """/proc/PID/status: what lmkd and others read of it."""
    name = process.plan.process_name[-15:]
    uid = process.plan.uid
    anon, file = process.anon_pages * PAGE_KIB, process.file_pages * PAGE_KIB
    return (
        f"Name:\t{name}\nUmask:\t0077\nState:\tS (sleeping)\nTgid:\t{process.pid}\nNgid:\t0\nPid:\t{process.pid}\n"
        f"PPid:\t1\nTracerPid:\t0\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        f"VmRSS:\t{anon + file:>8} kB\nRssAnon:\t{anon:>8} kB\nRssFile:\t{file:>8} kB\nRssShmem:\t{0:>8} kB\n"
        f"VmSwap:\t{process.swap_pages * PAGE_KIB:>8} kB\nThreads:\t1\n"
    )


def statm_text(process: SimProcess) -> str:
    """/proc/PID/statm."""
    size = process.rss_pages + process.swap_pages
    return f"{size} {process.rss_pages} {process.file_pages} 1 0 {size} 0\n"


def stat_text(process: SimProcess, ticks_per_s: int) -> str:
    """/proc/PID/stat: the name, the fault counters and the start time are what is read of it."""
    start_ticks = process.born_ns * ticks_per_s // NS_PER_S
    head = f"{process.pid} ({process.plan.process_name[-15:]}) S 1 {process.pid} {process.pid} 0 -1 4194560"
    size = process.rss_pages + process.swap_pages
    # fs/proc/array.c, do_task_stat: 52 fields
    return f"{head} 0 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} {size * 4096} {process.rss_pages}" + " 0" * 28 + "\n"


def _parsed(fields: dict[str, int]) -> dict[str, int]:
    """The parser takes "pages free" as the start of a block, not as a field."""
    return {name: count for name, count in fields.items() if name != "free"}


def _node_stats(memory: Memory, base: str) -> dict[str, int]:
    active_anon, inactive_anon = memory.lru.counts(ANON)
    active_file, inactive_file = memory.lru.counts(FILE)
    events = memory.events
    return {
        "nr_inactive_anon": inactive_anon,
        "nr_active_anon": active_anon,
        "nr_inactive_file": inactive_file,
        "nr_active_file": active_file,
        "nr_unevictable": memory.locked_pages,
        "nr_slab_reclaimable": 0,
        "nr_slab_unreclaimable": memory.process_pages,
        "workingset_refault_anon": events.refault_anon,
        "workingset_refault_file": events.refault_file,
        "workingset_restore_anon": events.restore_anon,
        "workingset_restore_file": events.restore_file,
        "nr_anon_pages": memory.anon_pages + memory.locked_pages,
        "nr_mapped": memory.file_pages,
        "nr_file_pages": memory.file_pages,
        "nr_dirty": 0,
        "nr_writeback": 0,
        "nr_shmem": 0,
        **({"pgdemote_kswapd": 0} if base == "6.12" else {}),
    }


def _pressure_row(name: str, stall: Stall) -> str:
    # kernel/sched/psi.c, psi_show
    averages = " ".join(
        f"avg{span}={share:.2f}"
        for span, share in ((10, stall.avg10_pct), (60, stall.avg60_pct), (300, stall.avg300_pct))
    )
    return f"{name} {averages} total={stall.total_us}\n"
