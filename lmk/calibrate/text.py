"""A measured calibration as the YAML file that lmk.config.calibration reads, and as one JSON object. Pure."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from lmk.calibrate.derive import Derived, Number
from lmk.config.calibration import ZramCost

#: Raised when a key changes meaning (docs/json.md).
CALIBRATE_SCHEMA: Final = 1
_WIDTH: Final = 116


def calibration_text(name: str, kind: str, derived: Derived) -> str:
    """The whole file."""
    lines = [f"name: {name}", f"class: {kind}", "source:"]
    for keys, source in _sources(derived):
        text = textwrap.wrap(source, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
        lines += [f"  {keys}: >-", *text]
    lines += [f"{number.key}: {number.value}" for number in derived.numbers]
    lines.append("zram:")
    for algorithm, cost in derived.zram.items():
        lines += _zram_lines(algorithm, cost)
    return "\n".join(lines) + "\n"


def calibration_json(name: str, kind: str, derived: Derived) -> dict[str, Any]:
    """Every number with its interval."""
    return {
        "schema": CALIBRATE_SCHEMA,
        "name": name,
        "class": kind,
        "numbers": {number.key: _number_json(number) for number in derived.numbers},
        "zram": {
            algorithm: {
                "write_ns": cost.write_ns,
                "read_ns": cost.read_ns,
                "classes": [
                    {"ratio_permille": c.ratio_permille, "write_ns": c.write_ns, "read_ns": c.read_ns}
                    for c in cost.classes
                ],
            }
            for algorithm, cost in derived.zram.items()
        },
    }


def _number_json(number: Number) -> dict[str, Any]:
    estimate = number.estimate
    interval = None
    if estimate is not None and estimate.n > 1:
        interval = [round(estimate.value - estimate.half, 1), round(estimate.value + estimate.half, 1)]
    return {
        "value": number.value,
        "ci95": interval,
        "n": estimate.n if estimate is not None else None,
        "measured": estimate is not None,
        "source": number.source,
    }


def _sources(derived: Derived) -> list[tuple[str, str]]:
    """Keys with the same source together, in order."""
    grouped: dict[str, list[str]] = {derived.zram_source: ["zram"]}
    for number in derived.numbers:
        grouped.setdefault(number.source, []).append(number.key)
    return [(", ".join(keys), source) for source, keys in grouped.items()]


def _zram_lines(algorithm: str, cost: ZramCost) -> list[str]:
    head = f"  {algorithm}: {{write_ns: {cost.write_ns}, read_ns: {cost.read_ns}"
    if not cost.classes:
        return [head + "}"]
    lines = [head + ", classes: ["]
    lines += [
        f"    {{ratio_permille: {c.ratio_permille}, write_ns: {c.write_ns}, read_ns: {c.read_ns}}},"
        for c in cost.classes
    ]
    return [*lines, "  ]}"]
