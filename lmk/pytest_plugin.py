"""A pytest plugin: device configs under test, in a project of its own (docs/pytest.md).

``lmk_run(SCENARIO)`` runs a scenario and returns what ``lmk run --json`` prints; ``lmk_device`` is a booted guest.
``--lmk-config`` says which device, ``--lmk-target`` whether it is simulated (the default) or emulated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

if TYPE_CHECKING:
    from lmk.device.adb import AdbDevice

_CONFIG, _TARGET, _BUNDLE = "--lmk-config", "--lmk-target", "--lmk-bundle"
_DEFAULT_CONFIG: Final = "phone-2gb"
#: Building what is missing included; a scenario itself ends within three minutes.
_RUN_TIMEOUT_S: Final = 3600.0
_KILLS_SHOWN_MAX: Final = 20


class LmkRun(Protocol):
    """What the fixture ``lmk_run`` is."""

    def __call__(
        self,
        scenario: str | Path,
        *,
        config: str | Path | None = None,
        policy: str = "lmkd",
        seed: int | None = None,
        settings: Mapping[str, str | int | bool] | None = None,
    ) -> dict[str, Any]:
        """The JSON object of the run (docs/json.md). ``settings`` go in place of the config's own."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options."""
    group = parser.getgroup("lmk", "low memory killer")
    group.addoption(_CONFIG, default=_DEFAULT_CONFIG, metavar="CONFIG", help=f"device under test ({_DEFAULT_CONFIG})")
    group.addoption(_TARGET, default="sim", metavar="TARGET", help="sim, or a --target of `lmk run` (sim)")
    group.addoption(_BUNDLE, default=None, metavar="FILE", help="kernel and guest from `lmk kernel bundle`")


@pytest.fixture
def lmk_run(request: pytest.FixtureRequest, tmp_path: Path) -> LmkRun:
    """Run scenarios; a failing test's report then shows who was killed and why."""
    config_option: str = request.config.getoption(_CONFIG)
    count = 0

    def run(
        scenario: str | Path,
        *,
        config: str | Path | None = None,
        policy: str = "lmkd",
        seed: int | None = None,
        settings: Mapping[str, str | int | bool] | None = None,
    ) -> dict[str, Any]:
        nonlocal count
        count += 1
        argv = [str(config or config_option), str(scenario), "--policy", policy, "--json"]
        argv += ["--record", str(tmp_path / f"lmk-run-{count}")]
        argv += ["--seed", str(seed)] if seed is not None else []
        for name, value in (settings or {}).items():
            argv += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        result = _lmk([*_verb(request.config), *argv])
        request.node.add_report_section("call", f"lmk run {count}", _account(result))
        return result

    return run


@pytest.fixture(scope="session")
def lmk_device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbDevice]:
    """A guest of the device under test over adb, for the whole session (emulated also with target sim)."""
    from lmk.backends.bundle import check_bundle, open_bundle, use_programs
    from lmk.config.device import load_device_config
    from lmk.config.find import find_config
    from lmk.live.devices import check_target, open_device, parse_target
    from lmk.progress import silent

    target_text: str = request.config.getoption(_TARGET)
    bundle_path: str | None = request.config.getoption(_BUNDLE)
    target = parse_target("qemu" if target_text == "sim" else target_text)
    config = load_device_config(find_config(request.config.getoption(_CONFIG)))
    check_target(target, config, confirmed=False)
    bundle = None
    if bundle_path is not None:
        bundle = open_bundle(Path(bundle_path))
        check_bundle(bundle, config)
        use_programs(bundle)
    device = open_device(target, config, tmp_path_factory.mktemp("lmk-device"), silent, bundle)
    try:
        yield device.adb
    finally:
        device.close()


def _verb(config: pytest.Config) -> list[str]:
    target, bundle = config.getoption(_TARGET), config.getoption(_BUNDLE)
    if target == "sim":
        return ["sim"]
    return ["run", "--target", target, *(["--bundle", bundle] if bundle is not None else [])]


def _lmk(argv: list[str]) -> dict[str, Any]:
    from lmk import subproc

    done = subproc.run([sys.executable, "-m", "lmk", *argv], timeout_s=_RUN_TIMEOUT_S, check=False)
    words = done.stderr.decode(errors="replace").strip()
    if done.returncode not in (0, 1):
        pytest.fail(words.splitlines()[-1] if words else f"lmk ended with {done.returncode}", pytrace=False)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _account(result: Mapping[str, Any]) -> str:
    """Who was killed, and which expectations of the scenario were not met."""
    lines = [f"{result['config']}, {result['scenario']}, seed {result['seed']}: {len(result['kills'])} kills"]
    for kill in result["kills"][:_KILLS_SHOWN_MAX]:
        why = kill["reason"] or kill["killer"]
        lines.append(f"{kill['t_ms'] / 1000:8.2f} s  {kill['name']} (adj {kill['oom_score_adj']}): {why}")
    if len(result["kills"]) > _KILLS_SHOWN_MAX:
        lines.append(f"and {len(result['kills']) - _KILLS_SHOWN_MAX} more")
    lines += [
        f"not met: {row['name']}: {row['observed']}, expected {row['limit']}"
        for row in result["summary"]["expectations"]
        if not row["met"]
    ]
    return "\n".join([*lines, f"record: {result['record']}"])
