"""From samples to the numbers of a calibration, each with its 95 % interval and the workload it comes from. Pure.

What a device does not let us measure is taken from another calibration and says so. What the workloads are: the
comments of tools/lmk-helper/calibrate*.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from lmk.calibrate.machine import Machine
from lmk.calibrate.samples import Estimate, Samples, average
from lmk.config.calibration import RATIO_PERMILLE, Calibration, ZramClass, ZramCost

#: Compressibility classes of lmk-calibrate, uncompressed over compressed size in thousandths.
CLASSES: Final = (1000, 1500, 2000, 2500, 3500, 6000)
_NS_PER_US: Final = 1000


@attrs.frozen(kw_only=True)
class Number:
    """One key of a calibration: its value and where it comes from; ``estimate`` None: not measured here."""

    key: str
    value: int
    estimate: Estimate | None
    source: str


@attrs.frozen(kw_only=True)
class Derived:
    """Everything a calibration file holds beside its name and class."""

    numbers: tuple[Number, ...]
    zram: Mapping[str, ZramCost]
    zram_source: str


def derive(samples: Samples, machine: Machine, base: Calibration, memory_bytes: int | None) -> Derived:
    """The numbers. ``memory_bytes``: RAM that the device was given, less bounce buffers; None where nobody
    knows."""
    found = _Finder(samples, base)
    numbers = {
        number.key: number
        for number in (*_rates(found, machine), *_system(machine, base, memory_bytes), *_storage(found))
    }
    zram, zram_source = _zram(samples, machine, base)
    if machine.algorithm is not None and not _second_device(samples, machine.algorithm):
        # Paging is all that could be timed, and all of it counts for the algorithm.
        for key in ("swap_fault_ns", "reclaim_anon_ns"):
            numbers[key] = Number(key=key, value=1, estimate=None, source="measured: contained in zram's figures")
    ordered = [
        numbers.get(key) or Number(key=key, value=getattr(base, key), estimate=None, source=base_source(base, key))
        for key in number_keys()
    ]
    return Derived(numbers=tuple(ordered), zram=zram, zram_source=zram_source)


def number_keys() -> list[str]:
    """Keys of a calibration that are one number each, in the order of the class."""
    return [f.name for f in attrs.fields(Calibration) if f.name not in ("name", "kind", "sources", "zram")]


def base_source(base: Calibration, key: str) -> str:
    """What another calibration says of a key that could not be measured here."""
    text = next((source.text for source in base.sources if key in source.fields), "assumed: unknown")
    return text if text.startswith("seen") or base.name in text else f"{text} (not measured here: as {base.name})"


class _Finder:
    """Estimates as numbers of a calibration."""

    def __init__(self, samples: Samples, base: Calibration) -> None:
        self.samples = samples
        self._base = base

    def __call__(
        self, key: str, how: str, make: Callable[[Callable[[str], Estimate]], Estimate], unit: int = 1
    ) -> Number:
        """``make`` builds the estimate of named samples, in nanoseconds; ``unit``: nanoseconds of the key's unit."""
        try:
            estimate = make(self._need).scaled(1 / unit)
        except LookupError:
            return Number(key=key, value=getattr(self._base, key), estimate=None, source=base_source(self._base, key))
        return Number(key=key, value=max(1, round(estimate.value)), estimate=estimate, source=measured(estimate, how))

    def _need(self, name: str) -> Estimate:
        estimate = self.samples.get(name)
        if estimate is None:
            raise LookupError(name)
        return estimate


def measured(estimate: Estimate, how: str) -> str:
    """The text of a source."""
    low, high = estimate.value - estimate.half, estimate.value + estimate.half
    return f"measured: {how}; {low:.0f} to {high:.0f} at 95 %, n {estimate.n}"


def _rates(found: _Finder, machine: Machine) -> list[Number]:
    algorithm = machine.algorithm or "none"
    large, swapped = found.samples.values.get("kill.large.pages"), found.samples.values.get("kill.swapped.pages")
    pages = large[0] if large else 1
    swapped_pages = swapped[0] if swapped else 1
    reaper = "reap.process_reap" if "reap.process_reap" in found.samples.values else "reap.process_mrelease"
    return [
        found("fault_ns", "first write of pages that compress 2.5 times", lambda s: s("fault")),
        found("file_fault_ns", "mapping cached pages of a file", lambda s: s("file_fault")),
        found(
            "file_read_ns",
            "CPU time of mapping pages that are read, without mapping them",
            lambda s: (s("file_read_cpu") - s("file_fault")).at_least(1),
        ),
        found(
            "swap_fault_ns",
            "paging in, without what reading zram's block device takes",
            lambda s: average(_beyond(s, "pagein", algorithm, "read")).at_least(1),
        ),
        found("touch_ns", "touching pages again", lambda s: s("touch")),
        found("fork_us", "fork, a cgroup of its own, and exec of a static program", lambda s: s("fork"), _NS_PER_US),
        *_reclaim(found, algorithm),
        found("aging_ns", "lru_gen aging a group whose pages are all accessed", lambda s: s("aging")),
        found("zram_overhead_permille", "mm_stat, pages that compress 2.5 times", lambda s: s("zram_overhead")),
        found(
            "exit_ns",
            "SIGKILL to the end, 48 MiB less nothing",
            lambda s: (s("kill.large") - s("kill.small")).scaled(1 / pages),
        ),
        found("exit_base_us", "a small process leaving by itself", lambda s: s("leave"), _NS_PER_US),
        found("reap_ns", f"{reaper.split('.')[1]} at real-time priority, the victim held back", lambda s: s(reaper)),
        found("reap_start_us", "a thread that is woken through a pipe", lambda s: s("wake"), _NS_PER_US),
        found(
            "swap_free_ns",
            "process_mrelease of swapped pages",
            lambda s: (
                s("reap.swapped")
                if "reap.swapped" in found.samples.values
                else (s("kill.swapped") - s("kill.small")).scaled(1 / swapped_pages)
            ),
        ),
        found(
            "death_us",
            "SIGKILL to the end of a small process, less its leaving by itself",
            lambda s: (s("kill.small") - s("leave")).at_least(_NS_PER_US),
            _NS_PER_US,
        ),
        found(
            "signal_us",
            "a round trip to the helper with all CPUs busy, and half of one",
            lambda s: s("round_trip").scaled(1.5),
            _NS_PER_US,
        ),
        found(
            "event_us",
            "a wake-up on the device and half a round trip, all CPUs busy",
            lambda s: s("wake") + s("round_trip").scaled(0.5),
            _NS_PER_US,
        ),
        found(
            "sample_us",
            "a sample for the policy: what it keeps busy CPUs from writing, 60 in a row",
            lambda s: s("sample_cpu").at_least(1),
            _NS_PER_US,
        ),
        found("process_kib", "free memory, CPUs' lists too, beside sleeping processes", lambda s: s("process_kib")),
    ]


def _reclaim(found: _Finder, algorithm: str) -> list[Number]:
    return [
        found("reclaim_scan_ns", "lru_gen evicting from accessed pages", lambda s: s("scan")),
        _first(
            found("reclaim_file_ns", "lru_gen evicting clean file pages", lambda s: s("evict_file")),
            found("reclaim_file_ns", "MADV_PAGEOUT of clean file pages", lambda s: s("pageout_file")),
        ),
        _first(
            found("reclaim_cache_ns", "lru_gen evicting clean file pages that nobody maps", lambda s: s("evict_cache")),
            found("reclaim_cache_ns", "MADV_PAGEOUT of clean file pages", lambda s: s("pageout_file")),
        ),
        _first(
            found(
                "reclaim_anon_ns",
                "lru_gen evicting pages that compress 2.5 times, without what writing zram's block device takes",
                lambda s: (s("evict") - s(f"zram.{algorithm}.write.{RATIO_PERMILLE}")).at_least(1),
            ),
            found(
                "reclaim_anon_ns",
                "MADV_PAGEOUT, without what writing zram's block device takes",
                lambda s: average(_beyond(s, "pageout", algorithm, "write")).at_least(1),
            ),
        ),
    ]


def _first(*numbers: Number) -> Number:
    """The first that was measured, or the last."""
    return next((number for number in numbers if number.estimate is not None), numbers[-1])


def _beyond(s: Callable[[str], Estimate], swap: str, algorithm: str, block: str) -> list[Estimate]:
    return [s(f"{swap}.{ratio}") - s(f"zram.{algorithm}.{block}.{ratio}") for ratio in CLASSES]


def _system(machine: Machine, base: Calibration, memory_bytes: int | None) -> list[Number]:
    numbers = [
        _read_off(
            "kernel_used_kib",
            machine.used_kib,
            f"{machine.kernel}: MemTotal less free pages, those on the CPUs' lists too, and page cache, nothing up",
        ),
        _read_off("base_cpu_permille", machine.base_permille, f"/proc/stat of {machine.cpus} CPUs, nothing up"),
    ]
    if memory_bytes is not None:
        total_kib = memory_bytes // 1024
        fixed = total_kib - machine.mem_total_kib - total_kib * base.kernel_reserved_permille // 1000
        how = f"{machine.kernel} of {total_kib} KiB: MemTotal is {machine.mem_total_kib} kB"
        numbers.append(_read_off("kernel_fixed_kib", max(0, fixed), how))
        permille = (
            "measured: struct page takes 64 of 4096 bytes (include/linux/mm_types.h), page tables and per-CPU areas"
        )
        numbers.append(
            Number(key="kernel_reserved_permille", value=base.kernel_reserved_permille, estimate=None, source=permille)
        )
    return numbers


def _read_off(key: str, value: int, how: str) -> Number:
    return Number(key=key, value=value, estimate=Estimate(float(value), 0.0, 1), source=f"measured: {how}")


def _storage(found: _Finder) -> list[Number]:
    rate = found.samples.get("sequential_kib_per_s")
    request = found.samples.get("request")
    if rate is None or request is None:
        return []
    iops = Estimate(1e9 / request.value, 1e9 * request.half / request.value**2, request.n)
    return [
        Number(
            key="storage_read_kib_per_s",
            value=round(rate.value),
            estimate=rate,
            source=measured(rate, "direct reads of 1 MiB, one after the other"),
        ),
        Number(
            key="storage_iops",
            value=max(1, round(iops.value)),
            estimate=iops,
            source=measured(iops, "direct reads of 4 KiB, one after the other"),
        ),
        found("storage_request_us", "a direct read of 4 KiB, alone", lambda s: s("request"), _NS_PER_US),
    ]


# ---- zram


def _zram(samples: Samples, machine: Machine, base: Calibration) -> tuple[dict[str, ZramCost], str]:
    costs: dict[str, ZramCost] = {}
    texts: list[str] = []
    for algorithm, known in base.zram.items():
        cost = _algorithm(samples, machine, algorithm)
        if cost is None:
            costs[algorithm] = known
            texts.append(f"{algorithm} as {base.name}")
            continue
        costs[algorithm] = cost
        both = [samples.get(f"zram.{algorithm}.{way}.{RATIO_PERMILLE}") for way in ("write", "read")]
        texts += [
            f"{algorithm} {way} {e.value - e.half:.0f} to {e.value + e.half:.0f} at 95 % for ratio 2.5, n {e.n}"
            for way, e in zip(("write", "read"), both, strict=True)
            if e is not None
        ]
    second = any(_second_device(samples, algorithm) for algorithm in costs)
    how = "a second zram device, written and read directly" if second else "paging out and in"
    return costs, f"measured: {how}; {', '.join(texts)}"


def _second_device(samples: Samples, algorithm: str) -> bool:
    return samples.get(f"zram.{algorithm}.write.{RATIO_PERMILLE}") is not None


def _algorithm(samples: Samples, machine: Machine, algorithm: str) -> ZramCost | None:
    """From a second zram device where one can be made; else from paging with the algorithm that swap uses, all of which
    then counts for the algorithm."""
    for write, read in ((f"zram.{algorithm}.write", f"zram.{algorithm}.read"), ("pageout", "pagein")):
        if write == "pageout" and algorithm != machine.algorithm:
            continue
        classes = []
        for ratio in CLASSES:
            out, back = samples.get(f"{write}.{ratio}"), samples.get(f"{read}.{ratio}")
            if out is not None and back is not None:
                classes.append(
                    ZramClass(
                        ratio_permille=ratio, write_ns=max(1, round(out.value)), read_ns=max(1, round(back.value))
                    )
                )
        usual = next((one for one in classes if one.ratio_permille == RATIO_PERMILLE), None)
        if usual is not None:
            return ZramCost(write_ns=usual.write_ns, read_ns=usual.read_ns, classes=tuple(classes))
    return None
