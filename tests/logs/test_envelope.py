"""One message in every form logs put it in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.logs.envelope import KERNEL, LINE_CHARS_MAX, LOGCAT, parse_line
from lmk.logs.printk import kernel_prefix
from lmk.logs.scan import scan_lines
from lmk.logs.stamp import WALL, Stamp, in_year, wall_stamp
from lmk.units import NS_PER_S

TEXT = (
    "Kill 'com.example' (4101), uid 10101, oom_score_adj 915 to free 4kB rss, 2kB swap; "
    "reason: low watermark is breached"
)

#: logcat -v FORMAT and what tools make of it.
FORMS = {
    "threadtime": "03-02 08:00:05.000   501   501 I lowmemorykiller: {}",
    "threadtime usec": "03-02 08:00:05.000123   501   501 I lowmemorykiller: {}",
    "year": "2025-03-02 08:00:05.000   501   501 I lowmemorykiller: {}",
    "year zone": "2025-03-02 08:00:05.000 +0100   501   501 I lowmemorykiller: {}",
    "UTC": "03-02 08:00:05.000 +0000   501   501 I lowmemorykiller: {}",
    "uid": "03-02 08:00:05.000  lmkd   501   501 I lowmemorykiller: {}",
    "uid number": "03-02 08:00:05.000  1069   501   501 I lowmemorykiller: {}",
    "uid colon": "03-02 08:00:05.000  1069:   501   501 I lowmemorykiller: {}",
    "epoch": "1740902405.000   501   501 I lowmemorykiller: {}",
    "epoch padded": "      1740902405.000   501   501 I lowmemorykiller: {}",
    "monotonic": "     1234.567   501   501 I lowmemorykiller: {}",
    "time": "03-02 08:00:05.000 I/lowmemorykiller(  501): {}",
    "time no pid": "03-02 08:00:05.000  I/lowmemorykiller: {}",
    "brief": "I/lowmemorykiller(  501): {}",
    "tag": "I/lowmemorykiller: {}",
    "process": "I(  501) {}  (lowmemorykiller)",
    "thread": "I(  501:  501) {}",
    "raw": "{}",
    "colour": "\x1b[38;5;40m03-02 08:00:05.000   501   501 I lowmemorykiller: {}\x1b[0m",
    "IDE, old": "2025-03-02 08:00:05.000 501-501/? I/lowmemorykiller: {}",
    "IDE": "2025-03-02 08:00:05.000   501-501   lowmemorykiller         lmkd                 I  {}",
    "IDE table": "03-02 08:00:05.000\tEXAMPLE ONE\tInfo\t501\tlowmemorykiller\t{}",
    "platform log id": "M027042  03-02 08:00:05.000   501   501 I lowmemorykiller: {}",
    "runner": "2025-03-02T09:00:00.1234567Z 03-02 08:00:05.000   501   501 I lowmemorykiller: {}",
    "carriage return": "03-02 08:00:05.000   501   501 I lowmemorykiller: {}\r",
    "two carriage returns": "03-02 08:00:05.000   501   501 I lowmemorykiller: {}\r\r",
    "quoted": "> 03-02 08:00:05.000   501   501 I lowmemorykiller: {}",
    "collector": ",03-02 08:00:05.000   501   501 I lowmemorykiller: {}",
    "list": "* `lowmemorykiller: {}",
    "bare tag": "    lowmemorykiller: {}",
}
PRINTK = {
    "dmesg": "[  100.000001] {}",
    "dmesg -r": "<6>[  100.000001] {}",
    "level": "<6>{}",
    "dmesg -x": "kern  :info  : [  100.000001] {}",
    "dmesg -T": "[Sat Jun  8 01:41:08 2024] {}",
    "dmesg -d": "[  100.000001 <    0.000002>] {}",
    "caller": "[  100.000001][  T168] {}",
    "cpu": "<4>[  100.000001@2] {}",
    "Samsung": "<6>[  100.000001]  [7:        kswapd0:  168] {}",
    "MediaTek": "<6>[  100.000001] -(3)[168:kswapd0]{}",
    "OPPO": "[  100.000001] (4)[168:kswapd0][20230803_16:58:31.183621]@4 {}",
    "kmsg": "6,2302,100000001,-;{}",
    "syslog": "Mar  2 08:00:05 host kernel: [  100.000001] {}",
    "logcat": "03-02 08:00:05.000     0     0 I         : {}",
    "logcat with stamp": "03-02 08:00:05.000     0     0 I         : [  100.000001] {}",
}
KERNEL_TEXT = "oom_reaper: reaped process 77 (some.app), now anon-rss:0kB, file-rss:4kB, shmem-rss:0kB"


@pytest.mark.parametrize("form", FORMS)
def test_a_kill_is_found_in_every_format(form: str) -> None:
    result = scan_lines([FORMS[form].format(TEXT)])
    (report,) = result.reports
    assert (report.kind, report.shape, report.pid, report.name, report.uid) == (
        "lmkd",
        "K5",
        4101,
        "com.example",
        10101,
    )
    assert (report.adj, report.rss_kib, report.swap_kib, report.reason) == (915, 4, 2, "low watermark is breached")
    assert result.unknown == []


@pytest.mark.parametrize("form", FORMS)
def test_level_tag_and_pid(form: str) -> None:
    if form in ("raw", "thread", "list", "bare tag"):
        return
    line = parse_line(FORMS[form].format(TEXT))
    assert (line.tag, line.level, line.text.rstrip()) == ("lowmemorykiller", "I", TEXT)
    assert line.origin == LOGCAT
    assert line.pid == (None if form in ("tag", "time no pid") else 501)


@pytest.mark.parametrize("form", PRINTK)
def test_kernel_prefixes(form: str) -> None:
    line = parse_line(PRINTK[form].format(KERNEL_TEXT))
    assert (line.origin, line.text) == (KERNEL, KERNEL_TEXT)
    (report,) = scan_lines([PRINTK[form].format(KERNEL_TEXT)]).reports
    assert (report.kind, report.pid, report.name) == ("reap", 77, "some.app")
    assert (report.stamp is None) == (form == "level")


def test_the_blanks_of_a_further_line_stay() -> None:
    found = kernel_prefix("<6>[  100.000001]    to free 4kB")
    assert found is not None
    assert found.text == "   to free 4kB"


def test_long_format() -> None:
    log = [
        "[ 03-02 08:00:05.000   501:  501 I/lowmemorykiller ]",
        TEXT,
        "",
        "[ 03-02 08:00:06.000  1: 2 I/Other ]",
        "x",
        "",
    ]
    (report,) = scan_lines(log).reports
    assert (report.pid, report.line) == (4101, 2)
    assert report.stamp == Stamp(ns=((31 + 29 + 1) * 86400 + 8 * 3600 + 5) * NS_PER_S, dated=False)


def test_tag_without_colon() -> None:
    line = parse_line("06-25 18:58:59.000534 499   499   1069   D lowmemorykiller Zone Normal: free:0 high:0 x")
    assert (line.tag, line.text) == ("lowmemorykiller", "Zone Normal: free:0 high:0 x")


def test_numbers_for_event_tags() -> None:
    (report,) = scan_lines(["03-02 08:00:05.000  1601  1733 I [30023]: [0,77,com.example,905,empty #17]"]).reports
    assert (report.kind, report.pid, report.reason) == ("am_kill", 77, "empty #17")
    (report,) = scan_lines(["03-02 08:00:05.000   501   501 I [10195355]: [77,10001,905]"]).reports
    assert (report.kind, report.uid) == ("killinfo", 10001)


@pytest.mark.parametrize(
    ("stamp", "anchor", "expected"),
    [
        ("12-31 23:59:00", "2025-01-02 00:00:00", "2024-12-31 23:59:00"),
        ("01-01 00:01:00", "2025-01-02 00:00:00", "2025-01-01 00:01:00"),
        ("02-29 12:00:00", "2026-05-01 00:00:00", "2024-02-29 12:00:00"),
        ("01-02 12:00:00", "2025-01-02 00:00:00", "2025-01-02 12:00:00"),
        ("2019-07-01 00:00:00", "2025-01-02 00:00:00", "2019-07-01 00:00:00"),
    ],
)
def test_the_year_is_the_last_possible_one(stamp: str, anchor: str, expected: str) -> None:
    def parsed(text: str) -> Stamp:
        found = WALL.match(text)
        assert found is not None
        result = wall_stamp(found)
        assert result is not None
        return result

    assert in_year(parsed(stamp), parsed(anchor).ns) == parsed(expected).ns


@pytest.mark.parametrize("text", ["13-01 00:00:00", "02-30 00:00:00", "01-01 24:00:00", "2025-02-29 00:00:00"])
def test_no_such_moment(text: str) -> None:
    found = WALL.match(text)
    assert found is not None
    assert wall_stamp(found) is None


@given(st.text(max_size=300))
def test_any_text_is_a_line(text: str) -> None:
    line = parse_line(text)
    assert len(line.text) <= LINE_CHARS_MAX


@given(st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(PRINTK)), st.data())
def test_damaged_envelopes(form: str, kernel: str, data: st.DataObject) -> None:
    line = data.draw(st.sampled_from([FORMS[form].format(TEXT), PRINTK[kernel].format(KERNEL_TEXT)]))
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, len(line)))
    parse_line(line[start:end])
