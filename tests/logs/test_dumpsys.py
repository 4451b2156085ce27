"""dumpsys, /proc and event records as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmk.logs.captures import Capture, Captures
from lmk.logs.contents import capture_body, resource
from lmk.logs.dumpsys import (
    parse_app_meminfo,
    parse_checkin_meminfo,
    parse_dumpsys_meminfo,
    parse_exit_info,
    parse_lru,
    parse_oom_levels,
    parse_process_record,
)
from lmk.logs.event_lines import KILLINFO_FIELDS, read_am_died, read_am_kill, read_killinfo, read_simple
from lmk.logs.oom_table import parse_oom_table


def test_meminfo_old_and_new_sizes() -> None:
    text = (
        "Total PSS by process:\n    44219 kB: com.example (pid 558)\n     1,024K: two words (pid 7 / activities)\n"
        "Total PSS by OOM adjustment:\n   45,243K: Persistent\n       44219 kB: com.example (pid 558)\n"
        "Total PSS by category:\n    120 kB: Native\n"
        "Total RAM: 998384 kB\n Free RAM: 457877 kB (103001 cached pss + 290516 cached + 64360 free)\n"
    )
    dump = parse_dumpsys_meminfo(text)
    assert [(p.pid, p.name, p.kib, p.group) for p in dump.pss] == [
        (558, "com.example", 44219, "Persistent"),
        (7, "two words", 1024, ""),
    ]
    assert dump.pss_by_group_kib == {"Persistent": 45243}
    assert dump.pss_by_category_kib == {"Native": 120}
    assert dump.ram_kib == {
        "Total RAM": 998384, "Free RAM": 457877, "cached pss": 103001, "cached": 290516, "free": 64360
    }  # fmt: skip


def test_lru_lists_of_all_releases() -> None:
    text = (
        "    Proc # 6: cch+4 B/ /CE trm: 0 1786:android.process.acore/u0a4 (cch-empty)\n"
        "    Proc # 1: svc    B/ /SVC  trm: 0 3225:com.example.tv:remote/u0a76 (started-services)\n"
        "    PERS #101: pers   F/ /PER  LCMNFU  t: 0 3861:com.example.face/1000 (fixed)\n"
        "        oom: max=-800 curRaw=-800 setRaw=-800 cur=-800 set=-800\n"
        "    Proc #71: cch+65 b/ /CEM  ------  t: 0 18299:com.example.media/u0a97 (cch-empty)\n"
        "    #12: cch+15 CEM  ---- 1950:com.example.list/u0a12 act:activities\n"
    )
    found = [(p.pid, p.name, p.label, p.state, p.adj) for p in parse_lru(text)]
    assert found == [
        (1786, "android.process.acore", "cch", "CE", 904),
        (3225, "com.example.tv:remote", "svc", "SVC", None),
        (3861, "com.example.face", "pers", "PER", -800),
        (18299, "com.example.media", "cch", "CEM", 965),
        (1950, "com.example.list", "cch", "CEM", 915),
    ]


def test_process_records_levels_and_exits() -> None:
    record = "  *APP* UID 10069 ProcessRecord{ab12 77:com.example/u0a69}\n"
    record += "    oom adj: max=1001 curRaw=915 setRaw=915 cur=910 set=905\n"
    assert parse_process_record(record) == {
        "pid": 77, "name": "com.example", "owner": "u0a69",
        "max": 1001, "cur_raw": 915, "set_raw": 915, "cur": 910, "set": 905,
    }  # fmt: skip
    assert parse_process_record("ProcessRecord{ab12 77:com.example/u0a69}") is None
    assert parse_oom_levels("  OOM levels:\n    -900: SYSTEM_ADJ (   73,728K)\n    0: FOREGROUND_APP_ADJ ( 1K)\n") == {
        -900: 73728, 0: 1
    }  # fmt: skip
    exit_info = parse_exit_info(
        "   ApplicationExitInfo #0:\n  timestamp=2025-03-02 07:50:00.000 pid=1950 realUid=1\n"
        "  process=com.example reason=3 (LOW_MEMORY) subreason=0 (UNKNOWN) status=0\n"
        "  importance=400 pss=0.00 rss=41MB x\n"
    )
    assert exit_info is not None
    assert (exit_info["pid"], exit_info["reason"], exit_info["reason_text"]) == (1950, 3, "LOW_MEMORY")


def test_checkin_and_single_app() -> None:
    values = ["4", "77", "com.example", *["0"] * 15, "35511", "0"]
    assert [(s.pid, s.kib) for s in parse_checkin_meminfo("time,1,2\n" + ",".join(values))] == [(77, 35511)]
    app = "** MEMINFO in pid 808 [com.example] **\n            (Pss):      483      224     1181     1888\n"
    size = parse_app_meminfo(app)
    assert size is not None
    assert (size.pid, size.name, size.kib) == (808, "com.example", 1888)


def test_oom_tables_of_old_and_new_kernels() -> None:
    old = "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name\n"
    old += "[  77]  1000    77     9000      500   0     -16          -941 two words\n"
    new = (
        "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents "
        "oom_score_adj name\n"
        "[     77]  1000    77     9000      500      400      90       10         4096       30           905 x\n"
    )
    (task,) = parse_oom_table(old)
    assert (task.pid, task.name, task.uid, task.rss_pages, task.oom_score_adj) == (77, "two words", 1000, 500, -941)
    (task,) = parse_oom_table(new)
    assert (task.rss_pages, task.swap_pages, task.oom_score_adj) == (500, 30, 905)


def test_events_of_all_releases() -> None:
    assert read_am_kill("[423,com.example,14,too many background]") == {
        "pid": 423, "name": "com.example", "adj": 14, "reason": "too many background"
    }  # fmt: skip
    assert read_am_kill("[0, 17, com.example, 707, depends on a, b, 3171836]") == {
        "user": 0, "pid": 17, "name": "com.example", "adj": 707, "reason": "depends on a,b", "rss_kib": 3171836
    }  # fmt: skip
    assert read_am_kill("[User=0,PID=17,Process Name=com.example,OomAdj=905,Reason=empty #17,Rss=0]") == {
        "user": 0, "pid": 17, "name": "com.example", "adj": 905, "reason": "empty #17"
    }  # fmt: skip
    assert read_am_died("[0,8846,com.example:x]") == {"user": 0, "pid": 8846, "name": "com.example:x"}
    assert read_am_died("[0,88,com.example,905,19]") == {
        "user": 0, "pid": 88, "name": "com.example", "adj": 905, "state_code": 19
    }  # fmt: skip
    assert read_simple("am_low_memory", "61") == {"processes": 61}
    assert read_simple("am_pss", "[77,10009,com.example,26394624,21225472]") == {
        "pid": 77, "uid": 10009, "name": "com.example", "pss_bytes": 26394624, "uss_bytes": 21225472
    }  # fmt: skip
    for broken in ("", "[", "[0]", "[0,1]", "[x,y,z]", "[0,17,com.example,x,r]"):
        assert read_am_kill(broken) is None


@given(st.integers(25, 40), st.data())
def test_killinfo_of_every_length(length: int, data: st.DataObject) -> None:
    values: list[int | float] = [
        data.draw(st.floats(0, 100)) if name.startswith("psi_") else data.draw(st.integers(-(2**31), 2**31 - 1))
        for name in KILLINFO_FIELDS[:length]
    ]
    text = "[" + ",".join(f"{v:.6f}" if isinstance(v, float) else str(v) for v in values) + "]"
    fields = read_killinfo(text)
    assert fields is not None
    assert [round(float(value), 6) for value in fields.values()] == [round(float(value), 6) for value in values]


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (
        *(read_am_kill, read_am_died, read_killinfo, parse_dumpsys_meminfo, parse_lru, parse_process_record),
        *(parse_oom_levels, parse_exit_info, parse_checkin_meminfo, parse_oom_table, parse_app_meminfo),
    ):
        parse(text)


def test_blocks_end_where_their_text_ends() -> None:
    found: list[Capture] = []
    captures = Captures(found)
    captures.section("MEMORY INFO /proc/meminfo")
    lines = [
        "MemTotal:  10 kB",
        "MemFree:  5 kB",
        "",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=7",
        "something else",
    ]
    taken = [captures.take(n, None, 0, line, None) for n, line in enumerate(lines, 1)]
    captures.end_block()
    assert taken == [True, True, False, True, False]
    assert [(c.kind, c.line, c.source) for c in found] == [
        ("meminfo", 1, "MEMORY INFO /proc/meminfo"),
        ("psi", 4, "MEMORY INFO /proc/meminfo"),
    ]


def test_whose_pressure_it_is() -> None:
    def psi(source: str) -> Capture:
        text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
        return Capture(kind="psi", line=1, stamp=None, boot=0, source=source, text=text)

    sources = ("PSI io /proc/pressure/io", "/proc/pressure/memory", "psi_cpu", "")
    assert [resource(psi(source)) for source in sources] == ["io", "memory", "cpu", ""]
    body = capture_body(psi("psi_cpu"))
    assert body is not None
    assert body["some"]["total_us"] == 7
