"""Run the micro-workloads of lmk-calibrate on a device and time our own way to it."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lmk.calibrate.machine import Machine
from lmk.calibrate.samples import Samples, parse_samples
from lmk.device.adb import AdbDevice
from lmk.device.helper import REMOTE_DIR, start_helper
from lmk.device.helper_messages import Sample, SettingsDone
from lmk.device.helper_requests import GetSample, Settings
from lmk.device.native import native_binary
from lmk.errors import TargetError
from lmk.guest.datadisk import POOL_PATH
from lmk.live.files import SAMPLE_MASK
from lmk.procfs.meminfo import parse_meminfo
from lmk.progress import Progress
from lmk.units import NS_PER_S

#: Groups of lmk-calibrate and the rounds of each pass; 96 MiB of memory at most.
GROUPS: dict[str, int] = {
    "memory": 5,
    "swap": 5,
    "aging": 5,
    "file": 5,
    "zram": 3,
    "death": 4,
    "system": 2,
}
#: Rounds of the group that needs a device to itself: free memory says what it is after.
_QUIET_GROUP, _QUIET_ROUNDS = "processes", 5
#: Every group is measured so often, in turns: a device or its host is not equally fast all the time, and rates that are
#: subtracted from each other must have seen the same of that. In software emulation all of it takes 120 to 160 s.
PASSES = 3
_GROUP_S = 60.0
_PINGS = 60
#: Of zoneinfo's page sets (mm/vmstat.c, zoneinfo_show_print).
_PAGESET_COUNT = re.compile(r"^ +count: +(\d+)$", re.MULTILINE)
_PAGE_KIB = 4
#: Columns of /proc/stat: idle and iowait, and guest time, which user time has in it.
_IDLE, _GUEST = 3, 8
_QUIET_S = 3
#: Samples are asked for as often as lmkd polls under pressure (PSI_POLL_PERIOD_SHORT_MS).
_BATCH = 60
_BATCHES = 16
_PAUSE_S = 0.01


def read_machine(adb: AdbDevice) -> Machine:
    """Ask before anything else runs: memory that a workload leaves behind would count as the kernel's own."""
    meminfo = parse_meminfo(adb.check_shell("cat /proc/meminfo")).kib
    # Free pages that a CPU keeps for itself are not in MemFree; a quiet device has tens of MiB of them.
    kept_pages = sum(int(found) for found in _PAGESET_COUNT.findall(adb.check_shell("cat /proc/zoneinfo")))
    file_kib = meminfo["Active(file)"] + meminfo["Inactive(file)"]
    release, cpus = adb.check_shell("uname -r; nproc").split()[:2]
    words = adb.shell("cat /sys/block/zram0/comp_algorithm").stdout.split()
    chosen = [word.strip("[]") for word in words if word.startswith("[")]
    return Machine(
        model=adb.getprop("ro.product.model") or adb.getprop("ro.hardware") or adb.serial,
        kernel=release,
        cpus=int(cpus),
        mem_total_kib=meminfo["MemTotal"],
        used_kib=meminfo["MemTotal"] - meminfo["MemFree"] - file_kib - kept_pages * _PAGE_KIB,
        base_permille=_busy_permille(
            *adb.check_shell(f"cat /proc/stat; sleep {_QUIET_S}; cat /proc/stat").split("cpu ")[1:]
        ),
        algorithm=chosen[0] if chosen else None,
    )


def _busy_permille(before: str, after: str) -> int:
    """What the CPUs did between two readings of /proc/stat (fs/proc/stat.c), from the numbers of its first line on."""
    first, second = ([int(word) for word in text.splitlines()[0].split()] for text in (before, after))
    spent = [late - early for early, late in zip(first, second, strict=True)]
    idle = sum(spent[_IDLE : _IDLE + 2])  # and waiting for storage
    return 1000 * (sum(spent[:_GUEST]) - idle) // max(1, sum(spent[:_GUEST]))


def measure(adb: AdbDevice, arch: str, cpus: int, progress: Progress, passes: int = PASSES) -> Samples:
    """All groups, then the way to the helper and back. TargetError where the device does not play along.

    The other CPUs are busy meanwhile: reclaim and faults never have a device to themselves, and a CPU is slower beside
    busy ones (shared caches and power; in an emulator, the host's cores).
    """
    program = _push(adb, arch)
    quiet = _run_group(adb, program, _QUIET_GROUP, 0, _QUIET_ROUNDS)
    # Starts of processes are timed beside busy CPUs, like everything else.
    found = Samples({name: values for name, values in quiet.values.items() if name != "fork"}, quiet.absent)
    with _busy(adb, program, cpus - 1):
        turns = [(turn, group) for turn in range(passes) for group in GROUPS]
        for index, (turn, group) in enumerate(turns):
            progress(f"measuring {group}", index / (len(turns) + PASSES))
            found |= _run_group(adb, program, group, turn, GROUPS[group])
    progress("measuring the way to the helper", len(turns) / (len(turns) + PASSES))
    return found | _way_to_helper(adb, program, cpus)


def _push(adb: AdbDevice, arch: str) -> str:
    data = native_binary("lmk-calibrate", arch).read_bytes()
    remote = f"{REMOTE_DIR}/lmk-calibrate-{hashlib.sha256(data).hexdigest()[:12]}"
    adb.push(data, remote, 0o755)
    return remote


def _run_group(adb: AdbDevice, program: str, group: str, turn: int, rounds: int) -> Samples:
    # The guest's pool of written blocks where there is one; otherwise the program makes a file of its own.
    pool = f"$(ls {shlex.quote(POOL_PATH)} 2>/dev/null)" if group in ("file", "aging") else ""
    # The round that warms up has a number too.
    answer = adb.shell(f"{program} {group} {turn * (rounds + 1)} {rounds} {pool}", timeout_s=_GROUP_S)
    if answer.exit_code != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise TargetError(
            f"{adb.serial}: lmk-calibrate {group} ended with {answer.exit_code}" + (f": {said[-1]}" if said else ""),
            "a calibration needs root or a debuggable build",
        )
    return parse_samples(answer.stdout)


def _way_to_helper(adb: AdbDevice, program: str, cpus: int) -> Samples:
    """Nanoseconds to the helper and back while every CPU of the device is busy, which is when decisions are made; and
    the CPU time that a sample for the policy takes from them, on the device and, in an emulator, on its host."""
    trips: list[float] = []
    samples: list[float] = []
    with start_helper(adb).connect() as stream:
        stream.request(Settings(flags=0), SettingsDone)
        with _busy(adb, program, cpus):
            for _ in range(_BATCHES):
                begin = _written(adb)
                for _ in range(_BATCH):
                    stream.request(GetSample(files=SAMPLE_MASK), Sample)
                    time.sleep(_PAUSE_S)
                between = _written(adb)
                # As long a time without samples.
                time.sleep(between[0] - begin[0])
                samples.append(_lost_ns(begin, between, _written(adb), cpus) / _BATCH)
            for _ in range(_PINGS):
                before_ns = time.monotonic_ns()
                stream.ping()
                trips.append(float(time.monotonic_ns() - before_ns))
                time.sleep(0.02)
    return Samples({"round_trip": trips, "sample_cpu": samples}, {})


def _written(adb: AdbDevice) -> tuple[float, int]:
    """Uptime in seconds, and pages written for the first time so far."""
    words = adb.check_shell("cat /proc/uptime; grep '^pgfault ' /proc/vmstat").split()
    return float(words[0]), int(words[3])


def _lost_ns(begin: tuple[float, int], between: tuple[float, int], end: tuple[float, int], cpus: int) -> float:
    """CPU time in which nothing was written between ``begin`` and ``between``, by the pace from there to ``end``."""
    with_s, without_s = between[0] - begin[0], end[0] - between[0]
    written, usual = between[1] - begin[1], (end[1] - between[1]) * with_s / without_s
    return (1 - written / usual) * with_s * cpus * NS_PER_S


@contextmanager
def _busy(adb: AdbDevice, program: str, count: int) -> Iterator[None]:
    """So many writers of memory, at the oom_score_adj and nice value of anybody."""
    loops = f"for i in $(seq {count}); do {program} memory 0 100000 >/dev/null 2>&1 </dev/null & echo $!; done"
    pids = adb.check_shell(loops).split()
    try:
        yield
    finally:
        if pids:
            adb.shell(f"kill -9 {' '.join(pids)}")
