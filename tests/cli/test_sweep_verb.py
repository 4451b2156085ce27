"""lmk sweep from the command line: a grid, a list, the shipped example, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmk.cli.main import main
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.tune.sweep import grid_sweep, list_sweep, shipped_lists, stock_square
from tests.tune.conftest import TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def words(tiny: Path, output: Path, *more: str) -> list[str]:
    return ["sweep", "go-1gb", "--scenario", str(tiny), "--output", str(output), "--workers", "1", *more]


def test_a_grid_of_two_settings(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--space", "swap_free_low_percentage=0,10,30", "--space", "vm.swappiness=60..100:40", "--steps", "2"]
    assert main(words(tiny, tmp_path / "out", *more, "--seeds", "3", "--figure", "cold_starts", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1
    assert [point["params"] for point in result["points"]] == [
        {"swap_free_low_percentage": low, "vm.swappiness": swappiness}
        for low in (0, 10, 30)
        for swappiness in (60, 100)
    ]
    same = next(
        point for point in result["points"] if point["params"] == {"swap_free_low_percentage": 10, "vm.swappiness": 100}
    )
    assert same["figures"]["cold_starts"] == pytest.approx(result["stock"]["cold_starts"], abs=1e-3)
    assert Path(result["files"]["map cold_starts"]).read_bytes().startswith(b"\x89PNG")
    assert result["compared"]["baseline"] == "stock"


def test_a_list_of_your_own_with_other_policies(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\npoints:\n  - {name: alone, policy: none}\n  - {name: low, settings: {thrashing_limit: 5}}\n"
    )
    assert main(words(tiny, tmp_path / "out", "--list", str(mine), "--seeds", "1")) == 0
    out = capsys.readouterr().out
    assert "alone" in out
    assert "stock" in out
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_every_shipped_list_suits_a_phone() -> None:
    config = load_device_config(find_config("phone-2gb"))
    for path in shipped_lists().values():
        points = list_sweep(path, config).points
        assert len({point.name for point in points}) == len(points)
        assert all(point.source for point in points)


def test_stock_is_found_on_the_grid() -> None:
    config = load_device_config(find_config("phone-2gb"))
    sweep = grid_sweep(["swap_free_low_percentage=0,10,30", "vm.swappiness=60,100"], config, 6)
    assert stock_square(config, sweep) == (1, 1)
    assert stock_square(config, grid_sweep(["swap_free_low_percentage=1,2", "vm.swappiness=60,100"], config, 6)) is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "what is to be swept"),
        (["--space", "thrashing_limit", "--list", "psi-in-the-wild"], "what is to be swept"),
        (["--space", "thrashing_limit", "--space", "swap_util_max", "--space", "vm.swappiness"], "over one or two"),
        (["--space", "thrashing_limit=1..200", "--space", "vm.swappiness=1..200", "--steps", "99"], "at most 1000"),
        (["--list", "psi-in-the-wilds"], "psi-in-the-wild"),
        (["--space", "thrashing_limit", "--steps", "1"], "--steps 1: must be at least 2"),
        (["--space", "thrashing_limit", "--figure", "kils"], "did you mean kills"),
    ],
)
def test_mistakes_get_one_line(
    more: list[str], message: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tiny, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "points: is missing"),
        ("name: x\npoints: []\n", "points: is empty"),
        ("name: x\npoints: [{name: a, settings: {thrashing_limit: low}}]\n", "whole number, true or false"),
        ("name: x\npoints: [{name: a, policy: lmk}]\n", "lmkd"),
        ("name: x\npoints: [{name: a, setting: {}}]\n", "did you mean settings"),
        ("name: x\npoints: [{name: a}, {name: a}]\n", "is there already"),
    ],
)
def test_mistakes_in_a_list(
    text: str, message: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    assert main(words(tiny, tmp_path / "out", "--list", str(mine))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
