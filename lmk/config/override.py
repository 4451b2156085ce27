"""``--set NAME=VALUE``: a device config with some of its settings replaced, for one run.

Names are those of the config file: a property (``ro.lmk.thrashing_limit``; lmkd's own also without ``ro.lmk.``) or a
sysctl (``vm.swappiness``), ``zram.size`` and ``kernel.base``. The file stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lmk.config.device import KERNEL_BASES, VM_SYSCTLS, WITHOUT_MGLRU, DeviceConfig
from lmk.config.effective import INTEGER_RANGES, clamp, effective_knobs, parse_value
from lmk.config.load import suggest
from lmk.config.properties import VALUE_MAX
from lmk.config.quantity import InvalidValue, parse_bytes_or_percent
from lmk.errors import UserError
from lmk.policy.lmkd.params import PROPERTIES, Property

_VM: Final = "vm."
KERNEL_BASE: Final = "kernel.base"
ZRAM_SIZE: Final = "zram.size"
_BY_NAME: Final[Mapping[str, Property]] = {
    **{row.name: row for row in PROPERTIES},
    **{row.full_name: row for row in PROPERTIES},
}


def parse_overrides(pairs: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as full names with their values, in order. UserError for anything else."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or not value:
            raise UserError(f"--set {pair}: not NAME=VALUE", "for example --set ro.lmk.thrashing_limit=30")
        row = _BY_NAME.get(name)
        found[row.full_name if row is not None else name] = value
    return found


def override(config: DeviceConfig, settings: Mapping[str, str]) -> DeviceConfig:
    """The config with these settings in place of its own; the same config for none.

    UserError for a name or value that would have no effect: one that nobody reads, or that something else overrides.
    """
    if not settings:
        return config
    config = _with_zram(_with_base(config, settings), settings)
    vm = {name.removeprefix(_VM): text for name, text in settings.items() if name.startswith(_VM)}
    own = {KERNEL_BASE, ZRAM_SIZE}
    properties = {name: text for name, text in settings.items() if not name.startswith(_VM) and name not in own}
    for name, text in properties.items():
        check_property(name, text)
    changed = config.with_properties(
        dict(config.own_properties) | properties,
        vm=dict(config.vm) | {name: _vm_value(name, text) for name, text in vm.items()},
    )
    for name in properties:
        _check_effective(name, changed)
    return changed


def in_mode(config: DeviceConfig, properties: Mapping[str, str]) -> DeviceConfig:
    """The config with these properties, on memory cgroup v1; the same config for none. For lmkd's old strategies."""
    if not properties:
        return config
    own = dict(config.own_properties) | dict(properties)
    return config.with_properties(own, kernel=attrs.evolve(config.kernel, memcg="v1"))


def _with_base(config: DeviceConfig, settings: Mapping[str, str]) -> DeviceConfig:
    base = settings.get(KERNEL_BASE)
    if base is None:
        return config
    if base not in KERNEL_BASES:
        raise UserError(f"--set {KERNEL_BASE}={base}: no such base", f"one of {', '.join(KERNEL_BASES)}")
    mglru = config.kernel.mglru and base not in WITHOUT_MGLRU
    return attrs.evolve(config, kernel=attrs.evolve(config.kernel, base=base, mglru=mglru))


def _with_zram(config: DeviceConfig, settings: Mapping[str, str]) -> DeviceConfig:
    text = settings.get(ZRAM_SIZE)
    if text is None:
        return config
    if config.zram is None:
        raise UserError(f"--set {ZRAM_SIZE}={text}: {config.name} has no zram", "choose another config")
    try:
        size = parse_bytes_or_percent(text, config.memory_bytes)
    except InvalidValue as invalid:
        raise UserError(f"--set {ZRAM_SIZE}={text}: {invalid.cause}", "for example 512MiB or 50%") from None
    if size <= 0:
        raise UserError(f"--set {ZRAM_SIZE}={text}: no swap at all", "a size above zero, for example 512MiB")
    return attrs.evolve(config, zram=attrs.evolve(config.zram, size_bytes=size))


def _vm_value(name: str, text: str) -> int:
    if name not in VM_SYSCTLS:
        raise UserError(f"--set {_VM}{name}: no such sysctl", suggest(name, VM_SYSCTLS) or "lmk config show lists them")
    lowest, highest = VM_SYSCTLS[name]
    if not text.lstrip("-").isdecimal() or not lowest <= int(text) <= highest:
        raise UserError(f"--set {_VM}{name}={text}: expected a whole number from {lowest} to {highest}")
    return int(text)


def check_property(name: str, text: str) -> None:
    """UserError for a property that lmkd would not read, or a value that it would not take as written."""
    row = _BY_NAME.get(name)
    if row is None:
        if name.startswith("ro.lmk.") or "." not in name:
            near = suggest(name, [row.full_name for row in PROPERTIES])
            raise UserError(f"--set {name}: no such setting", near or "a property, vm.NAME for a sysctl, or zram.size")
        if len(text.encode()) > VALUE_MAX and not name.startswith("ro."):
            raise UserError(f"--set {name}: the value is longer than {VALUE_MAX} bytes, which init refuses")
        return
    value = parse_value(row, text)
    if value is None:
        wanted = "true or false" if row.kind == "bool" else "a whole number of 32 bits"
        if row.kind != "bool" and INTEGER_RANGES[row.kind][1] >= 2**32:
            wanted = "a whole number of 64 bits"
        raise UserError(f"--set {name}={text}: lmkd would fall back to its default", f"expected {wanted}")
    if row.kind != "bool" and clamp(row, value) != value:
        raise UserError(f"--set {name}={text}: lmkd would clamp it to {clamp(row, value)}", "give that, or another")


def _check_effective(name: str, config: DeviceConfig) -> None:
    row = _BY_NAME.get(name)
    if row is None or row.full_name != name:
        return
    knob = effective_knobs(config.properties, config.android).find(row.name)
    if knob is None:
        raise UserError(f"--set {name}: lmkd of Android {config.android} does not read it", "choose another config")
    if knob.text != config.own_properties[name]:
        raise UserError(
            f"--set {name}: {config.name} sets persist.device_config.lmkd_native.{row.name}, which wins over it",
            f"--set persist.device_config.lmkd_native.{row.name}=… instead",
        )
