"""The settings a search may move: lmkd's properties and vm sysctls, each with the values it may take.

Ranges lie inside what lmkd and the kernel accept (lmk.policy.lmkd.params, lmk.config.device.VM_SYSCTLS) and are
narrower where the rest makes no sense on any device; every one can be overridden.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

import attrs

from lmk.config.change import VM_PREFIX, check_changed, value_of, with_settings
from lmk.config.device import VM_SYSCTLS, DeviceConfig
from lmk.config.effective import dead_because, effective_knobs
from lmk.config.load import suggest
from lmk.errors import UserError
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTY_BY_NAME, RO_PREFIX
from lmk.policy.lmkd.versions import behaviour

Setting = int | bool
_RANGE: Final = re.compile(r"(-?[0-9]{1,12})\.\.(-?[0-9]{1,12})(?::([0-9]{1,12}))?", re.ASCII)
_TRUTH: Final = {"true": True, "false": False}
#: More grid points than this nobody looks at.
_CHOICES_MAX: Final = 200


@attrs.frozen(kw_only=True)
class Axis:
    """One setting and its values: ``choices``, or else the whole numbers from ``low`` to ``high`` by ``step``."""

    #: Short name of a property, or ``vm.`` and a sysctl.
    name: str
    low: int = 0
    high: int = 0
    step: int = 1
    #: Small values matter as much as large ones.
    log: bool = False
    choices: tuple[Setting, ...] = ()

    def grid(self, count: int) -> tuple[Setting, ...]:
        """About ``count`` values from one end to the other; a list is given whole."""
        if self.choices:
            return self.choices
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (float(self.low), float(self.high))
        found = []
        for index in range(max(2, count)):
            at = low + (high - low) * index / (max(2, count) - 1)
            found.append(self.low + round(((math.exp(at) if self.log else at) - self.low) / self.step) * self.step)
        return tuple(dict.fromkeys(min(value, self.high) for value in found))

    def words(self) -> str:
        """As ``--space`` takes it."""
        if self.choices:
            return f"{self.name}={','.join(_text(choice) for choice in self.choices)}"
        return f"{self.name}={self.low}..{self.high}" + (f":{self.step}" if self.step != 1 else "")


@attrs.frozen(kw_only=True)
class Space:
    """What is searched, and what was asked for and cannot matter: name -> why."""

    axes: tuple[Axis, ...]
    dead: dict[str, str]

    def stock(self, config: DeviceConfig) -> dict[str, Setting]:
        """Where the config stands before anything is moved."""
        found = {axis.name: value_of(config, axis.name) for axis in self.axes}
        return {name: value for name, value in found.items() if value is not None}


#: Ranges of a search that names none. Those of the old strategies are missing: the simulator has no vmpressure.
DEFAULT_AXES: Final = (
    Axis(name="swap_free_low_percentage", low=0, high=30),
    Axis(name="psi_partial_stall_ms", low=20, high=400, step=10),
    Axis(name="psi_complete_stall_ms", low=50, high=1000, step=10),
    Axis(name="thrashing_limit", low=5, high=200, log=True),
    Axis(name="thrashing_limit_decay", low=0, high=90, step=5),
    Axis(name="swap_util_max", low=50, high=100),
    Axis(name="kill_heaviest_task", choices=(False, True)),
    Axis(name="kill_timeout_ms", low=15, high=1000, log=True),
    Axis(name="vm.swappiness", low=0, high=200, step=5),
    Axis(name="vm.watermark_scale_factor", low=10, high=500, log=True),
)
#: Beside them only where asked for by name.
_MORE_AXES: Final = (
    Axis(name="thrashing_limit_critical", low=30, high=600, log=True),
    Axis(name="filecache_min_kb", low=0, high=400_000, step=4_000),
    Axis(name="stall_limit_critical", low=20, high=100),
    Axis(name="direct_reclaim_threshold_ms", low=0, high=500, step=10),
    Axis(name="swap_compression_ratio", low=0, high=6),
    Axis(name="lowmem_min_oom_score", low=201, high=1001, step=50),
    Axis(name="pressure_after_kill_min_score", low=0, high=1000, step=50),
    Axis(name="psi_window_size_ms", low=500, high=2000, step=100),
    Axis(name="vm.min_free_kbytes", low=2_000, high=40_000, step=1_000),
    Axis(name="vm.page-cluster", low=0, high=3),
)
AXES: Final = {axis.name: axis for axis in (*DEFAULT_AXES, *_MORE_AXES)}


def make_space(asked: Iterable[str], config: DeviceConfig) -> Space:
    """The axes that ``--space`` texts name (all of DEFAULT_AXES without any). Raises UserError."""
    texts = list(asked)
    axes = [_parse(text) for text in texts] if texts else list(DEFAULT_AXES)
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--space {name}: is given twice", "give each setting once")
    dead = {name: why for name in names if (why := dead_axis(config, name))}
    alive = tuple(axis for axis in axes if axis.name not in dead)
    if not alive:
        why = "; ".join(f"{name}: {why}" for name, why in dead.items())
        raise UserError(f"--space: nothing that could matter is left ({why})", "name another setting")
    for axis in alive:
        for end in axis.choices or (axis.low, axis.high):
            check_changed(with_settings(config, {axis.name: end}), f"--space {axis.words()}")
    return Space(axes=alive, dead=dead if texts else {})


def dead_axis(config: DeviceConfig, name: str) -> str:
    """Why a setting cannot matter on this device whatever its value; empty if it can."""
    if name.startswith(VM_PREFIX):
        return "the device has no swap" if name == "vm.swappiness" and not config.swap_bytes else ""
    row = PROPERTY_BY_NAME[name]
    if not row.exists_in(behaviour(config.android)):
        return f"lmkd reads it from Android {row.since} on, this is {config.android}"
    if name in ("swap_free_low_percentage", "swap_util_max") and not config.swap_bytes:
        return "the device has no swap"
    return dead_because(row, effective_knobs(config.properties, config.android).params)


def check_strategy(config: DeviceConfig) -> None:
    """Raises UserError for a config whose lmkd the simulator never wakes."""
    strategy = effective_knobs(config.properties, config.android).params.strategy
    if strategy != "psi":
        raise UserError(
            f"{config.name}: runs lmkd's {strategy} strategy, and the simulator has no vmpressure events",
            "take a config with ro.lmk.use_psi and ro.lmk.use_new_strategy true",
        )


def _parse(text: str) -> Axis:
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix(PERSIST_PREFIX).removeprefix(RO_PREFIX)
    _check_name(text, name)
    if not equals:
        if name not in AXES:
            raise UserError(f"--space {text}: has no range of its own", f"write {name}=LOW..HIGH or {name}=1,2,3")
        return AXES[name]
    match = _RANGE.fullmatch(values.strip())
    if match is None:
        return Axis(name=name, choices=_choices(text, name, values))
    low, high, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if low >= high or not 0 < step <= high - low:
        raise UserError(f"--space {text}: an empty range", "write LOW..HIGH with LOW below HIGH, or LOW..HIGH:STEP")
    if _kind(name) == "bool":
        raise UserError(f"--space {text}: is true or false", f"write {name}=true,false")
    axis = AXES.get(name)
    return Axis(name=name, low=low, high=high, step=step, log=bool(axis and axis.log and low > 0 and step == 1))


def _check_name(text: str, name: str) -> None:
    known = [f"{VM_PREFIX}{sysctl}" for sysctl in VM_SYSCTLS] + [
        row.name for row in PROPERTY_BY_NAME.values() if row.prefix == RO_PREFIX
    ]
    if name not in known:
        raise UserError(f"--space {text}: no such setting", suggest(name, known) or "a property of lmkd, or vm.NAME")


def _choices(text: str, name: str, values: str) -> tuple[Setting, ...]:
    found: list[Setting] = []
    boolean = _kind(name) == "bool"
    for word in values.split(","):
        word = word.strip()
        if boolean and word in _TRUTH:
            found.append(_TRUTH[word])
        elif not boolean and re.fullmatch(r"-?[0-9]{1,12}", word, re.ASCII):
            found.append(int(word))
        else:
            wanted = "true or false" if boolean else "a whole number"
            raise UserError(f"--space {text}: found {word!r}, expected {wanted}", f"write {name}=LOW..HIGH or a list")
    unique = tuple(dict.fromkeys(found))
    if len(unique) > _CHOICES_MAX:
        raise UserError(f"--space {name}: {len(unique)} values", f"give at most {_CHOICES_MAX}, or a range")
    return unique


def _kind(name: str) -> str:
    return "int32" if name.startswith(VM_PREFIX) else PROPERTY_BY_NAME[name].kind


def _text(value: Setting) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
