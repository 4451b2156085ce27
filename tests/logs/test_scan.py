"""What is made of lines: the sample logs shape by shape, cut and wrapped records, and that nothing is dropped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.logs.lmkd_lines import reason_code
from lmk.logs.report import KINDS
from lmk.logs.scan import FileScan, scan_lines
from lmk.policy.lmkd.kill_reason import KillReason

DATA = Path(__file__).resolve().parent.parent / "data" / "logs"


def sample(name: str) -> FileScan:
    return scan_lines((DATA / name).read_text().split("\n"), name)


def kinds(scan: FileScan, kind: str) -> list[tuple[str, int | None, str | None]]:
    return [(report.shape, report.pid, report.name) for report in scan.reports if report.kind == kind]


class TestLmkd:
    """tests/data/logs/lmkd.log has one line of each shape."""

    def test_every_wording(self) -> None:
        expected = [(f"K{n}", 4100 + n, f"com.example.k{n}") for n in range(1, 9)]
        expected[4] = ("K5", 4105, "com.example.k5:remote")
        expected += [("K5", 4109, "<pre-initialized>"), ("K?", 4110, "com.example.cut")]
        assert kinds(sample("lmkd.log"), "lmkd") == expected

    def test_sizes(self) -> None:
        lmkd = [r for r in sample("lmkd.log").reports if r.kind == "lmkd"]
        assert [r.rss_kib for r in lmkd] == [40100, 40200, 40300, 40400, 40500, 40600, 40700, 40800, 40900, None]
        assert [r.swap_kib for r in lmkd] == [None, None, None, 4400, 4500, 4600, 4700, 4800, 0, None]
        assert lmkd[0].min_adj == 800
        assert lmkd[6].extra["anon_kib"] == 30700
        assert (lmkd[5].extra["dmabuf_pss_kib"], lmkd[5].extra["dmabuf_rss_kib"]) == (61, 62)
        assert lmkd[7].extra["state_code"] == 19

    def test_a_number_that_may_be_cut_is_not_believed(self) -> None:
        cut = [r for r in sample("lmkd.log").reports if r.kind == "lmkd"][-1]
        assert (cut.uid, cut.adj) == (10110, None)

    def test_killinfo(self) -> None:
        (info,) = [r for r in sample("lmkd.log").reports if r.kind == "killinfo"]
        assert (info.shape, info.pid, info.min_adj, info.reason_code, info.swap_kib) == ("I38", 4105, 201, 3, 4500)
        assert info.extra["psi_cpu_some"] == 9.0
        assert info.extra["free_kib"] == 50000

    def test_activity_manager(self) -> None:
        scan = sample("lmkd.log")
        assert kinds(scan, "am_kill") == [("am_kill", 4111, "com.example.old")]
        assert kinds(scan, "am_text") == [("A1", 4111, "com.example.old"), ("A2", 4112, "com.example.moto")]
        assert kinds(scan, "phantom") == [("P1", 4113, "bash")]
        assert [(r.pid, r.adj, r.extra["state"]) for r in scan.reports if r.kind == "died"] == [
            (4105, 925, "CEM"),
            (4114, None, "TOP"),
        ]
        (rss,) = [r.rss_kib for r in scan.reports if r.kind == "am_kill"]
        assert rss == 45678

    def test_unknown_lines_are_kept_with_their_reason(self) -> None:
        assert [(u.line, u.why) for u in sample("lmkd.log").unknown] == [
            (23, "lmkd speaks of killing"),
            (31, "a malformed am_kill event"),
        ]

    def test_lines_that_only_sound_like_kills(self) -> None:
        assert sample("lmkd.log").others == {"cached": 1, "skipped": 1, "mrelease": 1, "reclaimed": 1, "enough": 1}


class TestKernel:
    """tests/data/logs/kernel.log."""

    def test_driver(self) -> None:
        assert sorted(kinds(sample("kernel.log"), "klmk")) == [
            ("L1", 5102, "old-scale"),
            ("L1", 5107, "next-boot"),
            ("L2", 5101, ".example.kernel"),
            ("L5", 5103, "one.line"),
        ]

    def test_further_lines_with_others_between(self) -> None:
        (kill,) = [r for r in sample("kernel.log").reports if r.pid == 5101]
        assert (kill.adj, kill.rss_kib, kill.min_adj) == (906, 45100, 606)
        assert (kill.extra["cache_kib"], kill.extra["limit_kib"]) == (694804, 322560)
        assert (kill.extra["above_reserved_kib"], kill.extra["free_cma_kib"], kill.extra["gfp"]) == (-1820, 20, "0xd0")

    def test_escaped_line_ends(self) -> None:
        (kill,) = [r for r in sample("kernel.log").reports if r.pid == 5103]
        assert (kill.rss_kib, kill.min_adj, kill.extra["who"]) == (27320, 1000, "kswapd0")

    def test_oom_killer(self) -> None:
        assert kinds(sample("kernel.log"), "oom") == [
            ("O4", 5104, "example.big"),
            ("O3", 5104, "example.big"),
            ("O1", 5105, "older"),
            ("O2", 5105, "older"),
        ]
        assert kinds(sample("kernel.log"), "reap") == [("R1", 5104, "example.big"), ("R1", 5106, "alone")]

    def test_a_child_that_was_sacrificed_is_one_kill(self) -> None:
        lines = [
            "[1.0] Out of memory: Kill process 100 (parent) score 5 or sacrifice child",
            "[1.0] Killed process 101 (child) total-vm:1kB, anon-rss:1kB, file-rss:1kB",
        ]
        assert [(r.shape, r.pid, r.name) for r in scan_lines(lines).reports] == [
            ("O1", 101, None),
            ("O2", 101, "child"),
        ]
        (alone,) = scan_lines(lines[:1]).reports
        assert (alone.pid, alone.name) == (100, "parent")

    def test_boots(self) -> None:
        scan = sample("kernel.log")
        assert scan.boots == 2
        assert {r.pid: r.boot for r in scan.reports}[5107] == 1


@pytest.mark.parametrize(
    ("lines", "shape", "reason"),
    [
        (
            [
                "lowmemorykiller: Kill 'com.example' (77), uid 10118, oom_score_adj 0",
                "  to free 538508kB rss, 480220kB swap;",
                "  reason: min watermark is breached and swap is low (32kB < 64808kB)",
            ],
            "K5",
            "min watermark is breached and swap is low (32kB < 64808kB)",
        ),
        (
            [
                "    lowmemorykiller: Kill 'com.example' (77), uid 10230, oom_score_adj 0",
                "      to free 218864kB rss, 121616kB anon rss, 32012kB swap, 0kB dmabuf_pss,",
                "      0kB dmabuf_rss; reason: min watermark is breached and swap is low",
                "      (35360kB < 37744kB)",
            ],
            "K7",
            "min watermark is breached and swap is low (35360kB < 37744kB)",
        ),
        (
            [
                "08-18 15:07:53.213  I/lmkd: Reclaim 'com.example' (77), uid 11227,",
                "                    oom_score_adj 905, state 19 to free 162172kB rss, 31032kB swap;",
                "                    reason: low watermark is breached and swap is low",
            ],
            "K8",
            "low watermark is breached and swap is low",
        ),
    ],
)
def test_records_wrapped_by_hand(lines: list[str], shape: str, reason: str) -> None:
    (report,) = scan_lines([*lines, "…", "  and what somebody wrote about it"]).reports
    assert (report.shape, report.pid, report.reason) == (shape, 77, reason)


@pytest.mark.parametrize(
    ("line", "kind", "shape", "pid"),
    [
        ("09-07 01:55:44.851 I lowmemorykiller: Kill 'a.b' (77), uid 1, oom_score_adj 0 "
         "to free 3kB rss, 0kB swap", "lmkd", "K4", 77),
        ("09-07 01:54:50.502 I am_kill : [0,77,a.b,0,stop a.b due to clear data,469716]", "am_kill", "am_kill", 77),
        ("23:54:11.386 lmkd: Reclaim 'a.b' (77), oom_score_adj 700, state 15 "
         "to free 1kB rss, 1kB swap", "lmkd", "K8", 77),
        ("[dim. 19 avril 18:03:32 2026] oom_reaper: reaped process 77 (colmap), "
         "now anon-rss:0kB, file-rss:1kB", "reap", "R1", 77),
        ("[Kernel dmesg] [18492.104] Memory cgroup out of memory: Killed process 77 (x) "
         "total-vm:1kB, anon-rss:1kB, file-rss:1kB",
         "oom", "O3m", 77),
        ("oom_reaper: reaped process 77 (.apps.nbu.files)", "reap", "R1", 77),
        ("[1.5] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=chromium,pid=77,uid=1000", "oom", "O4", 77),
        ("3,103,1003,-;Out of memory: Killed process 77 (micd)", "oom", "O2", 77),
        ("17:40:35.190  236  236 I killinfo: [77,10163,101,0,130984,-1,198012,984136,...]", "killinfo", "I8", 77),
        ("09-23 16:17:09.895  killinfo: [com.termux,77,10365,200,101,111148,259,15373988,...]", "killinfo", "I8", 77),
    ],
)  # fmt: skip
def test_lines_as_people_quote_them(line: str, kind: str, shape: str, pid: int) -> None:
    result = scan_lines([line])
    assert [(r.kind, r.shape, r.pid) for r in result.reports] == [(kind, shape, pid)]
    assert result.unknown == []


def test_an_elision_in_the_middle_keeps_the_reason() -> None:
    line = "lowmemorykiller: Kill 'a.b' (77), uid 1, oom_score_adj 500 to free 1kB rss, 2kB swap... "
    line += "reason: device is not responding"
    (report,) = scan_lines([line]).reports
    assert (report.reason, report.reason_code) == ("device is not responding", 1)


def test_two_lines_in_a_log_that_runs_backwards() -> None:
    head = "10-05 14:55:06.456\tEXAMPLE\tInfo\t558\tlowmemorykiller\t"
    lines = [
        head + "   to free 9kB because system is under medium memory pressure oom_adj 800",
        head + "Killing 'com.example' (77), uid 10098, adj 905",
    ]
    scan = scan_lines(lines)
    assert [(r.pid, r.rss_kib, r.min_adj) for r in scan.reports] == [(77, 9, 800)]
    assert scan.unknown == []


def test_reasons_have_todays_numbers() -> None:
    assert reason_code("device is not responding") == KillReason.NOT_RESPONDING
    assert reason_code("low watermark is breached") == KillReason.LOW_MEM
    assert reason_code("min2x watermark is breached and swap is low (1kB < 2kB)") == KillReason.LOW_MEM_AND_SWAP
    assert reason_code("device is low on swap (1kB < 2kB) and thrashing (304%)") == KillReason.LOW_SWAP_AND_THRASHING
    assert reason_code("PSI critical event") is None
    assert reason_code("whatever a vendor writes") is None


#: Text whose presence makes a line one about killing, by the words of docs/import.md.
KILL_LIKE = re.compile(r"Kill(?:ing)? '|Reclaim '|Killed process|send sigkill|am_kill|am_proc_died|has died|Killing \d")


def accounted(line: str) -> bool:
    scan = scan_lines([line])
    return bool(scan.reports or scan.unknown or scan.others)


def kill_lines() -> list[str]:
    lines = [line for name in ("lmkd.log", "kernel.log") for line in (DATA / name).read_text().split("\n")]
    return [line for line in lines if KILL_LIKE.search(line)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(kill_lines()), st.data())
def test_a_kill_line_cut_anywhere_is_parsed_or_unknown(line: str, data: st.DataObject) -> None:
    found = KILL_LIKE.search(line)
    assert found is not None
    cut = line[: data.draw(st.integers(found.end(), len(line)))]
    assert accounted(cut), cut


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(kill_lines()),
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20),
    st.data(),
)
def test_a_kill_line_with_garbage_in_it_is_parsed_or_unknown(line: str, garbage: str, data: st.DataObject) -> None:
    found = KILL_LIKE.search(line)
    assert found is not None
    at = data.draw(st.integers(found.end(), len(line)))
    assert accounted(line[:at] + garbage + line[at:])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(kill_lines()), max_size=12))
def test_every_line_of_any_mixture_is_accounted_for(lines: list[str]) -> None:
    whole = scan_lines(lines)
    alone = [scan_lines([line]) for line in lines]
    for kind in KINDS:
        assert whole.counts()[kind] == sum(scan.counts()[kind] for scan in alone)
    assert len(whole.unknown) == sum(len(scan.unknown) for scan in alone)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=80), st.sampled_from(kill_lines())), max_size=8))
def test_any_text_can_be_scanned(lines: list[str]) -> None:
    scan = scan_lines(lines)
    assert scan.lines == len(lines)
    numbers = [report.line for report in scan.reports] + [line.line for line in scan.unknown]
    numbers += [line.line for line in scan.kept] + [capture.line for capture in scan.captures]
    assert all(1 <= number <= len(lines) for number in numbers)
