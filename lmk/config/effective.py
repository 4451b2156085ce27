"""What lmkd makes of a device's properties: every knob with its value, who set it, and whether it matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from lmk.policy.lmkd.params import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    PERSIST_PREFIX,
    PROPERTIES,
    LmkdParams,
    Property,
    load_params,
    parse_property_bool,
    parse_property_int,
)
from lmk.policy.lmkd.versions import Behaviour
from lmk.policy.lmkd.versions import behaviour as behaviour_of

#: Who decided a value, beside the property itself ("ro.lmk", "ro.config", "sys").
PERSIST, DEFAULT, DERIVED = "persist.device_config", "default", "derived"
#: kind -> smallest and largest value libcutils accepts.
INTEGER_RANGES: Final = {"int32": (INT32_MIN, INT32_MAX), "int64": (INT64_MIN, INT64_MAX)}


@attrs.frozen(kw_only=True)
class EffectiveKnob:
    """One property of lmkd as it takes effect on a device."""

    row: Property
    value: int | bool
    #: Without any override, on this kind of device and release; None where it is derived.
    default: int | bool | None
    #: PERSIST, the prefix of the property, DEFAULT or DERIVED.
    won: str
    #: The text that won; None for defaults.
    text: str | None
    #: What the text says before lmkd clamps it; None if it was not clamped.
    clamped_from: int | None
    #: Why the value changes nothing on this device, in words; empty if it does.
    dead: str


@attrs.frozen(kw_only=True)
class EffectiveKnobs:
    """All of lmkd's knobs on one device."""

    behaviour: Behaviour
    params: LmkdParams
    #: Those this release reads, in table order.
    knobs: tuple[EffectiveKnob, ...]

    def find(self, name: str) -> EffectiveKnob | None:
        """The knob called ``name`` (without prefix), or None if this release does not read it."""
        return next((knob for knob in self.knobs if knob.row.name == name), None)


def effective_knobs(properties: Mapping[str, str], tag: str) -> EffectiveKnobs:
    """What lmkd of release ``tag`` reads from ``properties`` (all that getprop answers). Never raises."""
    behaviour = behaviour_of(tag)
    params = load_params(properties, behaviour)
    knobs = tuple(_knob(row, properties, behaviour, params) for row in PROPERTIES if row.exists_in(behaviour))
    return EffectiveKnobs(behaviour=behaviour, params=params, knobs=knobs)


def parse_value(row: Property, text: str) -> int | bool | None:
    """What libcutils makes of ``text`` for this property; None if it falls back to the default."""
    if row.kind == "bool":
        return parse_property_bool(text)
    return parse_property_int(text, *INTEGER_RANGES[row.kind])


def clamp(row: Property, number: int) -> int:
    """``number`` forced into the range lmkd allows, as it does silently."""
    if row.minimum is not None and number < row.minimum:
        return row.minimum
    return row.maximum if row.maximum is not None and number > row.maximum else number


def dead_because(row: Property, params: LmkdParams) -> str:
    """Why a knob that this release reads has no effect; empty if it has one."""
    if params.strategy not in row.strategies:
        return f"only the {' and '.join(row.strategies)} strategy reads it, and this device runs {params.strategy}"
    return ""


def _knob(row: Property, properties: Mapping[str, str], behaviour: Behaviour, params: LmkdParams) -> EffectiveKnob:
    value: int | bool = getattr(params, row.name)
    default = row.default_of(behaviour, params.low_ram)
    won, text = _winner(row, properties, behaviour)
    asked = parse_value(row, text) if text is not None else None
    return EffectiveKnob(
        row=row,
        value=value,
        default=default,
        won=won if text is not None or default is not None else DERIVED,
        text=text,
        clamped_from=asked if asked is not None and row.kind != "bool" and clamp(row, asked) != asked else None,
        dead=dead_because(row, params),
    )


def _winner(row: Property, properties: Mapping[str, str], behaviour: Behaviour) -> tuple[str, str | None]:
    candidates = [(row.prefix.removesuffix("."), row.full_name)]
    if row.persist and behaviour.persist_overrides:
        candidates.insert(0, (PERSIST, PERSIST_PREFIX + row.name))
    for who, name in candidates:
        text = properties.get(name)
        if text is not None and parse_value(row, text) is not None:
            return who, text
    return DEFAULT, None
