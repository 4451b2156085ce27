"""Memory pressure levels of memory cgroup v1, and lmkd's old strategies that live on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main
from lmk.policy.registry import LMKD_MODES
from lmk.sim.vmpressure import CRITICAL, LOW, MEDIUM, Vmpressure


def listening(*levels: int) -> Vmpressure:
    found = Vmpressure()
    for level in levels:
        found.listen(level)
    return found


@pytest.mark.parametrize(
    ("reclaimed", "told"),
    [
        (512, (LOW,)),
        (400, (LOW,)),
        (206, (LOW,)),
        (200, (MEDIUM, LOW)),
        (30, (MEDIUM, LOW)),
        (20, (CRITICAL, MEDIUM, LOW)),
        (0, (CRITICAL, MEDIUM, LOW)),
    ],
)
def test_the_share_that_could_not_be_reclaimed_decides(reclaimed: int, told: tuple[int, ...]) -> None:
    assert listening(LOW, MEDIUM, CRITICAL).note(512, reclaimed) == told


def test_a_window_is_512_scanned_pages() -> None:
    pressure = listening(LOW)
    assert pressure.note(511, 511) == ()
    assert pressure.note(1, 1) == (LOW,)
    assert pressure.note(511, 511) == ()


def test_listeners_hear_of_their_level_and_above_and_counts_are_taken_once() -> None:
    pressure = listening(MEDIUM)
    assert pressure.note(512, 512) == ()
    assert pressure.hopeless() == (MEDIUM,)
    assert pressure.take() == (0, 1, 0)
    assert pressure.take() == (0, 0, 0)
    pressure.stop(MEDIUM)
    assert pressure.hopeless() == ()


def test_nobody_listens() -> None:
    assert Vmpressure().hopeless() == ()


@pytest.mark.parametrize("policy", sorted(LMKD_MODES))
def test_the_old_strategies_kill_in_the_simulator(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["sim", "phone-2gb", "app-switching", "--policy", policy, "--json", "--record", str(tmp_path / "r")])
    result = json.loads(capsys.readouterr().out)
    assert result["complete"]
    assert len(result["kills"]) >= 5
    assert result["summary"]["foreground_kills"] == 0
    assert result["summary"]["kernel_oom_kills"] == 0
