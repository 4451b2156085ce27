"""One sample's /proc texts as the few numbers that every view plots."""

from __future__ import annotations

from lmk.procfs.meminfo import parse_meminfo
from lmk.procfs.psi import parse_pressure
from lmk.procfs.vmstat import parse_vmstat
from lmk.record.schema import CounterRow

#: What ``counter_row`` looks for in /proc/vmstat.
VMSTAT_NAMES = (
    *("workingset_refault_file", "workingset_refault", "pgscan_direct", "pgscan_kswapd", "pswpin", "pswpout"),
)


def counter_row(t_ns: int, meminfo: str | None, vmstat: str | None, psi_memory: str | None) -> CounterRow:
    """None for a file means that it could not be read: its numbers are then None, never 0."""
    mem = parse_meminfo(meminfo or "")
    counters = parse_vmstat(vmstat or "")
    pressure = parse_pressure(psi_memory or "")
    active, inactive = mem.get("Active(anon)"), mem.get("Inactive(anon)")
    # Linux 170b04b7ae49 (v5.9) split workingset_refault into _anon and _file.
    refaults = counters.get("workingset_refault_file")
    if refaults is None:
        refaults = counters.get("workingset_refault")
    return CounterRow(
        t_ns=t_ns,
        mem_free_kib=mem.get("MemFree"),
        mem_available_kib=mem.get("MemAvailable"),
        cached_kib=mem.get("Cached"),
        anon_kib=active + inactive if active is not None and inactive is not None else None,
        swap_total_kib=mem.get("SwapTotal"),
        swap_free_kib=mem.get("SwapFree"),
        psi_some_us=pressure.some.total_us if pressure else None,
        psi_full_us=pressure.full.total_us if pressure and pressure.full else None,
        refault_file_pages=refaults,
        pgscan_direct=counters.get("pgscan_direct"),
        pgscan_kswapd=counters.get("pgscan_kswapd"),
        pswpin_pages=counters.get("pswpin"),
        pswpout_pages=counters.get("pswpout"),
    )
