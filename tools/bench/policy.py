#!/usr/bin/env python3
"""Speed of the policy: tools/bench/policy.py [--json] [--profile] [--repeat N]

Times are the policy's alone, with the kernel text already in memory (the target of a real run adds its own):

- text: one whole wake-up that kills: vmstat, meminfo, zoneinfo of 8 zones, three PSI files, the sizes of 300
  processes of one oom_score_adj (kill_heaviest_task), the victim's status, cmdline and stat, all as text;
- values: the same from parsed values;
- procprio: one PROCPRIO packet with 1,000 registered processes, from the packet to the next wait.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.policy.lmkd.control_packets import ProcPrio, encode_command
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.procfs.meminfo import parse_meminfo
from lmk.procfs.psi import parse_pressure
from lmk.procfs.vmstat import parse_vmstat
from lmk.procfs.zoneinfo import parse_zoneinfo

LIMITS_US = {"text": 400.0, "values": 60.0, "procprio": 3.0}
SECOND_NS = 1_000_000_000
CLIENT = (1000, 1000)

MEMINFO = {
    "MemTotal": 3809036, "MemFree": 60000, "MemAvailable": 1037100, "Buffers": 4916, "Cached": 978572,
    "SwapCached": 22072, "Active": 952564, "Inactive": 1281468, "Active(anon)": 490988, "Inactive(anon)": 835308,
    "Active(file)": 461576, "Inactive(file)": 446160, "Unevictable": 153332, "Mlocked": 153332, "SwapTotal": 2097148,
    "SwapFree": 900000, "Dirty": 1492, "Writeback": 0, "AnonPages": 1402612, "Mapped": 621108, "Shmem": 21212,
    "KReclaimable": 190612, "Slab": 331864, "SReclaimable": 117128, "SUnreclaim": 214736, "KernelStack": 53648,
    "ShadowCallStack": 13436, "PageTables": 103256, "SecPageTables": 0, "NFS_Unstable": 0, "Bounce": 0,
    "WritebackTmp": 0, "CommitLimit": 4001664, "Committed_AS": 64182992, "VmallocTotal": 257949696,
    "VmallocUsed": 141892, "VmallocChunk": 0, "Percpu": 18432, "HardwareCorrupted": 0, "AnonHugePages": 0,
    "ShmemHugePages": 0, "ShmemPmdMapped": 0, "FileHugePages": 0, "FilePmdMapped": 0, "CmaTotal": 212992,
    "CmaFree": 10440, "HugePages_Total": 0, "HugePages_Free": 0, "HugePages_Rsvd": 0, "HugePages_Surp": 0,
}  # fmt: skip
USED_COUNTERS = (
    *("nr_inactive_file", "nr_active_file", "workingset_refault_file", "pgscan_kswapd", "pgscan_direct", "pgrefill"),
)


def meminfo_text() -> str:
    return "".join(f"{name + ':':<16}{kib:>8} kB\n" for name, kib in MEMINFO.items())


def vmstat_text(turn: int) -> str:
    """170 lines, as a 6.1 kernel prints them."""
    lines = [f"nr_counter_{index} {index * 12345}" for index in range(164)]
    for index, name in enumerate(USED_COUNTERS):
        lines.insert(20 * index, f"{name} {110000 + turn if index > 1 else 110000}")
    return "\n".join(lines) + "\n"


def zoneinfo_text() -> str:
    """Two nodes of four zones."""
    text = ""
    for node in range(2):
        for index, name in enumerate(("DMA", "DMA32", "Normal", "Movable")):
            text += f"Node {node}, zone {name:>8}\n"
            if index == 0:
                text += "  per-node stats\n"
                text += "".join(f"      nr_stat_{line} {line * 77}\n" for line in range(30))
                text += "      nr_inactive_file 110000\n      nr_active_file 110000\n"
            text += "  pages free     40000\n        boost    0\n        min      1500\n        low      4500\n"
            text += "        high     6000\n        spanned  300000\n        present  300000\n        managed  290000\n"
            text += "        cma      0\n        protection: (0, 0, 2000, 2000)\n      nr_free_pages 40000\n"
            text += "".join(f"      nr_zone_line_{line} {line * 3}\n" for line in range(10))
            text += "  pagesets\n" + "    cpu: 0\n              count: 20\n              high:  42\n" * 8
            text += f"  node_unreclaimable:  0\n  start_pfn:           {index}\n"
    return text


PSI_TEXT = (
    "some avg10=12.34 avg60=3.10 avg300=1.05 total=12345678\nfull avg10=2.34 avg60=1.10 avg300=0.05 total=2345678\n"
)


class Bench:
    """A target with nothing behind it: every answer is a constant or a dictionary entry."""

    def __init__(self, properties: Mapping[str, str], *, text: bool) -> None:
        self.now_ns = 100 * SECOND_NS
        self.clock_ns = clock_overhead_ns()
        self.turn = 0
        self.files: dict[str, object] = {}
        self.text = text
        zoneinfo, meminfo, psi = zoneinfo_text(), meminfo_text(), PSI_TEXT
        self.constant = {
            "/proc/zoneinfo": zoneinfo if text else parse_zoneinfo(zoneinfo),
            "/proc/meminfo": meminfo if text else parse_meminfo(meminfo),
            **{f"/proc/pressure/{kind}": psi if text else parse_pressure(psi) for kind in ("memory", "io", "cpu")},
        }
        self.policy = LmkdPolicy("14Q2")
        self.answers: dict[type, Callable[[Any], object]] = {
            api.DescribeMachine: lambda _: api.Machine(),
            api.DescribeMemcg: lambda _: api.Memcg(2),
            api.CheckWritable: lambda _: False,
            api.GetProperties: lambda _: properties,
            api.ProbePidfd: lambda _: True,
            api.StartReaper: lambda _: True,
            api.ReadFile: lambda request: self.files.get(request.path, ""),
            api.ReadGpuTotal: lambda _: None,
            api.ReadProcess: lambda request: self.process_file(request.pid, request.file),
            api.ReadSizes: lambda request: self.sizes(request.pids),
            api.SetOomScoreAdj: lambda request: api.AdjWritten(request.pid),
            api.OpenPidfd: lambda request: api.Opened(request.pid),
            api.WatchExit: lambda _: 0,
            api.Kill: lambda _: api.Killed(0, True),
            api.Send: lambda _: 0,
        }
        for kind in (api.Log, api.EventLog, api.HandlerBegin, api.HandlerEnd, api.UnwatchExit, api.ClosePidfd):
            self.answers[kind] = _none
        for other in (api.SetProperty, api.ArmPsi, api.CloseConnection, Decision):
            self.answers[other] = _none
        self.texts: dict[int, str] = {}
        self.request: Any = self.policy.start(self.now_ns)
        self.run_to_wait()
        self.deliver(api.ConnectEvent(0))

    def process_file(self, pid: int, file: str) -> str:
        if file == "cmdline":
            return "com.example.application:service\0"
        if file == "stat":
            return f"{pid} (example.service) S 1 1 0 0 -1 4194560 7000 0 90 0 1 2 0 0 10 -10 30 0 12345 1 2"
        return (
            f"Name:\texample.service\nUmask:\t0077\nState:\tS (sleeping)\nTgid:\t{pid}\nNgid:\t0\nPid:\t{pid}\n"
            "PPid:\t700\nTracerPid:\t0\nUid:\t10001\t10001\t10001\t10001\nFDSize:\t256\nVmPeak:\t 1234567 kB\n"
            "VmSize:\t 1234567 kB\nVmRSS:\t  234567 kB\nRssAnon:\t  134567 kB\nVmSwap:\t   34567 kB\nThreads:\t40\n"
        )

    def sizes(self, pids: Sequence[int]) -> Sequence[object]:
        if not self.text:
            return [20000 + pid for pid in pids]
        for pid in pids:
            if pid not in self.texts:
                self.texts[pid] = f"300000 {20000 + pid} 15000 1 0 60000 0\n"
        return [self.texts[pid] for pid in pids]

    def run_to_wait(self) -> None:
        answers, step, now_ns = self.answers, self.policy.step, self.now_ns
        request = self.request
        while type(request) is not api.Wait:
            request = step(answers[type(request)](request), now_ns)
        self.request = request

    def deliver(self, *events: api.Event) -> None:
        self.request = self.policy.step(api.Wakeup(events), self.now_ns)
        self.run_to_wait()

    def register(self, pids: Sequence[int], adj: int) -> None:
        for pid in pids:
            self.deliver(api.PacketEvent(0, encode_command(ProcPrio(pid, 10001, adj)), CLIENT))

    def timed_step(self, answer: object) -> int:
        """Nanoseconds inside the policy until it waits again."""
        spent, clock = 0, time.perf_counter_ns
        overhead_ns = self.clock_ns
        answers, step, now_ns = self.answers, self.policy.step, self.now_ns
        while True:
            start = clock()
            request: Any = step(answer, now_ns)
            spent += clock() - start - overhead_ns
            if type(request) is api.Wait:
                self.request = request
                return spent
            answer = answers[type(request)](request)

    def wakeup_ns(self) -> int:
        """One killing wake-up, a minute after the last so that zoneinfo is read as well."""
        self.turn += 1
        self.now_ns += 61 * SECOND_NS
        vmstat = vmstat_text(self.turn * 1000)
        self.files = {**self.constant, "/proc/vmstat": vmstat if self.text else parse_vmstat(vmstat)}
        kills = self.policy.kill_count()
        spent = self.timed_step(api.Wakeup((api.PressureEvent(1),)))
        if self.policy.kill_count() != kills + 1:
            raise SystemExit("the benchmark's wake-up did not kill")
        self.register([max(PIDS)], 900)
        return spent


def clock_overhead_ns() -> int:
    """What two readings of the clock cost by themselves."""
    clock = time.perf_counter_ns
    return int(statistics.median(-(clock() - clock()) for _ in range(2000)))


def _none(_: object) -> None:
    return None


PIDS = range(2000, 2300)


def bench_wakeup(repeat: int, *, text: bool) -> list[float]:
    bench = Bench({"ro.lmk.kill_heaviest_task": "true", "ro.lmk.use_minfree_levels": "false"}, text=text)
    bench.register(PIDS, 900)
    return [bench.wakeup_ns() / 1000 for _ in range(repeat)]


def bench_procprio(repeat: int) -> list[float]:
    bench = Bench({}, text=True)
    pids = range(3000, 4000)
    bench.register(pids, 900)
    spent = []
    for turn in range(repeat):
        data = encode_command(ProcPrio(3000 + turn * 7 % 1000, 10001, 900 + turn % 50))
        spent.append(bench.timed_step(api.Wakeup((api.PacketEvent(0, data, CLIENT),))) / 1000)
    return spent


def measure(repeat: int) -> dict[str, dict[str, float]]:
    results = {}
    for name, times_us in (
        ("text", bench_wakeup(repeat, text=True)),
        ("values", bench_wakeup(repeat, text=False)),
        ("procprio", bench_procprio(repeat * 20)),
    ):
        warm = sorted(times_us[len(times_us) // 10 :])
        results[name] = {
            "median_us": round(statistics.median(warm), 2),
            "p95_us": round(warm[int(len(warm) * 0.95)], 2),
            "limit_us": LIMITS_US[name],
        }
    return results


def main() -> int:
    """0 when every median is within its limit, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--profile", action="store_true", help="where the time of a text wake-up goes")
    parser.add_argument("--repeat", type=int, default=300, metavar="N", help="wake-ups per case (300)")
    arguments = parser.parse_args()
    if arguments.profile:
        import cProfile
        import pstats

        profile = cProfile.Profile()
        profile.runcall(bench_wakeup, arguments.repeat, text=True)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return 0
    results = measure(arguments.repeat)
    if arguments.json:
        print(json.dumps({"schema": 1, "python": sys.version.split()[0], "results": results}))
    else:
        print(f"{'case':<10}{'median µs':>12}{'p95 µs':>12}{'limit µs':>12}")
        for name, row in results.items():
            print(f"{name:<10}{row['median_us']:>12}{row['p95_us']:>12}{row['limit_us']:>12}")
    return int(any(row["median_us"] > row["limit_us"] for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
