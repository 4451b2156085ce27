"""What a CONFIG or SCENARIO argument of the command line means: a file, or the name of a shipped one."""

from __future__ import annotations

from pathlib import Path

from lmk.config.load import known_list, suggest
from lmk.errors import ConfigError
from lmk.resources import data_dir, scenarios_dir

SUFFIXES = (".yaml", ".yml")


def shipped_configs() -> dict[str, Path]:
    """Shipped device configs by name, sorted."""
    return _by_name(data_dir("device-configs"))


def shipped_scenarios() -> dict[str, Path]:
    """Shipped scenarios by name, sorted."""
    return _by_name(scenarios_dir())


def find_config(name_or_path: str) -> Path:
    """The device config file ``name_or_path`` stands for.

    Something with a slash or a YAML suffix is a path; else it is a shipped name (``phone-2gb``), else a
    file of that name here. Raises ConfigError, naming the nearest shipped config, if it is none of these.
    """
    return _find(name_or_path, "device config", shipped_configs())


def find_scenario(name_or_path: str) -> Path:
    """The scenario file ``name_or_path`` stands for; as find_config."""
    return _find(name_or_path, "scenario", shipped_scenarios())


def _by_name(directory: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))}


def _find(text: str, kind: str, shipped: dict[str, Path]) -> Path:
    path = Path(text)
    if "/" not in text and path.suffix not in SUFFIXES and text in shipped:
        return shipped[text]
    if path.is_file():
        return path
    hint = suggest(path.stem, shipped) or known_list(shipped)
    if path.is_dir():
        raise ConfigError(text, None, "", f"is a directory, expected a {kind} file", hint)
    if "/" in text or path.suffix in SUFFIXES:
        raise ConfigError(text, None, "", "no such file", hint)
    raise ConfigError(text, None, "", f"no shipped {kind} of that name and no such file", hint)
