"""CONFIG and SCENARIO arguments: a path or a shipped name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.config.find import find_config, find_scenario, shipped_configs, shipped_scenarios
from lmk.errors import ConfigError


def test_shipped_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config("phone-2gb") == shipped_configs()["phone-2gb"]
    own = tmp_path / "mine.yaml"
    own.write_text("x")
    assert find_config(str(own)) == own
    monkeypatch.chdir(tmp_path)
    assert find_config("mine.yaml") == Path("mine.yaml")
    (tmp_path / "phone-2gb").write_text("a file of a shipped name does not shadow it")
    assert find_config("phone-2gb") == shipped_configs()["phone-2gb"]
    assert find_config("./phone-2gb") == Path("./phone-2gb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phone2gb", "phone2gb: no shipped device config of that name and no such file; did you mean phone-2gb?"),
        ("nowhere/phone-2g.yaml", "nowhere/phone-2g.yaml: no such file; did you mean phone-2gb?"),
        ("/", "/: is a directory, expected a device config file; known: "),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_config(text)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_scenarios_are_found_likewise() -> None:
    for name, path in shipped_scenarios().items():
        assert find_scenario(name) == path
    with pytest.raises(ConfigError, match="no shipped scenario of that name"):
        find_scenario("no-such-scenario")
