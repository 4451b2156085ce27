"""What must hold on this device, whatever somebody does to its settings."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEVICE, ZAPPING = HERE / "tv-1gb.yaml", HERE / "zapping.yaml"


def test_the_player_is_never_killed(lmk_run):
    run = lmk_run(ZAPPING, config=DEVICE)
    assert "com.example.player" not in [kill["name"] for kill in run["kills"]]
    assert all(row["met"] for row in run["summary"]["expectations"])


@pytest.mark.parametrize("swappiness", [60, 100, 180])
def test_swappiness_does_not_change_that(lmk_run, swappiness):
    run = lmk_run(ZAPPING, config=DEVICE, settings={"vm.swappiness": swappiness})
    assert run["summary"]["foreground_kills"] == 0
