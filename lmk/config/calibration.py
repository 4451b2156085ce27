"""Calibration: the rates of one class of hardware, which the simulator multiplies its page counts with.

A constant is here or it cites its kernel source where it is used; none is fitted to a scenario. Times are
nanoseconds of one CPU of the device at the speed it has under load, per page of 4 KiB unless the name says
otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from lmk.config.convert import integer, list_of, string
from lmk.config.device import ZRAM_ALGORITHMS, Source
from lmk.config.load import Section, Value, open_document, suggest
from lmk.config.quantity import InvalidValue
from lmk.errors import ConfigError
from lmk.resources import data_dir
from lmk.units import US_PER_MS

_CLASS: Final = re.compile(r"published|emulator-tcg|measured:[A-Za-z0-9._-]{1,64}", re.ASCII)
_NS_MAX: Final = 10**12
DEFAULT_NAME: Final = "published"
#: The class of the emulator under software emulation.
EMULATOR: Final = "emulator-tcg"


#: What a cost without classes stands for: pages that compress two and a half times.
RATIO_PERMILLE: Final = 2500
_PAGE_BYTES: Final = 4096


@attrs.frozen(kw_only=True)
class ZramClass:
    """What pages of one compressibility (uncompressed over compressed size in thousandths) cost."""

    ratio_permille: int
    write_ns: int
    read_ns: int


@attrs.frozen(kw_only=True)
class ZramCost:
    """One compression algorithm: a page into the pool and out of it again."""

    write_ns: int
    read_ns: int
    #: By falling compressed size; none: all pages cost the same.
    classes: tuple[ZramClass, ...] = ()

    def of(self, compressed_bytes: int) -> tuple[int, int]:
        """(write_ns, read_ns) of a page of that compressed size: straight lines between the classes."""
        if not self.classes:
            return self.write_ns, self.read_ns
        sizes = [_PAGE_BYTES * 1000 // one.ratio_permille for one in self.classes]
        if compressed_bytes >= sizes[0]:
            return self.classes[0].write_ns, self.classes[0].read_ns
        for larger, smaller, big, small in zip(self.classes, self.classes[1:], sizes, sizes[1:], strict=False):
            if compressed_bytes >= small:
                part, whole = compressed_bytes - small, big - small
                return (
                    smaller.write_ns + (larger.write_ns - smaller.write_ns) * part // whole,
                    smaller.read_ns + (larger.read_ns - smaller.read_ns) * part // whole,
                )
        return self.classes[-1].write_ns, self.classes[-1].read_ns


@attrs.frozen(kw_only=True)
class Calibration:
    """Every rate the simulator uses."""

    name: str
    #: "published", "emulator-tcg" or "measured:DEVICE".
    kind: str
    sources: tuple[Source, ...]
    # -- faults, in the context of whoever touches the page
    fault_ns: int  #: first write to an anonymous page: fault, zeroing, the write itself
    file_fault_ns: int  #: mapping a cached file page, fault-around shared out
    file_read_ns: int  #: what reading a file page takes of the CPU beside mapping it
    swap_fault_ns: int  #: a swapped page's fault without its decompression
    touch_ns: int  #: touching a mapped page
    fork_us: int  #: from the request for a process to its first instruction
    # -- reclaim
    reclaim_scan_ns: int  #: looking at one page that stays
    reclaim_file_ns: int  #: unmapping and freeing one clean file page
    reclaim_cache_ns: int  #: freeing one clean file page that nobody maps
    reclaim_anon_ns: int  #: unmapping one anonymous page and storing it, without its compression
    aging_ns: int  #: one accessed page in an MGLRU page table walk
    zram: Mapping[str, ZramCost]
    zram_overhead_permille: int  #: pool pages over compressed bytes, fragmentation of zsmalloc included
    # -- the end of a process
    exit_ns: int  #: freeing one resident page in exit_mmap
    exit_base_us: int  #: the rest of an exit
    reap_ns: int  #: freeing one anonymous page in the reaper
    reap_start_us: int  #: from the kill to the reaper's first page
    swap_free_ns: int  #: freeing one swapped page, whoever does it
    signal_us: int  #: from a wake-up of the policy to its SIGKILL
    death_us: int  #: from SIGKILL to the victim's first step of exiting
    # -- events
    event_us: int  #: from the kernel's event to the policy's wake-up
    sample_us: int  #: CPU time that one look of the policy takes from whoever else is running
    base_cpu_permille: int  #: of every CPU, what daemons and kernel threads take all the time
    # -- storage: its own speed, which the limits of a config's storage hold down; used alone where it names none
    storage_read_kib_per_s: int
    storage_iops: int
    storage_request_us: int  #: a small read, alone
    storage_burst_ms: int  #: so much of a config's limit may be used up at once before it holds
    # -- memory the kernel keeps for itself
    kernel_fixed_kib: int  #: image, boot allocations and slab that do not depend on RAM
    kernel_reserved_permille: int  #: of RAM: struct page and what else never reaches MemTotal
    kernel_used_kib: int  #: slab, per-CPU pages and what runs beside Android: part of MemTotal, never free
    process_kib: int  #: kernel stack, page tables and the like of one process
    text_kib: int  #: resident text and libraries of a process that others use too, so that it never leaves


def shipped_calibrations() -> dict[str, Path]:
    """Shipped calibrations by name, sorted."""
    return {path.stem: path for path in sorted((data_dir("device-configs") / "calibration").glob("*.yaml"))}


def find_calibration(name_or_path: str) -> Path:
    """The file a shipped name or a path stands for. Raises ConfigError."""
    shipped = shipped_calibrations()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    hint = suggest(path.stem, shipped) or f"shipped: {', '.join(shipped)}"
    raise ConfigError(name_or_path, None, "", "no shipped calibration of that name and no such file", hint)


def load_calibration(path: Path | str) -> Calibration:
    """Read one calibration. Raises ConfigErrors naming everything that is wrong with it."""
    document = open_document(path)
    with document.root.section() as top:
        calibration = _read(top)
    document.problems.raise_if_any()
    return calibration


_OTHER_FIELDS: Final = {"name", "kind", "sources", "zram"}
#: Rates that may be nothing at all.
_MAY_BE_ZERO: Final = {
    *("touch_ns", "reclaim_scan_ns", "aging_ns", "kernel_fixed_kib", "kernel_used_kib", "process_kib"),
    *("file_read_ns", "storage_burst_ms", "text_kib", "base_cpu_permille"),
}


def with_kill_delay(calibration: Calibration, delay_ms: int) -> Calibration:
    """The same rates with a slower way to SIGKILL: what a watchdog of kill latency must notice."""
    return attrs.evolve(calibration, signal_us=calibration.signal_us + delay_ms * US_PER_MS)


def _read(top: Section) -> Calibration:
    numbers = {
        field.name: top.need(field.name, integer(minimum=field.name not in _MAY_BE_ZERO, maximum=_NS_MAX), 1)
        for field in attrs.fields(Calibration)
        if field.name not in _OTHER_FIELDS
    }
    with top.subsection("zram") as section:
        zram = {name: section.need(name, _zram_cost, ZramCost(write_ns=1, read_ns=1)) for name in ZRAM_ALGORITHMS}
    return Calibration(
        name=top.need("name", string, "unnamed"),
        kind=top.need("class", _kind, "published"),
        sources=tuple(
            _source(name, value) for name, value in top.need("source", Value.entries, dict[str, Value]()).items()
        ),
        zram=zram,
        **numbers,
    )


def _source(fields: str, value: Value) -> Source:
    return Source(fields=tuple(field.strip() for field in fields.split(",")), text=value.convert(string, ""))


def _kind(value: Value) -> str:
    text = string(value)
    if not _CLASS.fullmatch(text):
        raise InvalidValue(f"found {text!r}, expected published, emulator-tcg or measured:DEVICE")
    return text


def _zram_cost(value: Value) -> ZramCost:
    with value.section() as section:
        classes = section.take("classes", list_of(_zram_class), list[ZramClass]())
        if [one.ratio_permille for one in classes] != sorted({one.ratio_permille for one in classes}):
            section.value.error("has classes out of order", "sort them by ratio_permille, each once")
        return ZramCost(
            write_ns=section.need("write_ns", integer(minimum=1, maximum=_NS_MAX), 1),
            read_ns=section.need("read_ns", integer(minimum=1, maximum=_NS_MAX), 1),
            classes=tuple(classes),
        )


def _zram_class(value: Value) -> ZramClass:
    with value.section() as section:
        return ZramClass(
            ratio_permille=section.need("ratio_permille", integer(minimum=1000, maximum=20000), 1000),
            write_ns=section.need("write_ns", integer(minimum=1, maximum=_NS_MAX), 1),
            read_ns=section.need("read_ns", integer(minimum=1, maximum=_NS_MAX), 1),
        )
