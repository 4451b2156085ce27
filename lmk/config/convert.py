"""Converters for values of a YAML file: ``Value -> plain value``, or InvalidValue with cause and hint.

Used with ``Section.need``, ``Section.take`` and ``Value.convert`` of lmk.config.load.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, TypeVar

from lmk.config import quantity
from lmk.config.load import Value, suggest
from lmk.config.quantity import ByteRate, InvalidValue

T = TypeVar("T")

_TRUE: Final = ("yes", "true", "on")
#: YAML 1.1 also has octal (010), binary, 1_000 and base 60 (1:30): traps, so they are refused.
_DECIMAL: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,30})", re.ASCII)
_HEX: Final = re.compile(r"0x[0-9A-Fa-f]{1,16}", re.ASCII)
_FLOAT: Final = re.compile(r"[+-]?[0-9]*\.?[0-9]*([eE][+-]?[0-9]{1,3})?", re.ASCII)


def string(value: Value) -> str:
    """Text that is not empty; a number or truth value must be quoted to count as text."""
    if value.kind in ("integer", "number", "boolean"):
        raise InvalidValue(f"found {value.describe()}, expected text", f'write "{value.text}"')
    if value.kind != "string":
        raise InvalidValue(f"found {value.describe()}, expected text")
    if not value.text.strip():
        raise InvalidValue("found an empty text")
    return value.text


def scalar_text(value: Value) -> str:
    """Any scalar exactly as written: ``true``, ``0x10`` and ``"30"`` are all fine, no value is not."""
    if value.kind in (None, "mapping", "list", "nothing"):
        raise InvalidValue(f"found {value.describe()}, expected one value")
    return value.text


def one_of(*allowed: str) -> Callable[[Value], str]:
    """Text out of a fixed set; the nearest name is suggested."""

    def convert(value: Value) -> str:
        text = scalar_text(value)
        if text in allowed:
            return text
        hint = suggest(text, allowed) or f"allowed: {', '.join(allowed)}"
        raise InvalidValue(f"found {value.describe()}", hint)

    return convert


def integer(*, minimum: int | None = None, maximum: int | None = None) -> Callable[[Value], int]:
    """A whole number within bounds (decimal, or 0x… as YAML has it)."""

    def convert(value: Value) -> int:
        if value.kind != "integer":
            raise InvalidValue(f"found {value.describe()}, expected a whole number{_range(minimum, maximum)}")
        number = _integer_of(value)
        _check_range(number, value, minimum, maximum)
        return number

    return convert


def number(*, minimum: float | None = None, maximum: float | None = None) -> Callable[[Value], float]:
    """A number within bounds, with or without a fraction; nan and infinity are refused."""

    def convert(value: Value) -> float:
        if value.kind not in ("integer", "number"):
            raise InvalidValue(f"found {value.describe()}, expected a number{_range(minimum, maximum)}")
        found = float(_integer_of(value)) if value.kind == "integer" else _float_of(value)
        if not math.isfinite(found):
            raise InvalidValue(f"found {value.describe()}, expected a finite number")
        _check_range(found, value, minimum, maximum)
        return found

    return convert


def boolean(value: Value) -> bool:
    """``true`` or ``false`` (also yes/no, on/off, as YAML has it)."""
    if value.kind != "boolean":
        raise InvalidValue(f"found {value.describe()}, expected true or false")
    return value.text.lower() in _TRUE


def size(value: Value) -> int:
    """A size in bytes, from ``2GiB``."""
    return quantity.parse_bytes(_quantity_text(value, "a size such as 2GiB or 350MB"))


def size_or_share(whole_bytes: int) -> Callable[[Value], int]:
    """A size in bytes, from ``1GiB`` or, as a share of ``whole_bytes``, ``75%``."""

    def convert(value: Value) -> int:
        text = _quantity_text(value, "a size such as 1GiB or a share such as 75%")
        return quantity.parse_bytes_or_percent(text, whole_bytes)

    return convert


def duration_ms(value: Value) -> int:
    """A time in whole milliseconds, from ``700ms`` or ``5s``."""
    return quantity.parse_duration_ms(_quantity_text(value, "a time such as 700ms or 5s"))


def rate(value: Value) -> ByteRate:
    """A flow of bytes, from ``250MB/s`` or ``2MiB/min``."""
    return quantity.parse_rate(_quantity_text(value, "a size per time such as 250MB/s or 2MiB/min"))


def list_of(convert: Callable[[Value], T]) -> Callable[[Value], list[T]]:
    """A list of equal things; every bad item is recorded, the good ones are returned."""

    def convert_all(value: Value) -> list[T]:
        found: list[T] = []
        for item in value.items():
            try:
                found.append(convert(item))
            except InvalidValue as invalid:
                item.error(invalid.cause, invalid.hint)
        return found

    return convert_all


def mapping_of(convert: Callable[[Value], T]) -> Callable[[Value], dict[str, T]]:
    """A mapping with free keys; every bad value is recorded, the good ones are returned in file order."""

    def convert_all(value: Value) -> dict[str, T]:
        found: dict[str, T] = {}
        for key, entry in value.entries().items():
            try:
                found[key] = convert(entry)
            except InvalidValue as invalid:
                entry.error(invalid.cause, invalid.hint)
        return found

    return convert_all


def _quantity_text(value: Value, expected: str) -> str:
    if value.kind in ("integer", "number"):
        raise InvalidValue(f"found {value.describe()} without a unit, expected {expected}")
    if value.kind != "string":
        raise InvalidValue(f"found {value.describe()}, expected {expected}")
    return value.text


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    return f" of at most {maximum}" if maximum is not None else ""


def _check_range(found: float, value: Value, minimum: float | None, maximum: float | None) -> None:
    if (minimum is not None and found < minimum) or (maximum is not None and found > maximum):
        raise InvalidValue(f"found {value.text}, expected a number{_range(minimum, maximum)}")


def _integer_of(value: Value) -> int:
    if _DECIMAL.fullmatch(value.text):
        return int(value.text)
    if _HEX.fullmatch(value.text):
        return int(value.text, 16)
    raise InvalidValue(f"found {value.text}, expected a plain decimal number")


def _float_of(value: Value) -> float:
    try:
        return float(value.text) if _FLOAT.fullmatch(value.text) else math.nan
    except ValueError:
        return math.nan
