"""Processes, thresholds and stalls over time, as every picture of a run draws them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.record.reader import RecordReader
from lmk.record.schema import CounterRow, EventRow, KillRow
from lmk.record.writer import RecordWriter
from lmk.report.timeline import AdjSpan, Timeline, keep_extremes, read_timeline, stall_in_window_ms
from tests.report.records import MS, small_record


def read(path: Path) -> Timeline:
    with RecordReader(path) as record:
        return read_timeline(record)


def test_lives_with_their_tiers(tmp_path: Path) -> None:
    first, second = read(small_record(tmp_path / "run")).lives
    assert (first.name, first.pid, first.ended, first.end_ns) == ("com.a", 42, "killed", 2031 * MS)
    # The write at 1.1 s failed: the process never had that score.
    assert first.spans == (
        AdjSpan(0, 10 * MS, None),
        AdjSpan(10 * MS, 1000 * MS, 0),
        AdjSpan(1000 * MS, 2031 * MS, 900),
    )
    # No death was reported: the kill is the end that is known.
    assert (second.name, second.ended, second.end_ns) == ("com.b", "killed", 3000 * MS)


def test_a_pid_that_is_used_again(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        for t_ms, kind, app in ((0, "spawned", "a"), (10, "died", "a"), (20, "spawned", "b"), (30, "spawned", "c")):
            writer.app_event(EventRow(t_ns=t_ms * MS, kind=kind, body={"app": app, "pid": 5}))
        writer.app_event(EventRow(t_ns=40 * MS, kind="adj", body={"pid": 5, "adj": 700}))
    lives = read(tmp_path).lives
    assert [(life.name, life.begin_ns, life.end_ns, life.ended) for life in lives] == [
        ("a", 0, 10 * MS, "exited"),
        ("b", 20 * MS, 30 * MS, "exited"),
        ("c", 30 * MS, 40 * MS, ""),
    ]


def test_a_record_of_kills_alone(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.kill(KillRow(t_ns=7 * MS, pid=5, name="a", oom_score_adj=910))
        writer.kill(KillRow(t_ns=9 * MS, pid=5, name="b", signal_to_exit_us=1000))
    timeline = read(tmp_path)
    assert [(life.name, life.ended) for life in timeline.lives] == [("a", "killed"), ("b", "killed")]
    assert (timeline.begin_ns, timeline.end_ns) == (0, 10 * MS) or timeline.begin_ns == 7 * MS
    assert not timeline.marks
    assert not timeline.counters


def test_an_empty_record(tmp_path: Path) -> None:
    with RecordWriter(tmp_path):
        pass
    timeline = read(tmp_path)
    assert not (timeline.lives or timeline.kills or timeline.marks)
    assert timeline.begin_ns <= timeline.end_ns


def test_what_decisions_compared(tmp_path: Path) -> None:
    marks = read(small_record(tmp_path / "run")).marks
    assert [(m.t_ns, m.free_kib, m.min_kib, m.low_kib, m.high_kib) for m in marks] == [
        (1000 * MS, 80_000, 40_000, 50_000, 60_000),
        (2000 * MS, 44_000, 40_000, 50_000, 60_000),
    ]
    assert (marks[0].swap_threshold_kib, marks[0].thrashing_pct, marks[0].thrashing_limit_pct) == (102_400, 7, 100)


def counters(*totals_ms: tuple[int, int | None]) -> list[CounterRow]:
    return [CounterRow(t_ns=t * MS, psi_some_us=None if v is None else v * 1000) for t, v in totals_ms]


def test_stall_within_the_window() -> None:
    rows = counters((0, 0), (250, 100), (500, 200), (750, 200), (1000, 200), (1250, 200), (1500, 200))
    assert stall_in_window_ms(rows, "psi_some_us", 1000) == [None, 100, 200, 200, 200, 100, 0]


def test_the_window_may_begin_between_samples() -> None:
    rows = counters((0, 0), (600, 60), (1200, 60))
    assert stall_in_window_ms(rows, "psi_some_us", 1000) == [None, 60, pytest.approx(40)]


def test_samples_further_apart_than_the_window_and_unknown_ones() -> None:
    rows = counters((0, 0), (4000, 200), (5000, None), (6000, 1200))
    assert stall_in_window_ms(rows, "psi_some_us", 1000) == [None, 50, None, 500]
    assert stall_in_window_ms([], "psi_some_us", 1000) == []


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 100)), max_size=40), st.integers(100, 2000))
def test_a_stall_never_exceeds_the_window(steps: list[tuple[int, int]], window_ms: int) -> None:
    rows, t_ms, total_ms = [CounterRow(t_ns=0, psi_some_us=0)], 0, 0.0
    for gap_ms, share_pct in steps:
        t_ms += gap_ms
        total_ms += gap_ms * share_pct / 100
        rows.append(CounterRow(t_ns=t_ms * MS, psi_some_us=int(total_ms * 1000)))
    for stall in stall_in_window_ms(rows, "psi_some_us", window_ms)[1:]:
        assert stall is not None
        assert -0.01 <= stall <= window_ms + 0.01


VALUES = st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=300)


@given(VALUES, st.integers(1, 20))
def test_what_is_dropped_lies_between_what_is_kept(column: list[float | None], buckets: int) -> None:
    kept = keep_extremes([column], buckets)
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] == len(column) - 1
    assert len(kept) <= 4 * buckets + 2
    if len(column) <= 2 * buckets:
        assert kept == list(range(len(column)))
    for bucket in range(buckets):
        rows = range(bucket * len(column) // buckets, (bucket + 1) * len(column) // buckets)
        known = [value for row in rows if (value := column[row]) is not None]
        if known:
            drawn = [value for row in rows if row in set(kept) and (value := column[row]) is not None]
            assert (min(drawn), max(drawn)) == (min(known), max(known))


def test_extremes_of_every_column() -> None:
    flat: list[float | None] = [0.0] * 1000
    peak, dip = list(flat), list(flat)
    peak[501], dip[777] = 9.0, -9.0
    kept = keep_extremes([peak, dip], 5)
    assert {501, 777} <= set(kept)
    assert len(kept) < 40
