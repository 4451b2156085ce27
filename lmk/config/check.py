"""What is wrong with a device config beyond its shape: knobs lmkd ignores, and settings that contradict.

Errors are what cannot be meant: a value lmkd cannot read or silently changes, and combinations with which lmkd
does not start or the device does not work. Warnings are what loads, runs, and does less than it seems to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from lmk.config.android import BUILD_VERSIONS
from lmk.config.effective import EffectiveKnobs, clamp, dead_because, effective_knobs, parse_value
from lmk.config.load import Document, Problems, Value, nearest
from lmk.config.quantity import format_bytes
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTIES, RO_PREFIX, Property
from lmk.units import GIB, KIB

if TYPE_CHECKING:
    from lmk.config.device import DeviceConfig

#: Knobs of vendors' own lmkd builds, seen in public device trees; AOSP's daemon does not know them.
VENDOR_KNOBS: Final[dict[str, str]] = dict.fromkeys(
    (
        *("direct_reclaim_pressure", "enable_preferred_apps", "enable_userspace_lmk"),
        *("enable_watermark_check", "enhance_batch_kill", "kill_heaviest_task_dup", "kill_timeout_ms_dup"),
        *("nstrat_low_swap", "nstrat_psi_complete_ms", "nstrat_psi_partial_ms"),
        *("nstrat_psi_scrit_complete_stall_ms", "nstrat_wmark_boost_factor", "psi_scrit_complete_stall_ms"),
        *("reclaim_scan_threshold", "super_critical", "thrashing_decay", "thrashing_limit_pct_dup"),
        *("thrashing_threshold", "use_new_strategy_dup"),
    ),
    "Qualcomm",
)
#: Other places vendors keep memory-killer settings in.
VENDOR_PREFIXES: Final = {"ro.slmk.": "Samsung"}
#: Closer than this to a real name is a typing error, further away some vendor's own.
_TYPING_ERROR_CUTOFF: Final = 0.85
#: Kernels that take PSI windows of 500 ms to 10 s only (kernel/sched/psi.c); 6.12 dropped the lower bound.
_PSI_WINDOW_FROM_500_MS: Final = ("5.10", "6.1")
_BY_NAME: Final = {row.full_name: row for row in PROPERTIES}
#: All of it a number to libcutils; what follows a number is ignored.
_NUMBER: Final = re.compile(r"\s*[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\s*", re.ASCII)


@attrs.frozen
class _Check:
    """One config being checked, and where each of its keys stands."""

    config: DeviceConfig
    knobs: EffectiveKnobs
    problems: Problems
    places: dict[str, Value]

    def error(self, field: str, cause: str, hint: str = "") -> None:
        self.problems.error(self._line(field), field, cause, hint)

    def warn(self, field: str, message: str, hint: str = "") -> None:
        self.problems.warn(self._line(field), field, message, hint)

    def _line(self, field: str) -> int | None:
        place = self.places.get(field) or self.places.get(field.partition(".")[0])
        return place.line if place else None

    def field_of(self, knob: str) -> str | None:
        """Field of the property that decides a knob; None if the config does not set it."""
        for name in (PERSIST_PREFIX + knob, RO_PREFIX + knob):
            if name in self.config.own_properties:
                return f"properties.{name}"
        return None

    def value(self, knob: str) -> int:
        """A knob as it takes effect."""
        return int(getattr(self.knobs.params, knob))


def check_device(document: Document, config: DeviceConfig) -> None:
    """Add to ``document.problems`` what is wrong with ``config``, which was read from it without errors."""
    check = _Check(config, effective_knobs(config.properties, config.android), document.problems, _places(document))
    for name, text in config.own_properties.items():
        _check_property(check, name, text)
    for rule in _RULES:
        rule(check)


def _places(document: Document) -> dict[str, Value]:
    """Every key of the first two levels by dotted path."""
    found: dict[str, Value] = {}
    for key, value in document.root.entries().items():
        found[key] = value
        if value.kind == "mapping":
            found |= {entry.field: entry for entry in value.entries().values()}
    return found


# One property


def _check_property(check: _Check, name: str, text: str) -> None:
    field = f"properties.{name}"
    for prefix, vendor in VENDOR_PREFIXES.items():
        if name.startswith(prefix):
            check.warn(field, f"a property of {vendor}'s own killer, which AOSP's lmkd does not read")
            return
    row = _row_of(name)
    if row is not None:
        _check_version(check, field, name, row)
        _check_text(check, field, row, text)
    elif name.startswith((RO_PREFIX, PERSIST_PREFIX)):
        _unknown_knob(check, field, name)


def _row_of(name: str) -> Property | None:
    if name.startswith(PERSIST_PREFIX):
        return _BY_NAME.get(RO_PREFIX + name.removeprefix(PERSIST_PREFIX))
    return _BY_NAME.get(name)


def _unknown_knob(check: _Check, field: str, name: str) -> None:
    prefix = PERSIST_PREFIX if name.startswith(PERSIST_PREFIX) else RO_PREFIX
    knob = name.removeprefix(prefix)
    if knob in VENDOR_KNOBS:
        check.warn(field, f"a knob of {VENDOR_KNOBS[knob]}'s lmkd, which AOSP's does not read")
        return
    near = nearest(knob, [row.name for row in PROPERTIES if row.prefix == RO_PREFIX], _TYPING_ERROR_CUTOFF)
    if near:
        check.error(field, "unknown property of lmkd", f"did you mean {prefix}{near}?")
    else:
        check.warn(field, "not a property of AOSP's lmkd; it has no effect")


def _check_version(check: _Check, field: str, name: str, row: Property) -> None:
    behaviour = check.knobs.behaviour
    overrides = name.startswith(PERSIST_PREFIX)
    if not row.exists_in(behaviour):
        check.warn(field, f"lmkd reads it from Android {row.since} on, this is {behaviour.tag}; it has no effect")
    elif overrides and not row.persist:
        check.warn(field, f"lmkd reads only {row.full_name}; it has no effect")
    elif overrides and not behaviour.persist_overrides:
        check.warn(field, f"lmkd reads overrides from Android 12L on, this is {behaviour.tag}; it has no effect")
    elif (
        not overrides
        and row.persist
        and behaviour.persist_overrides
        and (PERSIST_PREFIX + row.name in check.config.own_properties)
    ):
        check.warn(field, f"overridden by {PERSIST_PREFIX}{row.name}")
    elif dead := dead_because(row, check.knobs.params):
        check.warn(field, f"has no effect: {dead}")


def _check_text(check: _Check, field: str, row: Property, text: str) -> None:
    number = parse_value(row, text)
    if row.kind == "bool":
        if number is None:
            lower = text.strip().lower()
            hint = f"write {lower}" if parse_value(row, lower) is not None else ""
            check.error(field, f"found {text!r}, which lmkd takes for unset: expected true or false", hint)
        return
    if number is None:
        check.error(field, f"found {text!r}, which lmkd takes for unset: expected a whole number ({row.kind})")
        return
    if not _NUMBER.fullmatch(text):
        unit = f", in {row.unit}" if row.unit else ""
        check.error(field, f"found {text!r}, expected a plain number{unit}", f"lmkd reads {number}; write that")
        return
    if text.strip().lstrip("+-") != "0" and text.strip().lstrip("+-").startswith("0") and "x" not in text.lower():
        check.warn(field, f"{text} is octal for lmkd: {number}")
    if clamp(row, int(number)) != number:
        limits = " to ".join(str(limit) for limit in (row.minimum, row.maximum) if limit is not None)
        allowed = f"{limits}" if row.maximum is not None else f"at least {limits}"
        check.error(
            field, f"found {text}, allowed is {allowed}", f"lmkd silently uses {clamp(row, int(number))}; write that"
        )


# Contradictions


def _swap_knobs_without_swap(check: _Check) -> None:
    if check.config.swap_bytes:
        return
    field = check.field_of("swap_free_low_percentage")
    if field and check.value("swap_free_low_percentage") > 0:
        check.error(field, "a limit on free swap on a device without swap", "add `zram:`, or remove it")
    field = check.field_of("swap_util_max")
    if field and check.value("swap_util_max") < 100:
        check.error(field, "a limit on used swap on a device without swap", "add `zram:`, or remove it")
    if check.config.vm.get("swappiness"):
        check.warn("vm.swappiness", "has no effect on a device without swap")


def _psi_triggers(check: _Check) -> None:
    if check.knobs.params.strategy != "psi":
        return
    window_ms = check.value("psi_window_size_ms")
    base = check.config.kernel.base
    lowest_ms = 500 if base in _PSI_WINDOW_FROM_500_MS else 1
    if not lowest_ms <= window_ms <= 10_000:
        check.error(
            check.field_of("psi_window_size_ms") or "properties",
            f"a PSI window of {window_ms} ms, and Linux {base} takes {lowest_ms} to 10000",
        )
        return
    stalls = {name: check.value(name) for name in ("psi_partial_stall_ms", "psi_complete_stall_ms")}
    for name, stall_ms in stalls.items():
        if not 0 <= stall_ms <= window_ms:
            cause = f"a stall of {stall_ms} ms does not fit into the PSI window of {window_ms} ms"
            hint = f"the kernel refuses the trigger and lmkd cannot use PSI; write 0 (off) to {window_ms}"
            check.error(check.field_of(name) or "properties", cause, hint)
    if not any(stalls.values()):
        check.warn("properties", "both PSI stalls are 0: lmkd registers no trigger and never wakes up")


def _old_strategy_needs_memcg_v1(check: _Check) -> None:
    params = check.knobs.params
    if params.strategy == "psi" or check.config.kernel.memcg == "v1":
        return
    chosen_by = next(
        (field for name in ("use_psi", "use_new_strategy", "use_minfree_levels") if (field := check.field_of(name))),
        "properties",
    )
    check.error(
        chosen_by,
        f"lmkd runs the {params.strategy} strategy here, which needs memory cgroups v1, and kernel.memcg is v2",
        "write `kernel: {memcg: v1}`, or ro.lmk.use_new_strategy: true",
    )


def _thrashing_order(check: _Check) -> None:
    field = check.field_of("thrashing_limit_critical")
    limit, critical = check.value("thrashing_limit"), check.value("thrashing_limit_critical")
    if field and check.knobs.find("thrashing_limit_critical") and critical < limit:
        check.warn(field, f"below thrashing_limit ({limit}): every thrashing kill may take a perceptible app")


def _sizes(check: _Check) -> None:
    config = check.config
    field = check.field_of("filecache_min_kb")
    if field and check.value("filecache_min_kb") * KIB >= config.memory_bytes:
        check.error(field, f"found {check.value('filecache_min_kb')} kB, which is all of the memory or more")
    reserve_bytes = config.vm.get("min_free_kbytes", 0) * KIB
    if reserve_bytes * 2 > config.memory_bytes:
        check.error("vm.min_free_kbytes", f"keeps {format_bytes(reserve_bytes)} free, more than half of the memory")
    elif reserve_bytes * 20 > config.memory_bytes:
        check.warn("vm.min_free_kbytes", f"keeps {format_bytes(reserve_bytes)} free, over 5 % of the memory")
    if config.swap_bytes > config.memory_bytes:
        check.warn("zram.size", "more swap than memory")
    if config.low_ram and config.memory_bytes > 3 * GIB:
        check.warn("properties.ro.config.low_ram", f"a low-RAM device with {format_bytes(config.memory_bytes)}")


def _base_load(check: _Check) -> None:
    config = check.config
    fixed_bytes = config.unreclaimable_bytes + sum(process.anon_bytes for process in config.system)
    if fixed_bytes >= config.memory_bytes:
        memory = format_bytes(config.memory_bytes)
        check.error(
            "system",
            f"the base load of {format_bytes(fixed_bytes)} does not leave any of {memory} of memory",
            "lower anon or unreclaimable, or raise memory",
        )


def _kernel(check: _Check) -> None:
    config = check.config
    if config.kernel.base == "5.10" and config.kernel.mglru:
        check.error("kernel.mglru", "Linux 5.10 has no multi-generational LRU", "write false, or leave it out")
    scale = config.vm.get("watermark_scale_factor", 10)
    if config.kernel.base == "5.10" and scale > 1000:
        check.error("vm.watermark_scale_factor", f"found {scale}, Linux 5.10 takes at most 1000")


def _build_version(check: _Check) -> None:
    release, sdk = BUILD_VERSIONS[check.config.android]
    for name, expected in (("ro.build.version.release", release), ("ro.build.version.sdk", str(sdk))):
        written = check.config.own_properties.get(name)
        if written is not None and written != expected:
            tag = check.config.android
            check.warn(f"properties.{name}", f"found {written}, and `android:` stands for {tag} ({expected})")


_RULES: Final[tuple[Callable[[_Check], None], ...]] = (
    _swap_knobs_without_swap,
    _psi_triggers,
    _old_strategy_needs_memcg_v1,
    _thrashing_order,
    _sizes,
    _base_load,
    _kernel,
    _build_version,
)
