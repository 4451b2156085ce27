"""Every shipped device config loads, and every number in it has a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.config.device import load_device_config
from lmk.config.find import shipped_configs
from lmk.config.load import Value, open_document

#: How sure a source is; nothing else may stand before its colon.
BASES = ("seen", "recalled", "inferred", "assumed", "measured")
#: Words, not facts.
UNSOURCED = ("name", "description", "source")


def leaves(value: Value) -> list[str]:
    """Dotted paths of all scalars below ``value``."""
    if value.kind != "mapping":
        return [value.field]
    return [leaf for entry in value.entries().values() for leaf in leaves(entry)]


@pytest.mark.parametrize(("name", "path"), shipped_configs().items())
def test_loads_and_is_named_as_its_file(name: str, path: Path) -> None:
    config = load_device_config(path)
    assert config.name == name
    assert config.description


@pytest.mark.parametrize("path", shipped_configs().values(), ids=shipped_configs())
def test_every_number_has_a_source(path: Path) -> None:
    sources = load_device_config(path).sources
    for source in sources:
        assert source.text.partition(":")[0] in BASES, source.text
    covered = [field for source in sources for field in source.fields]
    facts = [leaf for leaf in leaves(open_document(path).root) if leaf.partition(".")[0] not in UNSOURCED]
    unsourced = [leaf for leaf in facts if not any(f"{leaf}.".startswith(f"{field}.") for field in covered)]
    assert not unsourced
    useless = [field for field in covered if not any(f"{leaf}.".startswith(f"{field}.") for leaf in facts)]
    assert not useless
