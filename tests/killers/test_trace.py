"""Lines of strace become readings and signals."""

from __future__ import annotations

from lmk.killers.trace import Reading, Signal, parse_trace

BASE_NS = 1_795_653_161_000_000_000


def trace(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_a_file_is_whole_at_its_end_or_when_it_is_closed() -> None:
    found = parse_trace(
        trace(
            '9 1795653161.000001 read(3</proc/meminfo>, "MemTotal: 1 kB\\nMem", 18) = 18',
            '9 1795653161.000002 read(3</proc/meminfo>, "Free: 1 kB\\n", 18) = 11',
            '9 1795653161.000003 read(3</proc/meminfo>, "", 18) = 0',
            '9 1795653161.000004 read(4</proc/7/stat>, "7 (a \\"b\\") S 1\\n", 1024) = 14',
            "9 1795653161.000005 close(4</proc/7/stat>) = 0",
        )
    )
    assert found.readings == (
        Reading(BASE_NS + 1000, "/proc/meminfo", "MemTotal: 1 kB\nMemFree: 1 kB\n"),
        Reading(BASE_NS + 4000, "/proc/7/stat", '7 (a "b") S 1\n'),
    )
    assert found.end_ns == BASE_NS + 5000


def test_calls_that_another_thread_interrupted_are_put_together() -> None:
    found = parse_trace(
        trace(
            "9 1795653161.000001 read(3</proc/swaps>,  <unfinished ...>",
            '10 1795653161.000002 read(5</proc/vmstat>, "a 1\\n", 99) = 4',
            '9 1795653161.000003 <... read resumed>"Filename\\n", 99) = 9',
            "9 1795653161.000004 close(3</proc/swaps>) = 0",
            "10 1795653161.000005 close(5</proc/vmstat>) = 0",
        )
    )
    assert [(r.path, r.text) for r in found.readings] == [("/proc/swaps", "Filename\n"), ("/proc/vmstat", "a 1\n")]


def test_the_entries_of_a_folder() -> None:
    entries = '[{d_ino=1, d_type=DT_DIR, d_name="."}, {d_ino=2, d_type=DT_DIR, d_name="uid_1"}]'
    found = parse_trace(
        trace(
            f"9 1795653161.000001 getdents64(3</sys/fs/cgroup/apps>, {entries}, 32768) = 48",
            "9 1795653161.000002 getdents64(3</sys/fs/cgroup/apps>, [], 32768) = 0",
        )
    )
    assert [(r.path, r.text) for r in found.readings] == [("/sys/fs/cgroup/apps", ".\nuid_1\n")]


def test_every_way_to_kill() -> None:
    found = parse_trace(
        trace(
            "9 1795653161.000001 kill(95, SIGTERM) = 0",
            "9 1795653161.000002 kill(96, 0) = 0",
            "9 1795653161.000003 kill(97, SIGKILL) = -1 ESRCH (No such process)",
            "9 1795653161.000004 pidfd_open(98, 0) = 4<anon_inode:[pidfd]>",
            "9 1795653161.000004 pidfd_send_signal(4<anon_inode:[pidfd]>, 0, NULL, 0) = 0",
            "9 1795653161.000004 pidfd_send_signal(4<anon_inode:[pidfd]>, SIGKILL, NULL, 0) = 0",
            '9 1795653161.000005 write(4</sys/fs/cgroup/apps/a/cgroup.kill>, "1", 1) = 1',
            '9 1795653161.000006 write(2</dev/log>, "words", 5) = 5',
        )
    )
    assert found.signals == (
        Signal(BASE_NS + 1000, 15, pid=95),
        Signal(BASE_NS + 4000, 9, pid=98),
        Signal(BASE_NS + 5000, 9, group="/apps/a"),
    )


def test_noise_is_passed_over() -> None:
    text = trace("# a log line", "9 1795653161.000001 --- SIGTERM {si_signo=SIGTERM} ---", "9 x read(3", "+++ exited")
    found = parse_trace(text)
    assert (found.readings, found.signals) == ((), ())
