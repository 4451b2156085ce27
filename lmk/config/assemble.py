"""A device config out of imported settings: what lmkd and the kernel make of them, with a note on the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from lmk.config.device import (
    VM_SYSCTLS,
    WITHOUT_MGLRU,
    ZRAM_ALGORITHMS,
    DeviceConfig,
    KernelChoice,
    Source,
    Zram,
)
from lmk.config.effective import clamp, effective_knobs, parse_value
from lmk.config.importing import Imported, Setting
from lmk.config.properties import VALUE_MAX, effective_properties
from lmk.config.quantity import parse_bytes_or_percent
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTIES, RO_PREFIX, Property

_ROWS: Final[Mapping[str, Property]] = {
    name: row
    for row in PROPERTIES
    for name in ((row.full_name, PERSIST_PREFIX + row.name) if row.prefix == RO_PREFIX else (row.full_name,))
}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


@attrs.frozen(kw_only=True)
class Facts:
    """What no file of a device tree says in one place."""

    name: str
    memory_bytes: int
    cpus: int
    android: str
    arch: str = "x86_64"
    kernel_base: str = "6.12"


def assemble_device(imported: Imported, facts: Facts, files: list[str]) -> tuple[DeviceConfig, list[str]]:
    """The config, and notes on everything that could not be taken over as it stood. Never raises."""
    notes = [str(note) for note in imported.notes]
    settings = imported.settings
    own = _properties(settings, notes)
    vm = _vm(settings, notes)
    zram = _zram(settings, facts.memory_bytes, notes)
    if zram is None:
        own = _without_swap_limits(own, notes)
    properties = effective_properties(own, name=facts.name, android=facts.android, arch=facts.arch)
    strategy = effective_knobs(properties, facts.android).params.strategy
    if strategy != "psi":
        notes.append(f"these properties choose the {strategy} strategy, so kernel.memcg is v1")
    config = DeviceConfig(
        name=facts.name,
        description=f"imported from {', '.join(files)}",
        sources=(Source(fields=(), text=f"seen: {', '.join(files)}"),),
        memory_bytes=facts.memory_bytes,
        cpus=facts.cpus,
        arch=facts.arch,
        android=facts.android,
        zram=zram,
        storage=None,
        kernel=KernelChoice(
            base=facts.kernel_base,
            mglru=facts.kernel_base not in WITHOUT_MGLRU,
            memcg="v2" if strategy == "psi" else "v1",
        ),
        system=(),
        unreclaimable_bytes=0,
        vm=vm,
        own_properties=own,
        properties=properties,
    )
    if imported.left_behind:
        notes.append(f"{imported.left_behind} settings have nothing to do with killing and are left out")
    return config, notes


def _properties(settings: Mapping[str, Setting], notes: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, setting in settings.items():
        if name.startswith(("vm.", "zram.")):
            continue
        row = _ROWS.get(name)
        text = _as_lmkd_reads(row, setting, notes) if row else setting.text
        if text is None:
            continue
        if len(text.encode()) > VALUE_MAX and not name.startswith("ro."):
            notes.append(f"{name} is longer than init allows and is left out")
        else:
            found[name] = text
    return found


def _as_lmkd_reads(row: Property, setting: Setting, notes: list[str]) -> str | None:
    """The text itself if lmkd takes it whole, else the value lmkd uses; None if it uses the default."""
    value = parse_value(row, setting.text)
    if value is None:
        notes.append(f"{setting.name} is {setting.text!r}, which lmkd takes for unset: left out")
        return None
    if isinstance(value, bool):
        return setting.text
    used = clamp(row, value)
    if used != value or not _INTEGER.fullmatch(setting.text) or int(setting.text) != value:
        notes.append(f"{setting.name} is {setting.text!r}, which lmkd takes for {used}")
        return str(used)
    return setting.text


def _vm(settings: Mapping[str, Setting], notes: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, setting in settings.items():
        if not name.startswith("vm."):
            continue
        lowest, highest = VM_SYSCTLS[name.removeprefix("vm.")]
        if _INTEGER.fullmatch(setting.text) and lowest <= int(setting.text) <= highest:
            found[name.removeprefix("vm.")] = int(setting.text)
        else:
            notes.append(f"{name} is {setting.text!r}, which the kernel refuses: left out")
    return found


def _zram(settings: Mapping[str, Setting], memory_bytes: int, notes: list[str]) -> Zram | None:
    size, algorithm = settings.get("zram.size"), settings.get("zram.algorithm")
    if size is None:
        if algorithm:
            notes.append(f"zram has an algorithm ({algorithm.text}) and no size: left out")
        return None
    chosen = algorithm.text if algorithm else "lz4"
    if algorithm is None:
        notes.append("no file names zram's algorithm: lz4 is assumed")
    elif chosen not in ZRAM_ALGORITHMS:
        notes.append(f"zram's algorithm {chosen} is none of {', '.join(ZRAM_ALGORITHMS)}: lz4 stands in")
        chosen = "lz4"
    size_bytes = parse_bytes_or_percent(size.text, memory_bytes) // 4096 * 4096
    return Zram(size_bytes=size_bytes, algorithm=chosen) if size_bytes else None


def _without_swap_limits(own: dict[str, str], notes: list[str]) -> dict[str, str]:
    limits = ("swap_free_low_percentage", "swap_util_max")
    kept = {name: text for name, text in own.items() if name.rpartition(".")[2] not in limits}
    notes += [f"{name} limits swap, and no file sets up any: left out" for name in own if name not in kept]
    return kept
