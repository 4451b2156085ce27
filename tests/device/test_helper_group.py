"""Kills of a whole cgroup by the real helper, on a cgroup file system made of plain files: real processes die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from lmk.device.helper import HelperStream, RequestRefusedError
from lmk.device.helper_messages import Killed, Signalled
from lmk.device.helper_requests import Kill, Settings
from lmk.device.helper_types import KilledFlag, KillFlag, ReapMethod
from tests.device.test_helper_kill import victim
from tests.fakes.helper_peer import expect, local_helper
from tests.fakes.proc_root import ProcRoot

SETTINGS = Settings(flags=0, failsafe_ms=60_000, main_priority=0, reaper_priority=0)
TICKS = 5


@attrs.frozen
class App:
    """The helper's view of one app: its processes (the first is the one meant), its cgroup's directory."""

    stream: HelperStream
    processes: Sequence[subprocess.Popen[bytes]]
    group: Path
    proc: ProcRoot

    @property
    def pid(self) -> int:
        return self.processes[0].pid

    def kill(self, **how: int) -> Killed:
        request = Kill(pid=self.pid, start_ticks=TICKS, **{"flags": KillFlag.GROUP, **how})
        answer = self.stream.request(request, Signalled)
        assert answer.error == 0
        story = expect(self.stream, Killed)[1]
        assert self.processes[0].wait(10) == -signal.SIGKILL
        return story

    def alive(self) -> list[bool]:
        return [process.poll() is None for process in self.processes]


@contextlib.contextmanager
def app(folder: Path, count: int, path: str = "/apps/uid_10001/pid_{}") -> Iterator[App]:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(victim()) for _ in range(count)]
        proc, pid = ProcRoot(folder / "proc"), processes[0].pid
        proc.add_process(pid, start_ticks=TICKS)
        path = path.format(pid)
        proc.write(f"{pid}/cgroup", f"3:cpuset:/foreground\n0::{path}\n")
        group = folder / "sys/fs/cgroup" / path.lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text("".join(f"{process.pid}\n" for process in processes))
        helper = stack.enter_context(local_helper(folder, proc_root=proc.path))
        yield App(stack.enter_context(helper.connect(SETTINGS)), processes, group, proc)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_without_cgroup_reap_every_member_is_found_killed_and_reaped(tmp_path: Path, count: int) -> None:
    with app(tmp_path, count) as group:
        story = group.kill(method=ReapMethod.AUTO)
        assert [process.wait(10) for process in group.processes] == [-signal.SIGKILL] * count
        assert (story.group_members, story.flags) == (count, 0)
        assert story.method != ReapMethod.CGROUP
        # Each member was reaped by one call, if the kernel has any; ESRCH: its exit was quicker.
        assert story.reap_calls == (0 if story.method == ReapMethod.NONE else count)
        assert story.group_lost <= count
        assert story.reap_error == 0
        assert story.signal_ns <= story.reap_begin_ns <= story.reap_end_ns


@pytest.mark.parametrize("empties", [True, False])
def test_cgroup_reap_is_one_write_and_another_while_somebody_is_left(tmp_path: Path, empties: bool) -> None:
    with app(tmp_path, 2) as group:
        (group.group / "cgroup.reap").write_text("")
        if empties:
            (group.group / "cgroup.procs").write_text("")
        story = group.kill()
        writes = 1 if empties else 3
        assert (group.group / "cgroup.reap").read_text() == "1" * writes
        assert (story.method, story.reap_error, story.reap_calls) == (ReapMethod.CGROUP, 0, writes)
        # Plain files kill nobody: only the process that was named has died.
        assert group.alive() == [False, True]


def test_a_way_can_be_pinned(tmp_path: Path) -> None:
    with app(tmp_path, 2) as group:
        (group.group / "cgroup.reap").write_text("")
        story = group.kill(method=ReapMethod.NONE)
        assert (group.group / "cgroup.reap").read_text() == ""
        assert (story.method, story.group_members, story.reap_calls) == (ReapMethod.NONE, 2, 0)
        assert group.processes[1].wait(10) == -signal.SIGKILL
        with pytest.raises(RequestRefusedError, match="malformed"):
            group.stream.request(Kill(pid=os.getpid(), start_ticks=1, method=ReapMethod.CGROUP), Signalled)


@pytest.mark.parametrize("path", ["/", "/apps", "/apps/uid_10001", "/apps/pid_", "/apps/pid_12x", "/pid_1/../apps"])
def test_a_cgroup_that_is_not_one_apps_own_is_left_alone(tmp_path: Path, path: str) -> None:
    with app(tmp_path, 2, path) as group:
        story = group.kill()
        assert story.flags == KilledFlag.NO_GROUP
        assert group.alive() == [False, True]


def test_the_helpers_own_cgroup_is_never_killed(tmp_path: Path) -> None:
    with app(tmp_path, 2) as group:
        own = group.stream.hello.pid
        group.proc.write(f"{own}/cgroup", f"0::/apps/uid_10001/pid_{group.pid}\n")
        assert group.kill().flags == KilledFlag.NO_GROUP
        assert group.alive() == [False, True]
        assert group.stream.ping().now_ns > 0


def test_without_the_flag_the_others_live(tmp_path: Path) -> None:
    with app(tmp_path, 2) as group:
        assert group.kill(flags=0).group_members == 0
        assert group.alive() == [False, True]
