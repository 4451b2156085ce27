"""Every property lmkd reads: ``ro.lmk.*`` and a few others, with lmkd's own parsing (reference: section 1).

``PROPERTIES`` is the table; ``load_params`` turns the values of a device into ``LmkdParams``, silently
clamping and defaulting as lmkd's update_props does. Percentages are integers, times milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from lmk.policy.lmkd.versions import Behaviour, tag_index
from lmk.units import c_int32

RO_PREFIX = "ro.lmk."
#: Overrides ``ro.lmk.`` from Android 12L on; names with a trigger in lmkd.rc apply without a restart.
PERSIST_PREFIX = "persist.device_config.lmkd_native."

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)
_TRUE = frozenset({"1", "y", "yes", "on", "true"})
_FALSE = frozenset({"0", "n", "no", "off", "false"})


def parse_property_int(text: str | None, lowest: int, highest: int) -> int | None:
    """libcutils' property_get_imax: base by prefix, trailing junk ignored; None: use the default."""
    match = _INTEGER.match(text) if text else None
    if match is None:
        return None
    sign, digits = match.groups()
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    number = int(digits, base) * (-1 if sign == "-" else 1)
    return number if lowest <= number <= highest else None


def parse_property_bool(text: str | None) -> bool | None:
    """libcutils' property_get_bool; None: use the default."""
    return True if text in _TRUE else False if text in _FALSE else None


@attrs.frozen(kw_only=True)
class Property:
    """One row of the table. ``default`` may change with the release (``default_of``) or with another
    property (``derived``, in words)."""

    name: str
    kind: str  #: "int32", "int64" or "bool"
    meaning: str
    unit: str = ""  #: "%", "ms", "kB", "adj" or ""
    default: int | bool | None = None
    low_ram_default: int | bool | None = None  #: None: the same
    derived: str = ""
    minimum: int | None = None  #: values below are raised to it
    maximum: int | None = None  #: values above are lowered to it
    since: str = "11.0"
    #: Row of the versions table that decides whether it exists, and the values with which it does; ``since`` is
    #: then only what people read.
    row: str = ""
    row_is: tuple[object, ...] = (True,)
    #: From this tag on a ``persist.device_config`` value is applied without a restart; None: never.
    watched_since: str | None = None
    #: Strategies in which the value matters: "psi", "minfree", "vmpressure".
    strategies: tuple[str, ...] = ("psi", "minfree", "vmpressure")
    persist: bool = True  #: may be overridden by ``persist.device_config.lmkd_native.<name>``
    prefix: str = RO_PREFIX

    @property
    def full_name(self) -> str:
        """The Android property: ``ro.lmk.<name>`` for most."""
        return self.prefix + self.name

    def exists_in(self, behaviour: Behaviour) -> bool:
        """Does lmkd of this release read it?"""
        if self.row:
            return getattr(behaviour, self.row) in self.row_is
        return tag_index(behaviour.tag) >= tag_index(self.since)

    def default_of(self, behaviour: Behaviour, low_ram: bool) -> int | bool | None:
        """Default in one release on one kind of device; None: derived from other properties."""
        if self.name == "kill_timeout_ms":
            return behaviour.kill_timeout_default_ms
        if self.name == "log_stats":
            return behaviour.log_stats_default
        return self.default if not low_ram or self.low_ram_default is None else self.low_ram_default


_PSI = ("psi",)
_OLD = ("minfree", "vmpressure")
_VMPRESSURE = ("vmpressure",)

PROPERTIES: tuple[Property, ...] = (
    Property(
        name="low",
        kind="int32",
        unit="adj",
        default=1001,
        strategies=_VMPRESSURE,
        meaning="lowest oom_score_adj to kill at pressure level low; above 1000 disables the level",
    ),
    Property(
        name="medium",
        kind="int32",
        unit="adj",
        default=800,
        strategies=_VMPRESSURE,
        meaning="lowest oom_score_adj to kill at pressure level medium",
    ),
    Property(
        name="critical",
        kind="int32",
        unit="adj",
        default=0,
        strategies=_VMPRESSURE,
        meaning="lowest oom_score_adj to kill at pressure level critical",
    ),
    Property(name="debug", kind="bool", default=False, watched_since="12L", meaning="more log lines, reap times too"),
    Property(
        name="critical_upgrade",
        kind="bool",
        default=False,
        strategies=_VMPRESSURE,
        meaning="allow raising the pressure level",
    ),
    Property(
        name="upgrade_pressure",
        kind="int32",
        unit="%",
        default=100,
        strategies=_VMPRESSURE,
        meaning="raise the level when memory is below this share of memory and swap in use",
    ),
    Property(
        name="downgrade_pressure",
        kind="int32",
        unit="%",
        default=100,
        strategies=_VMPRESSURE,
        meaning="ignore the event above this share while swap is not low",
    ),
    Property(
        name="kill_heaviest_task",
        kind="bool",
        default=False,
        watched_since="12L",
        meaning="kill the biggest process of a score instead of the oldest",
    ),
    Property(
        name="kill_timeout_ms",
        kind="int32",
        unit="ms",
        default=100,
        watched_since="12L",
        meaning="how long one kill blocks the next; 0: for ever, negative: never",
    ),
    Property(
        name="pressure_after_kill_min_score",
        kind="int32",
        unit="adj",
        default=0,
        since="14Q2",
        row="after_kill_min_score",
        strategies=_PSI,
        meaning="lowest oom_score_adj to kill when the min watermark is breached even after a kill",
    ),
    Property(
        name="use_minfree_levels",
        kind="bool",
        default=False,
        meaning="old strategy: minfree levels instead of vmpressure levels",
    ),
    Property(
        name="swap_free_low_percentage",
        kind="int32",
        unit="%",
        default=10,
        minimum=0,
        maximum=100,
        watched_since="12L",
        strategies=("psi", "vmpressure"),
        meaning="swap is low below this share of its size; 0 switches the test off",
    ),
    Property(
        name="psi_partial_stall_ms",
        kind="int32",
        unit="ms",
        default=70,
        low_ram_default=200,
        watched_since="12L",
        strategies=_PSI,
        meaning="PSI some trigger per window; 0: not registered",
    ),
    Property(
        name="psi_complete_stall_ms",
        kind="int32",
        unit="ms",
        default=700,
        watched_since="12L",
        strategies=_PSI,
        meaning="PSI full trigger per window; 0: not registered",
    ),
    Property(
        name="psi_window_size_ms",
        kind="int32",
        unit="ms",
        default=1000,
        since="N1",
        row="psi_window_property",
        watched_since="N1",
        meaning="PSI window and length of one polling run",
    ),
    Property(
        name="thrashing_limit",
        kind="int32",
        unit="%",
        default=100,
        low_ram_default=30,
        minimum=0,
        watched_since="12L",
        strategies=_PSI,
        meaning="refaults as a share of the file cache that count as thrashing",
    ),
    Property(
        name="thrashing_limit_decay",
        kind="int32",
        unit="%",
        default=10,
        low_ram_default=50,
        minimum=0,
        maximum=100,
        watched_since="12L",
        strategies=_PSI,
        meaning="how much a thrashing kill cuts the running limit",
    ),
    Property(
        name="thrashing_limit_critical",
        kind="int32",
        unit="%",
        derived="a multiple of thrashing_limit: 2 (11Q3 to 14.0), 3 (14Q2 to 16); 300 after 16",
        minimum=0,
        since="11Q3",
        row="critical_thrashing_factor",
        row_is=(2, 3, -1),
        watched_since="12L",
        strategies=_PSI,
        meaning="thrashing from here on lets perceptible apps die",
    ),
    Property(
        name="swap_util_max",
        kind="int32",
        unit="%",
        default=100,
        minimum=0,
        maximum=100,
        since="12",
        row="swap_util_rule",
        watched_since="12L",
        strategies=_PSI,
        meaning="kill when more than this share of swappable memory is swapped out; 100: off",
    ),
    Property(
        name="filecache_min_kb",
        kind="int64",
        unit="kB",
        default=0,
        since="12",
        row="filecache_rule",
        watched_since="12L",
        strategies=_PSI,
        meaning="file cache below this after thrashing kills again; 0: off",
    ),
    Property(
        name="stall_limit_critical",
        kind="int64",
        unit="%",
        default=100,
        since="13.0",
        row="critical_stall",
        strategies=_PSI,
        meaning="memory full stall avg10 above this lets any process die",
    ),
    Property(
        name="delay_monitors_until_boot",
        kind="bool",
        default=False,
        since="14Q2",
        row="delay_monitors",
        meaning="start the pressure monitors only after boot",
    ),
    Property(
        name="direct_reclaim_threshold_ms",
        kind="int64",
        unit="ms",
        default=0,
        since="15.0",
        row="direct_reclaim_stuck_rule",
        watched_since="15.0",
        strategies=_PSI,
        meaning="direct reclaim longer than this kills; 0: off",
    ),
    Property(
        name="swap_compression_ratio",
        kind="int64",
        default=1,
        since="15.0",
        row="free_swap",
        row_is=("ratio", "ratio_div"),
        watched_since="15.0",
        meaning="free swap is at most easily available memory times this; 0: ignore",
    ),
    Property(
        name="swap_compression_ratio_div",
        kind="int64",
        default=1,
        since="N2",
        row="free_swap",
        row_is=("ratio_div",),
        meaning="divides swap_compression_ratio",
    ),
    Property(
        name="relaxed_available_memory",
        kind="bool",
        default=False,
        since="N2",
        row="relaxed_memory",
        meaning="count active file pages and compressible memory as easily available",
    ),
    Property(
        name="lowmem_min_oom_score",
        kind="int32",
        unit="adj",
        default=701,
        minimum=201,
        since="15.0",
        row="lowmem_min_score",
        watched_since="15.0",
        strategies=_PSI,
        meaning="lowest oom_score_adj to kill when only a watermark is breached",
    ),
    Property(name="use_psi", kind="bool", default=True, meaning="PSI triggers instead of vmpressure events"),
    Property(
        name="use_new_strategy",
        kind="bool",
        derived="true on low-RAM devices or without use_minfree_levels",
        meaning="the PSI strategy instead of minfree or vmpressure levels",
    ),
    Property(
        name="log_stats",
        kind="bool",
        default=True,
        persist=False,
        meaning="tell subscribers the statistics of each kill",
    ),
    Property(name="low_ram", kind="bool", default=False, persist=False, prefix="ro.config.", meaning="low-RAM device"),
    Property(
        name="per_app_memcg",
        kind="bool",
        derived="the value of ro.config.low_ram",
        persist=False,
        prefix="ro.config.",
        meaning="every app has its own memory cgroup",
    ),
    Property(
        name="boot_completed",
        kind="bool",
        default=False,
        persist=False,
        prefix="sys.",
        meaning="the system has booted",
    ),
)
PROPERTY_BY_NAME: Mapping[str, Property] = {row.name: row for row in PROPERTIES}
#: Every Android property the daemon asks for.
PROPERTY_NAMES: tuple[str, ...] = tuple(
    name
    for row in PROPERTIES
    for name in ((row.full_name, PERSIST_PREFIX + row.name) if row.persist else (row.full_name,))
)


@attrs.frozen(kw_only=True)
class LmkdParams:
    """What update_props computes; names are those of the properties."""

    low: int = 1001
    medium: int = 800
    critical: int = 0
    debug: bool = False
    critical_upgrade: bool = False
    upgrade_pressure: int = 100
    downgrade_pressure: int = 100
    kill_heaviest_task: bool = False
    kill_timeout_ms: int = 100
    pressure_after_kill_min_score: int = 0
    use_minfree_levels: bool = False
    swap_free_low_percentage: int = 10
    psi_partial_stall_ms: int = 70
    psi_complete_stall_ms: int = 700
    psi_window_size_ms: int = 1000
    thrashing_limit: int = 100
    thrashing_limit_decay: int = 10
    thrashing_limit_critical: int = 300
    swap_util_max: int = 100
    filecache_min_kb: int = 0
    stall_limit_critical: int = 100
    delay_monitors_until_boot: bool = False
    direct_reclaim_threshold_ms: int = 0
    swap_compression_ratio: int = 1
    swap_compression_ratio_div: int = 1
    relaxed_available_memory: bool = False
    lowmem_min_oom_score: int = 701
    use_psi: bool = True
    use_new_strategy: bool = True
    log_stats: bool = True
    low_ram: bool = False
    per_app_memcg: bool = False
    boot_completed: bool = False

    @property
    def strategy(self) -> str:
        """Which strategy runs where the kernel has PSI triggers: "psi", "minfree" or "vmpressure"."""
        if self.use_psi and self.use_new_strategy:
            return "psi"
        return self.old_strategy

    @property
    def old_strategy(self) -> str:
        """Which old strategy runs where it does: "minfree" or "vmpressure"."""
        return "minfree" if self.use_minfree_levels else "vmpressure"


def load_params(properties: Mapping[str, str], behaviour: Behaviour) -> LmkdParams:
    """Parse, default and clamp. ``properties``: the values that are set, by full name. Never raises."""
    low_ram = bool(_parsed(PROPERTY_BY_NAME["low_ram"], properties, behaviour))
    found: dict[str, int | bool] = {}
    for row in PROPERTIES:
        if not row.exists_in(behaviour):
            continue
        number = _parsed(row, properties, behaviour)
        if number is None:
            number = row.default_of(behaviour, low_ram)
        if number is None:
            number = _DERIVED[row.name](found, low_ram, behaviour)
        if row.minimum is not None:
            number = max(number, row.minimum)
        if row.maximum is not None:
            number = min(number, row.maximum)
        # Read as 64 bits and stored in an int.
        found[row.name] = c_int32(number) if row.name in _STORED_AS_INT else number
    return LmkdParams(**found)  # type: ignore[arg-type]


_STORED_AS_INT = frozenset({"direct_reclaim_threshold_ms", "swap_compression_ratio", "swap_compression_ratio_div"})


def _parsed(row: Property, properties: Mapping[str, str], behaviour: Behaviour) -> int | bool | None:
    """The value as set, in the type's range; the override first. None: neither is usable."""
    names = [row.full_name]
    if row.persist and behaviour.persist_overrides:
        names.insert(0, PERSIST_PREFIX + row.name)
    for name in names:
        text = properties.get(name)
        if row.kind == "bool":
            number: int | bool | None = parse_property_bool(text)
        elif row.kind == "int32":
            number = parse_property_int(text, INT32_MIN, INT32_MAX)
        else:
            number = parse_property_int(text, INT64_MIN, INT64_MAX)
        if number is not None:
            return number
    return None


def _critical_default(found: Mapping[str, int | bool], _low_ram: bool, behaviour: Behaviour) -> int:
    factor = behaviour.critical_thrashing_factor
    return 300 if factor < 0 else c_int32(found["thrashing_limit"] * factor)


_DERIVED: Mapping[str, Callable[[Mapping[str, int | bool], bool, Behaviour], int | bool]] = {
    "thrashing_limit_critical": _critical_default,
    "use_new_strategy": lambda found, low_ram, _: low_ram or not found["use_minfree_levels"],
    "per_app_memcg": lambda _found, low_ram, _: low_ram,
}
