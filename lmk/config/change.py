"""A device config with other values of some settings: lmkd's properties and vm sysctls by short name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from lmk.config.device import DeviceConfig, Source
from lmk.config.dump import dump_device
from lmk.config.effective import effective_knobs
from lmk.config.report import check_text
from lmk.errors import UserError
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTY_BY_NAME
from lmk.policy.lmkd.versions import behaviour

VM_PREFIX = "vm."
#: What the kernel uses where a config names nothing (mm/vmscan.c, mm/page_alloc.c, mm/swap.c).
VM_DEFAULTS: Mapping[str, int] = {"swappiness": 60, "watermark_scale_factor": 10, "page-cluster": 3}

#: Short name of a property (``thrashing_limit``) or ``vm.`` and a sysctl -> value.
Settings = Mapping[str, int | bool]


def property_of(config: DeviceConfig, name: str) -> str:
    """The full name under which lmkd takes a knob of this config: its override where one is set and read."""
    override = PERSIST_PREFIX + name
    if override in config.own_properties and behaviour(config.android).persist_overrides:
        return override
    return PROPERTY_BY_NAME[name].full_name


def with_settings(config: DeviceConfig, settings: Settings, source: str = "") -> DeviceConfig:
    """``config`` with these values, whoever set them before; ``source`` says where the new ones come from.

    What is the same as before is left as it is written. KeyError for a name no table has.
    """
    before = {name: value_of(config, name) for name in settings}
    changed = {name: value for name, value in settings.items() if value != before[name]}
    if not changed:
        return config
    own, vm = dict(config.own_properties), dict(config.vm)
    fields = []
    for name, value in changed.items():
        if name.startswith(VM_PREFIX):
            vm[name.removeprefix(VM_PREFIX)] = int(value)
            fields.append(name)
        else:
            full = property_of(config, name)
            own[full] = ("true" if value else "false") if isinstance(value, bool) else str(value)
            fields.append(f"properties.{full}")
    sources = config.sources
    if source:
        sources = (Source(fields=tuple(fields), text=source), *_without(sources, fields))
    return config.with_properties(own, sources=sources, vm=vm)


def _without(sources: Iterable[Source], fields: Sequence[str]) -> Iterator[Source]:
    """Sources that no longer vouch for ``fields``; one that stood for nothing else is gone."""
    for one in sources:
        kept = tuple(field for field in one.fields if field not in fields)
        if kept or not one.fields:
            yield attrs.evolve(one, fields=kept)


def value_of(config: DeviceConfig, name: str) -> int | bool | None:
    """A setting as it takes effect; None for a sysctl that neither the config nor VM_DEFAULTS names.

    KeyError for a property this config's lmkd does not read.
    """
    if name.startswith(VM_PREFIX):
        sysctl = name.removeprefix(VM_PREFIX)
        return config.vm.get(sysctl, VM_DEFAULTS.get(sysctl))
    knob = effective_knobs(config.properties, config.android).find(name)
    if knob is None:
        raise KeyError(name)
    return knob.value


def check_changed(config: DeviceConfig, what: str) -> None:
    """Raises UserError, naming ``what`` was changed, for a config that ``lmk config check`` would refuse."""
    report = check_text(dump_device(config), config.name)
    for error in report.errors:
        raise UserError(f"{what}: {error.field}: {error.message}", error.remedy)
