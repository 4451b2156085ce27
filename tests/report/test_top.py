"""What lmk top says at a moment: distances, next victims, and what fits on a screen."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lmk.policy.lmkd.params import LmkdParams, load_params
from lmk.policy.lmkd.versions import behaviour
from lmk.record.reader import RecordReader
from lmk.record.writer import RecordWriter
from lmk.report.top_frame import Frame, Running, gauges, tier_rows
from lmk.report.top_replay import ReplayFrames
from lmk.report.top_screen import bar, screen
from tests.report.records import look, simulated_record, small_record

RELEASE = behaviour("14Q2")
PARAMS = load_params({"ro.lmk.psi_partial_stall_ms": "200"}, RELEASE)


def test_distances() -> None:
    found = {gauge.name: gauge for gauge in gauges(look(11_000), (150.0, None), PARAMS, RELEASE)}
    some = found["PSI some in 1000 ms"]
    assert (some.now, some.limit, some.gap, some.share) == ("150 ms", "200 ms", "50 ms to go", 0.75)
    assert found["PSI full in 1000 ms"].share is None
    low, least = found["free memory, low watermark"], found["free memory, min watermark"]
    assert (low.fires, low.gap) == (True, "5.9 MiB below")
    assert (least.fires, least.gap, least.now) == (False, "3.9 MiB to go", "43.0 MiB")
    assert found["thrashing"].gap == "93 % to go"


@pytest.mark.parametrize(("free_pages", "fires"), [(12_499, True), (12_500, False), (12_501, False)])
def test_a_watermark_is_breached_below_not_at_it(free_pages: int, fires: bool) -> None:
    low = next(g for g in gauges(look(free_pages), (None, None), PARAMS, RELEASE) if "low" in g.name)
    assert low.fires == fires


def test_what_is_switched_off_has_no_gauge() -> None:
    params = load_params({"ro.lmk.swap_free_low_percentage": "0", "ro.lmk.psi_complete_stall_ms": "0"}, RELEASE)
    names = [gauge.name for gauge in gauges(look(11_000), (0.0, 0.0), params, RELEASE)]
    assert not [name for name in names if "swap" in name or "PSI full in" in name]
    assert [gauge.name for gauge in gauges(None, (0.0, 0.0), params, RELEASE)] == ["PSI some in 1000 ms"]


PROCESSES = (
    Running(pid=1, name="old", adj=910, order=10, rss_kib=1024),
    Running(pid=2, name="new", adj=910, order=20, rss_kib=9000),
    Running(pid=3, name="lower", adj=900, order=1, rss_kib=50_000),
    Running(pid=4, name="small", adj=100, order=1, rss_kib=1000),
    Running(pid=5, name="big", adj=100, order=2, rss_kib=2000),
    Running(pid=6, name="system", adj=-900, order=3),
)


def victims(params: LmkdParams) -> list[tuple[str, int, str | None]]:
    rows = tier_rows(PROCESSES, params, RELEASE)
    return [(row.tier, row.count, row.victim.name if row.victim else None) for row in rows]


def test_next_victims_as_lmkd_chooses_them() -> None:
    assert victims(PARAMS) == [("cached", 3, "old"), ("visible", 2, "big"), ("system", 1, None)]
    heaviest = load_params({"ro.lmk.kill_heaviest_task": "true"}, RELEASE)
    assert victims(heaviest)[0] == ("cached", 3, "new")


def test_a_heaviest_that_nobody_can_know() -> None:
    unsized = [Running(pid=pid, name=str(pid), adj=100, order=pid) for pid in (1, 2)]
    (row,) = tier_rows(unsized, PARAMS, RELEASE)
    assert row.victim is None
    assert "not recorded" in row.why
    (row,) = tier_rows(unsized[:1], PARAMS, RELEASE)
    assert row.victim is not None


def test_the_bar_is_full_where_it_fires() -> None:
    assert [bar(share, "").plain for share in (None, 0.0)] == ["·" * 18] * 2
    assert bar(1.0, "").plain == bar(7.0, "").plain == "█" * 18
    assert all(len(bar(share / 100, "").plain) == 18 for share in range(101))


def drawn(frame: Frame, width: int, height: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(screen(frame, width, height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> ReplayFrames:
    with RecordReader(simulated_record(tmp_path_factory.mktemp("top") / "run")) as record:
        return ReplayFrames(record)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (100, 30), (200, 60)])
def test_it_fits(replay: ReplayFrames, width: int, height: int) -> None:
    frame = replay.frame(61.2, "paused", "q quit")
    lines = drawn(frame, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1] == "q quit"
    assert frame.kills[-1].name.startswith(next(line for line in reversed(lines[:-1]) if line).split()[2].rstrip("…"))


def test_a_record_before_during_and_after(replay: ReplayFrames) -> None:
    first, middle, last = (replay.frame(t, "", "") for t in (replay.begin_s, 61.2, replay.end_s))
    assert not first.kills
    assert 0 < len(middle.kills) < len(last.kills)
    assert "foreground" in {row.tier for row in last.tiers}
    assert {row.tier for row in middle.tiers} >= {"cached", "foreground"}
    assert all(kill.t_s is not None and kill.t_s <= 61.2 for kill in middle.kills)
    assert "free memory, low watermark" in {gauge.name for gauge in middle.gauges}


def test_records_with_little_in_them(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "empty"):
        pass
    with RecordReader(tmp_path / "empty") as record:
        frames = ReplayFrames(record)
    text = "\n".join(drawn(frames.frame(0, "", ""), 80, 24))
    assert "No thresholds are known" in text
    assert "No processes are known" in text
    assert "No kills yet" in text
    with RecordReader(small_record(tmp_path / "small")) as record:
        frame = ReplayFrames(record).frame(1.5, "", "")
    assert [row.tier for row in frame.tiers] == ["cached", "foreground"]
    assert frame.notes == ()
