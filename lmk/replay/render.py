"""Kernel texts of a recorded world: the formats of ``vectors/README.md``, checked against its raw files."""

from __future__ import annotations

from typing import Any

_ZONE_ZEROES = (
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",
    "nr_zone_active_file",
    "nr_zone_unevictable",
    "nr_zone_write_pending",
    "nr_mlock",
    "nr_bounce",
    "nr_zspages",
)
_ZONE_ZERO_ROWS = "".join(f"      {name:<12} 0\n" for name in _ZONE_ZEROES)
_PAGESETS = (
    "  pagesets\n"
    + "".join(
        f"    cpu: {cpu}\n"
        "              count: 0\n"
        "              high:  6\n"
        "              batch: 1\n"
        "  vm stats threshold: 4\n"
        for cpu in range(2)
    )
    + "  node_unreclaimable:  0\n  start_pfn:           4096\n"
)


def meminfo(values: dict[str, int]) -> str:
    """``/proc/meminfo``; values in kB."""
    return "".join(f"{key + ':':<16}{value:>8} kB\n" for key, value in values.items())


def vmstat(values: dict[str, int]) -> str:
    """``/proc/vmstat``; pages and counts."""
    return "".join(f"{key} {value}\n" for key, value in values.items())


def pressure(rows: list[list[float]]) -> str:
    """``/proc/pressure/*``: rows of [avg10, avg60, avg300, total]; ``cpu`` may have only the first."""
    return "".join(
        f"{word} avg10={row[0]:.2f} avg60={row[1]:.2f} avg300={row[2]:.2f} total={int(row[3])}\n"
        for word, row in zip(("some", "full"), rows, strict=False)
    )


def zoneinfo(layout: dict[str, Any]) -> str:
    """``/proc/zoneinfo`` in the form of 5.10 or 6.1 (``fmt``); pages."""
    out: list[str] = []
    modern = layout["fmt"] == "6.1"
    for node in layout["nodes"]:
        stats = node["stats"]
        for zone in node["zones"]:
            out.append(f"Node {node['id']}, zone {zone['name']:>8}\n")
            if zone["present"] and stats is not None:
                out.append("  per-node stats\n")
                out += [f"      {key:<12} {value}\n" for key, value in stats.items()]
                stats = None
            out.append(_zone(zone, modern))
    return "".join(out)


def _zone(zone: dict[str, Any], modern: bool) -> str:
    rows = [f"  pages free     {zone['free']}\n"]
    if modern:
        rows.append("        boost    0\n")
    rows += [f"        {key:<8} {zone[key]}\n" for key in ("min", "low", "high")]
    rows.append(f"        spanned  {zone['present']}\n        present  {zone['present']}\n")
    rows.append(f"        managed  {zone['managed']}\n")
    if modern:
        rows.append(f"        cma      {zone['cma']}\n")
    rows.append(f"        protection: ({', '.join(map(str, zone['prot']))})\n")
    if zone["present"]:
        rows.append(f"      {'nr_free_pages':<12} {zone['free']}\n")
        rows.append(_ZONE_ZERO_ROWS)
        rows.append(f"      {'nr_free_cma':<12} {zone['fcma']}\n")
        rows.append(_PAGESETS)
    return "".join(rows)


def _comm(process: dict[str, Any]) -> str:
    if process.get("comm") is not None:
        return str(process["comm"])
    words = str(process["name"]).split()
    return words[0][-15:] if words else ""


def resident_pages(process: dict[str, Any], page_kib: int) -> int:
    """Second number of ``statm``."""
    return int(process["res"]) if process.get("res") is not None else int(process["rss"]) // page_kib


def status(process: dict[str, Any]) -> str:
    """``/proc/<pid>/status``."""
    pid, uid = process["pid"], process["uid"]
    rows = [
        f"Name:\t{_comm(process)}\nUmask:\t0077\nState:\tS (sleeping)\n",
        "" if process.get("notgid") else f"Tgid:\t{process.get('tgid') or pid}\n",
        f"Ngid:\t0\nPid:\t{pid}\nPPid:\t620\nTracerPid:\t0\n",
        f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\t{uid}\nFDSize:\t256\n",
    ]
    if not process.get("zombie"):
        size_kib = (process["rss"] + 220000) * 4
        rows.append(f"VmPeak:\t{size_kib + 20000:>8} kB\nVmSize:\t{size_kib:>8} kB\n")
        rows.append(f"VmRSS:\t{process['rss']:>8} kB\n")
        if not process.get("noswap"):
            rows.append(f"VmSwap:\t{process['swap']:>8} kB\n")
    rows.append("Threads:\t21\n")
    return "".join(rows)


def statm(process: dict[str, Any], page_kib: int) -> str:
    """``/proc/<pid>/statm``."""
    pages = resident_pages(process, page_kib)
    return f"{pages * 4 + 220000} {pages} {pages // 3} 6 0 {pages * 2} 0\n"


def stat(process: dict[str, Any], page_kib: int) -> str:
    """``/proc/<pid>/stat``."""
    pid = process["pid"]
    pages = resident_pages(process, page_kib)
    return (
        f"{pid} ({_comm(process)}) S 620 620 0 0 -1 1077936448 {7 * pid} 0 {pid % 997} 0 311 87 0 0 10 -10 21 0 "
        f"{13 * pid} 5368709120 {pages} 18446744073709551615\n"
    )


def cmdline(process: dict[str, Any]) -> str:
    """``/proc/<pid>/cmdline``."""
    return f"{process['name']}\0"


def cgroup(process: dict[str, Any]) -> str:
    """``/proc/<pid>/cgroup``."""
    leaf = f"uid_{process['uid']}/pid_{process['pid']}"
    return f"5:memory:/apps/{leaf}\n2:cpuset:/foreground\n0::/{leaf}\n"


def memory_stat(process: dict[str, Any]) -> str:
    """``memory.stat`` of a process's own memory cgroup."""
    pid, rss, swap = process["pid"], process["rss"], process["swap"]
    return (
        f"cache 4096\nrss 1\ntotal_cache {300 * rss}\ntotal_rss {900 * rss}\ntotal_swap {1000 * swap}\n"
        f"total_pgfault {5 * pid}\ntotal_pgmajfault {pid % 311}\n"
    )
