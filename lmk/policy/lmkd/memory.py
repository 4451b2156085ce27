"""Reading the kernel's memory files the way lmkd does, from text or from parsed values.

Results are in pages: a kB number is divided by the page size in KiB, as in C. Dataclasses as in lmk.policy.lmkd.daemon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lmk.policy.api import FileError, Log, ReadFile, ReadGpuTotal
from lmk.policy.lmkd.daemon import Daemon, Steps, error
from lmk.policy.lmkd.kernel_text import INT64_MAX, INT64_MIN, parse_pairs, parse_psi
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.strerror import strerror
from lmk.policy.lmkd.versions import Behaviour
from lmk.policy.lmkd.watermark import ZoneMarks, parse_watermarks, parse_zones
from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure
from lmk.procfs.vmstat import Vmstat
from lmk.procfs.zoneinfo import Zoneinfo
from lmk.units import c_div, c_int32, c_int64

MEMINFO_PATH: Final = "/proc/meminfo"
VMSTAT_PATH: Final = "/proc/vmstat"
ZONEINFO_PATH: Final = "/proc/zoneinfo"
PSI_MEMORY_PATH: Final = "/proc/pressure/memory"
PSI_IO_PATH: Final = "/proc/pressure/io"
PSI_CPU_PATH: Final = "/proc/pressure/cpu"
WATERMARK_REFRESH_MS: Final = 60_000
_READ: Final = {
    path: ReadFile(path)
    for path in (MEMINFO_PATH, VMSTAT_PATH, ZONEINFO_PATH, PSI_MEMORY_PATH, PSI_IO_PATH, PSI_CPU_PATH)
}

#: In the order of the killinfo event.
MEMINFO_FIELDS: Final = (
    *("MemFree", "Cached", "SwapCached", "Buffers", "Shmem", "Unevictable", "SwapTotal", "SwapFree"),
    *("Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)", "SReclaimable", "SUnreclaim"),
    *("KernelStack", "PageTables", "ION_heap", "ION_heap_pool", "CmaFree"),
)
_MEMINFO_NAMES: Final = (*MEMINFO_FIELDS, "Dirty")
_MEMINFO_INDEX: Final = {name + ":": index for index, name in enumerate(_MEMINFO_NAMES)}
VMSTAT_FIELDS: Final = (
    *("nr_inactive_file", "nr_active_file", "workingset_refault", "workingset_refault_file"),
    *("pgscan_kswapd", "pgscan_direct", "pgrefill", "nr_free_pages", "pgscan_direct_throttle"),
)
_VMSTAT_INDEX: Final = {name: index for index, name in enumerate(VMSTAT_FIELDS)}
_PGSKIP_FIELDS: Final = ("pgskip_dma", "pgskip_dma32", "pgskip_normal", "pgskip_high", "pgskip_movable")
VENDOR_VMSTAT_FIELDS: Final = (*VMSTAT_FIELDS, *_PGSKIP_FIELDS)
_VENDOR_VMSTAT_INDEX: Final = {name: index for index, name in enumerate(VENDOR_VMSTAT_FIELDS)}


def wrap(number: int) -> int:
    """A 64-bit result; sums and products of numbers too large for C wrap around."""
    return number if INT64_MIN <= number <= INT64_MAX else c_int64(number)


def saturate(number: int) -> int:
    """A number as strtoll reads it."""
    return min(max(number, INT64_MIN), INT64_MAX)


@dataclass(slots=True)
class MemoryInfo:
    """/proc/meminfo in pages, ``logged`` in the order of the killinfo event; ``gpu_kib`` beside it."""

    logged: list[int]
    dirty: int
    gpu_kib: int
    free: int
    shmem: int
    unevictable: int
    swap_cached: int
    swap_total: int
    swap_free: int
    anon: int
    active_file: int
    inactive_file: int
    cma_free: int
    file_pages: int  #: Cached + SwapCached + Buffers
    easy: int = 0  #: easily available, see section 4.3

    def free_swap(self, params: LmkdParams, behaviour: Behaviour) -> int:
        """get_free_swap: pages of swap that count as free in a release."""
        return free_swap_pages(self.swap_free, self.easy, params, behaviour)


def free_swap_pages(swap_free: int, easy: int, params: LmkdParams, behaviour: Behaviour) -> int:
    """Pages of swap that count as free, from SwapFree and easily available memory (reference: section 4.3)."""
    mode = behaviour.free_swap
    if mode == "raw":
        return swap_free
    if mode == "easy":
        return min(swap_free, easy)
    if mode == "factor":
        return min(swap_free, wrap(easy * behaviour.swap_factor))
    ratio = params.swap_compression_ratio
    if not ratio:
        return swap_free
    available = wrap(easy * ratio)
    if mode == "ratio_div" and params.swap_compression_ratio_div:
        available = c_div(available, params.swap_compression_ratio_div)
    return min(swap_free, available)


@dataclass(slots=True)
class VmCounters:
    """The counters of /proc/vmstat lmkd uses; 0 where the kernel has none."""

    inactive_file: int
    active_file: int
    refault: int
    refault_file: int
    scan_kswapd: int
    scan_direct: int
    pgrefill: int
    #: pgskip of the zones DMA, DMA32, Normal, High, Movable; a vendor's lmkd only
    skipped: tuple[int, ...] = ()

    @property
    def file_pages(self) -> int:
        """The file LRU."""
        return wrap(self.inactive_file + self.active_file)


def reread(path: str) -> Steps:
    """reread_file: the text (or value) of a file whose descriptor is kept, or None after an error line."""
    answer = yield ReadFile(path)
    if isinstance(answer, FileError):
        yield _reread_error(path, answer)
        return None
    return answer


def _reread_error(path: str, failure: FileError) -> Log:
    return error(f"{path} {failure.op}: {strerror(failure.errno)}")


def _as_read(numbers: list[int]) -> list[int]:
    """Numbers of a parsed value as ``strtoll`` would have read them from the text."""
    if max(numbers) > INT64_MAX or min(numbers) < INT64_MIN:
        return [saturate(number) for number in numbers]
    return numbers


def read_vmstat(d: Daemon) -> Steps:
    """vmstat_parse: ``VmCounters`` or None."""
    answer = yield _READ[VMSTAT_PATH]
    if isinstance(answer, FileError):
        yield _reread_error(VMSTAT_PATH, answer)
        return None
    if answer is d.vmstat_seen[0]:
        return d.vmstat_seen[1]
    index = _VENDOR_VMSTAT_INDEX if d.behaviour.skipped_zones else _VMSTAT_INDEX
    if isinstance(answer, Vmstat):
        counters = answer.counters
        numbers: list[int] | None = _as_read([counters.get(name, 0) for name in index])
    else:
        numbers = parse_pairs(answer, index, len(index))
    if numbers is None:
        yield error(f"{VMSTAT_PATH} parse error")
        return None
    parsed = VmCounters(*numbers[:7], tuple(numbers[len(VMSTAT_FIELDS) :]))  # type: ignore[arg-type,call-arg]
    if isinstance(answer, Vmstat):
        d.vmstat_seen = answer, parsed
    return parsed


def read_meminfo(d: Daemon) -> Steps:
    """meminfo_parse: ``MemoryInfo`` or None."""
    answer = yield _READ[MEMINFO_PATH]
    if isinstance(answer, FileError):
        yield _reread_error(MEMINFO_PATH, answer)
        return None
    seen = d.meminfo_seen
    if answer is seen[0] and d.params is seen[1]:
        # Polls come faster than memory changes, and a simulated device then answers with the same value.
        return seen[2]
    memory = yield from _parse_meminfo(d, answer)
    if isinstance(answer, Meminfo) and d.gpu_map_missing:
        d.meminfo_seen = answer, d.params, memory
    return memory


def _parse_meminfo(d: Daemon, answer: str | Meminfo) -> Steps:
    if isinstance(answer, Meminfo):
        kib = answer.kib
        numbers: list[int] | None = _as_read([kib.get(name, 0) for name in _MEMINFO_NAMES])
    else:
        numbers = parse_pairs(answer, _MEMINFO_INDEX, len(_MEMINFO_NAMES))
    if numbers is None:
        yield error(f"{MEMINFO_PATH} parse error")
        return None
    page_kib = d.page_kib
    if min(numbers) >= 0:
        pages = [number // page_kib for number in numbers]
    else:
        pages = [c_div(number, page_kib) for number in numbers]
    gpu_kib = 0 if d.gpu_map_missing else (yield from _read_gpu_kib(d))
    dirty = pages.pop()
    free, cached, swap_cached, buffers, shmem, unevictable, swap_total, swap_free = pages[:8]
    memory = MemoryInfo(
        logged=pages,
        dirty=dirty,
        gpu_kib=gpu_kib,
        free=free,
        shmem=shmem,
        unevictable=unevictable,
        swap_cached=swap_cached,
        swap_total=swap_total,
        swap_free=swap_free,
        anon=wrap(pages[8] + pages[9]),
        active_file=pages[10],
        inactive_file=pages[11],
        cma_free=pages[18],
        file_pages=wrap(cached + swap_cached + buffers),
        easy=wrap(free + pages[11]),
    )
    if d.params.relaxed_available_memory and d.params.swap_compression_ratio:
        memory.easy = _relaxed_available(memory, d.params)
    return memory


def _relaxed_available(memory: MemoryInfo, params: LmkdParams) -> int:
    """Easily available memory where active file pages and compressible memory count too."""
    ratio, divisor = params.swap_compression_ratio, params.swap_compression_ratio_div
    compressible = c_div(wrap((ratio - divisor) * memory.anon), ratio)
    return wrap(memory.easy + memory.active_file - memory.dirty + compressible)


def _read_gpu_kib(d: Daemon) -> Steps:
    """read_gpu_total_kb: the map is looked for once."""
    total_bytes = yield ReadGpuTotal()
    if total_bytes is None:
        d.gpu_map_missing = True
        return 0
    return c_int32(total_bytes // 1024)


def read_zones(d: Daemon) -> Steps:
    """zoneinfo_parse: a list of ``ZoneMarks``, or None."""
    answer = yield _READ[ZONEINFO_PATH]
    if isinstance(answer, FileError):
        yield _reread_error(ZONEINFO_PATH, answer)
        return None
    zones: list[ZoneMarks] | None = None
    if isinstance(answer, str | Zoneinfo):
        zones = parse_zones(answer, d.behaviour)
    if zones is None:
        yield error(f"{ZONEINFO_PATH} parse error")
    return zones


def read_watermarks(d: Daemon) -> Steps:
    """zoneinfo_parse and calc_zone_watermarks: ``Watermarks`` or None."""
    answer = yield _READ[ZONEINFO_PATH]
    if isinstance(answer, FileError):
        yield _reread_error(ZONEINFO_PATH, answer)
        return None
    watermarks = parse_watermarks(answer, d.behaviour) if isinstance(answer, str | Zoneinfo) else None
    if watermarks is None:
        yield error(f"{ZONEINFO_PATH} parse error")
    return watermarks


def read_psi(path: str, full: bool, into: list[float]) -> Steps:
    """psi_parse: avg10 of ``some`` and ``full`` into a list of two; bool, whether the file parsed."""
    answer = yield _READ[path]
    if isinstance(answer, FileError):
        yield _reread_error(path, answer)
        return False
    if not isinstance(answer, str | Pressure):
        return False
    return parse_psi(answer, full, into)
