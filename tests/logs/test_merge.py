"""One death told by several logs is one; the time axis they are put on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.logs.clock import make_timeline
from lmk.logs.merge import Death, Told, merge
from lmk.logs.report import KINDS, Report
from lmk.logs.scan import scan_lines
from lmk.units import NS_PER_S

ANCHOR_NS = 1_740_988_800 * NS_PER_S  # 2025-03-03


def told(kind: str, seconds: float, pid: int | None = 77, name: str | None = "com.example", line: int = 1) -> Told:
    report = Report(kind=kind, shape="", line=line, pid=pid, name=name, text=f"{kind} {seconds}")
    return Told(ns=int(seconds * NS_PER_S), report=report)


def kinds(deaths: list[Death]) -> list[list[str]]:
    return [[one.report.kind for one in death.told] for death in deaths]


def test_all_sources_of_one_kill() -> None:
    (death,) = merge(
        [
            told("died", 5.08),
            told("lmkd", 5.0),
            told("killinfo", 5.001, name=None),
            told("am_died", 5.07),
            told("signal", 5.05, name=None),
            told("reap", 5.2, name="com.example"),
        ]
    )
    assert (death.killer, death.t_ns, len(death.told)) == ("lmkd", 5 * NS_PER_S, 6)


def test_a_death_may_be_noticed_late_or_reported_first() -> None:
    assert len(merge([told("lmkd", 5.0), told("died", 40.0)])) == 1
    assert len(merge([told("signal", 4.99, name=None), told("lmkd", 5.0)])) == 1


def test_a_pid_that_is_used_again() -> None:
    again = [told("lmkd", 5.0), told("died", 5.1), told("lmkd", 5000.0), told("died", 5000.1)]
    assert kinds(merge(again)) == [["lmkd", "died"], ["lmkd", "died"]]
    other = [told("lmkd", 5.0), told("died", 5.1), told("am_died", 7.0, name="com.other")]
    assert kinds(merge(other)) == [["lmkd", "died"], ["am_died"]]
    twice = [told("died", 5.0), told("died", 7.0)]
    assert kinds(merge(twice)) == [["died"], ["died"]]


def test_the_kernels_short_name_is_the_same_process() -> None:
    (death,) = merge([told("klmk", 5.0, name="le.android.keep"), told("am_died", 5.1, name="com.google.android.keep")])
    assert (death.killer, death.name) == ("kernel_lmk", "com.google.android.keep")
    assert (
        len(merge([told("klmk", 5.0, name="le.android.keep"), told("am_died", 5.1, name="com.google.android.gm")])) == 2
    )


def test_who_killed() -> None:
    assert merge([told("am_kill", 5.0), told("am_died", 5.1)])[0].killer == "activity_manager"
    assert merge([told("am_died", 5.1)])[0].killer is None
    assert merge([told("oom", 5.1), told("reap", 5.2)])[0].killer == "kernel_oom"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(KINDS)),
            st.integers(0, 200),
            st.sampled_from([None, 1, 2]),
            st.sampled_from([None, "a", "b"]),
        ),
        max_size=30,
    )
)
def test_every_report_is_in_exactly_one_death(rows: list[tuple[str, int, int | None, str | None]]) -> None:
    all_told = [told(kind, at, pid, name, line) for line, (kind, at, pid, name) in enumerate(rows)]
    deaths = merge(all_told)
    assert sorted(one.report.line for death in deaths for one in death.told) == list(range(len(rows)))
    for death in deaths:
        assert len({one.report.pid for one in death.told}) == 1
        assert None not in {one.report.pid for one in death.told} or len(death.told) == 1


class TestClock:
    """Kernel logs and logcat on one axis."""

    LOGCAT = (
        "03-02 08:00:30.000   501   501 I lowmemorykiller: Kill 'com.example.a' (61), uid 1, oom_score_adj 905 "
        "to free 6kB rss, 6kB swap; reason: x",
        "03-02 08:01:30.000   501   501 I lowmemorykiller: Kill 'com.example.b' (62), uid 1, oom_score_adj 905 "
        "to free 6kB rss, 6kB swap; reason: x",
    )
    KERNEL = (
        "<6>[ 1000.100000] oom_reaper: reaped process 61 (com.example.a), now anon-rss:0kB, "
        "file-rss:0kB, shmem-rss:0kB",
        "<6>[ 1060.100000] oom_reaper: reaped process 62 (com.example.b), now anon-rss:0kB, "
        "file-rss:0kB, shmem-rss:0kB",
    )

    def test_common_pids_tie_the_clocks_together(self) -> None:
        scans = [scan_lines(self.LOGCAT, "logcat"), scan_lines(self.KERNEL, "dmesg", 1)]
        timeline = make_timeline(scans, [ANCHOR_NS, ANCHOR_NS])
        told_ns = [timeline.ns(n, r.boot, r.stamp) for n, scan in enumerate(scans) for r in scan.reports if r.stamp]
        assert (timeline.clock, timeline.notes) == ("wall", ())
        assert abs(told_ns[0] - told_ns[2]) < NS_PER_S
        assert abs(told_ns[1] - told_ns[3]) < NS_PER_S

    def test_nothing_in_common_is_said(self) -> None:
        other = [line.replace("61", "71").replace("62", "72") for line in self.KERNEL]
        timeline = make_timeline([scan_lines(self.LOGCAT, "logcat"), scan_lines(other, "dmesg", 1)], [ANCHOR_NS] * 2)
        assert [note.startswith("dmesg: nothing ties") for note in timeline.notes] == [True]

    def test_kernel_alone_counts_from_boot(self) -> None:
        (scan,) = [scan_lines(self.KERNEL)]
        timeline = make_timeline([scan], [ANCHOR_NS])
        stamps = [timeline.ns(0, r.boot, r.stamp) for r in scan.reports if r.stamp]
        assert (timeline.clock, stamps) == (
            "boot",
            [1000 * NS_PER_S + NS_PER_S // 10, 1060 * NS_PER_S + NS_PER_S // 10],
        )

    def test_boots_follow_each_other(self) -> None:
        scan = scan_lines([*self.KERNEL, "<6>[    9.000000] send sigkill to 5 (x), adj 15, size 10"])
        timeline = make_timeline([scan], [ANCHOR_NS])
        stamps = [timeline.ns(0, r.boot, r.stamp) for r in scan.reports if r.stamp]
        assert stamps == sorted(stamps)

    def test_a_bug_reports_uptime(self) -> None:
        report = [
            "== dumpstate: 2025-03-02 08:01:00",
            "Uptime: up 0 weeks, 0 days, 0 hours, 10 minutes",
            *self.LOGCAT,
            "------ KERNEL LOG (dmesg) ------",
            "<6>[  540.000000] send sigkill to 5 (x), adj 15, size 10",
        ]
        scan = scan_lines(report)
        timeline = make_timeline([scan], [0])
        (kernel,) = [r for r in scan.reports if r.kind == "klmk"]
        assert kernel.stamp is not None
        (logcat, _) = [timeline.ns(0, r.boot, r.stamp) for r in scan.reports if r.kind == "lmkd" and r.stamp]
        assert timeline.ns(0, kernel.boot, kernel.stamp) - logcat == -30 * NS_PER_S


@pytest.mark.parametrize("gap_s", [0, 9, 61])
def test_the_window(gap_s: int) -> None:
    assert len(merge([told("lmkd", 5.0), told("died", 5.0 + gap_s)])) == (1 if gap_s < 60 else 2)
