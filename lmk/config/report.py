"""What ``lmk config`` tells about files: findings of a check, and a device as it takes effect; values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from lmk.config.android import BUILD_VERSIONS
from lmk.config.check import check_device
from lmk.config.device import DeviceConfig, read_device_config
from lmk.config.effective import EffectiveKnob, effective_knobs
from lmk.config.load import ConfigWarning, Document, open_document, parse_document
from lmk.config.scenario import load_scenario
from lmk.errors import ConfigError, ConfigErrors

#: Top-level keys only a scenario has.
SCENARIO_KEYS = ("apps", "steps", "generate", "expect")
SCHEMA = 1


@attrs.frozen(kw_only=True)
class FileReport:
    """Findings about one file, in line order."""

    file: str
    #: "device", "scenario" or, if it cannot be told, "unknown".
    kind: str
    name: str | None
    errors: tuple[ConfigError, ...] = ()
    warnings: tuple[ConfigWarning, ...] = ()


def check_file(path: Path) -> FileReport:
    """Read and check one device config or scenario. Never raises for what is wrong with the file."""
    try:
        document = open_document(path)
    except ConfigErrors as caught:
        return FileReport(file=str(path), kind="unknown", name=None, errors=caught.errors)
    keys = document.root.entries()
    if any(key in keys for key in SCENARIO_KEYS):
        name = keys["name"].text if "name" in keys else None
        return FileReport(file=str(path), kind="scenario", name=name, errors=_scenario_errors(path))
    return _device_report(document)


def check_text(text: str, file: str) -> FileReport:
    """Check a device config that is no file yet; ``file`` is what its findings call it."""
    try:
        return _device_report(parse_document(text, file))
    except ConfigErrors as caught:
        return FileReport(file=file, kind="unknown", name=None, errors=caught.errors)


def _device_report(document: Document) -> FileReport:
    config = read_device_config(document)
    if not document.problems.errors:
        check_device(document, config)
    name = document.root.entries().get("name")
    return FileReport(
        file=document.problems.file,
        kind="device",
        name=name.text if name else None,
        errors=tuple(sorted(document.problems.errors, key=lambda error: error.line or 0)),
        warnings=tuple(sorted(document.problems.warnings, key=lambda warning: warning.line or 0)),
    )


def read_unchecked(path: Path) -> tuple[DeviceConfig, Document]:
    """A config of which every single value is in order, with contradictions left in ``document.problems``.

    Raises ConfigErrors for anything else.
    """
    document = open_document(path)
    config = read_device_config(document)
    document.problems.raise_if_any()
    check_device(document, config)
    return config, document


def check_json(reports: list[FileReport]) -> dict[str, Any]:
    """``lmk config check --json``; the schema is in docs/device-configs.md."""
    return {
        "schema": SCHEMA,
        "ok": not any(report.errors for report in reports),
        "files": [
            {
                "file": report.file,
                "kind": report.kind,
                "name": report.name,
                "errors": [_finding(error.line, error.field, error.message, error.remedy) for error in report.errors],
                "warnings": [_finding(one.line, one.field, one.message, one.hint) for one in report.warnings],
            }
            for report in reports
        ],
    }


def device_json(config: DeviceConfig, path: Path) -> dict[str, Any]:
    """``lmk config show --json``; the schema is in docs/device-configs.md."""
    effective = effective_knobs(config.properties, config.android)
    release, sdk = BUILD_VERSIONS[config.android]
    return {
        "schema": SCHEMA,
        "file": str(path),
        "name": config.name,
        "description": config.description,
        "android": {"tag": config.android, "release": release, "sdk": sdk},
        "memory_bytes": config.memory_bytes,
        "cpus": config.cpus,
        "arch": config.arch,
        "kernel": attrs.asdict(config.kernel),
        "zram": attrs.asdict(config.zram) if config.zram else None,
        "storage": attrs.asdict(config.storage) if config.storage else None,
        "system": [attrs.asdict(process) for process in config.system],
        "unreclaimable_bytes": config.unreclaimable_bytes,
        "vm": dict(config.vm),
        "low_ram": config.low_ram,
        "strategy": effective.params.strategy,
        "knobs": [_knob(knob) for knob in effective.knobs],
        "properties": dict(config.properties),
        "sources": [{"fields": list(source.fields), "text": source.text} for source in config.sources],
    }


def _knob(knob: EffectiveKnob) -> dict[str, Any]:
    return {
        "name": knob.row.name,
        "property": knob.row.full_name,
        "value": knob.value,
        "unit": knob.row.unit or None,
        "default": knob.default,
        "won": knob.won,
        "text": knob.text,
        "clamped_from": knob.clamped_from,
        "dead": knob.dead or None,
        "meaning": knob.row.meaning,
    }


def _finding(line: int | None, field: str, message: str, hint: str) -> dict[str, Any]:
    return {"line": line, "field": field or None, "message": message, "hint": hint or None}


def _scenario_errors(path: Path) -> tuple[ConfigError, ...]:
    try:
        load_scenario(path)
    except ConfigErrors as caught:
        return caught.errors
    return ()
