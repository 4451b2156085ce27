"""The only place that spawns host processes. Every call has a deadline; nothing outlives its parent unasked.

``run`` is for commands that end by themselves. ``spawn_tied`` is for long-lived children (QEMU, an adb
server of our own) that must die with us, also after kill -9: they get PR_SET_PDEATHSIG(SIGKILL) between fork
and exec. PDEATHSIG follows the *thread* that forked, so call ``spawn_tied`` from the main thread.

Both get a process group of their own, which the terminal's Ctrl-C does not reach, but stay in our session: under
CONFIG_SCHED_AUTOGROUP (Debian's default) each session gets an equal share of the CPUs, and a nice value only counts
among the tasks of one session (sched(7)).
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

from lmk.errors import HostError, InfraError

PIPE = subprocess.PIPE
#: A running child, for annotations elsewhere.
Process: TypeAlias = subprocess.Popen[bytes]

_PR_SET_PDEATHSIG = 1
_WAIT_STEP_S = 5.0
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
#: The shortest slice the scheduler takes (kernel/sched/syscalls.c: 0.1 ms).
_SHORT_SLICE_NS = 100_000
_LIBC = ctypes.CDLL(None, use_errno=True)


def require_tool(name: str, package: str) -> str:
    """Absolute path of a host tool; HostError naming the Debian package otherwise."""
    # An ordinary user's PATH lacks the sbin directories, where mke2fs lives.
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise HostError(f"{name} is not installed", f"install it with: apt-get install {package}")
    return found


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    check: bool = True,
    nice: int = 0,
    output: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end. ``check``: a non-zero exit is an InfraError with the last lines of output.

    ``output`` redirects stdout and stderr to a file. The child's whole process group is killed at the deadline. Time in
    which we ourselves cannot run (a suspended machine, a frozen control group) does not count: the child stood still,
    too.
    """
    sink = output if output is not None else subprocess.PIPE
    # A file, not a pipe: Popen.communicate, called again after a timeout, does not write what was left.
    with tempfile.TemporaryFile() as source:
        source.write(stdin or b"")
        source.seek(0)
        process = subprocess.Popen(
            [os.fspath(a) for a in argv],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=source if stdin is not None else subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT if output is not None else subprocess.PIPE,
            preexec_fn=_die_with_parent(nice),
            process_group=0,
        )
    try:
        out, err = _communicate(process, timeout_s)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        process.communicate()
        raise InfraError(
            f"`{_shown(argv)}` did not end within {timeout_s:.0f} s", "see whether the machine is overloaded"
        ) from None
    except BaseException:
        _kill_group(process)
        process.wait()
        raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out or b"", err or b"")
    if check and done.returncode != 0:
        tail = ((done.stdout or b"") + (done.stderr or b"")).decode(errors="replace").strip().splitlines()[-20:]
        raise InfraError(
            f"`{_shown(argv)}` failed with exit code {done.returncode}" + (f": {tail[-1]}" if tail else ""),
            detail="\n".join(tail),
        )
    return done


def _communicate(process: Process, timeout_s: float) -> tuple[bytes | None, bytes | None]:
    """As Popen.communicate, with the time counted in steps that we have waited, not read from a clock."""
    left_s = timeout_s
    while True:
        step_s = min(left_s, _WAIT_STEP_S)
        try:
            return process.communicate(timeout=step_s)
        except subprocess.TimeoutExpired:
            left_s -= step_s
            if left_s <= 0:
                raise


def spawn_tied(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    nice: int = 0,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child that dies with us; the caller ends and reaps it (``stop``)."""
    return subprocess.Popen(
        [os.fspath(a) for a in argv],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        preexec_fn=_die_with_parent(nice),
        process_group=0,
        pass_fds=pass_fds,
    )


def spawn_detached(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    nice: int = 0,
) -> subprocess.Popen[bytes]:
    """Start a child that is meant to outlive us (a registered emulator)."""
    return subprocess.Popen(
        [os.fspath(a) for a in argv],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        preexec_fn=(lambda: _step_back(nice)) if nice else None,
        start_new_session=True,
    )


def run_interactive(argv: Sequence[str | os.PathLike[str]]) -> int:
    """Hand our terminal to a command until it ends; its exit code. Ctrl-C is the command's business."""
    process = subprocess.Popen([os.fspath(a) for a in argv], preexec_fn=_die_with_parent(0))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def stop(process: subprocess.Popen[bytes], *, grace_s: float = 2.0) -> None:
    """SIGTERM, then SIGKILL after the grace; the child is reaped either way."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            process.wait()


class _SchedAttr(ctypes.Structure):
    """struct sched_attr of sched_setattr(2), first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    )


def prefer_latency(pid: int) -> int:
    """Ask for short time slices for every thread of a process of ours; returns how many got them.

    Since Linux 6.12 a waking thread with a shorter slice does not wait for the running one's to end (sched_setattr(2),
    sched_runtime of a SCHED_OTHER thread). It gains no share of the processor and needs no privilege; an older kernel
    takes the request and does nothing.
    """
    number = _SYS_SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return 0
    done = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        thread_id = int(task.name)
        try:
            nice = os.getpriority(os.PRIO_PROCESS, thread_id)
        except ProcessLookupError:
            continue
        attr = _SchedAttr(size=ctypes.sizeof(_SchedAttr), sched_nice=nice, sched_runtime=_SHORT_SLICE_NS)
        done += _LIBC.syscall(number, thread_id, ctypes.byref(attr), 0) == 0
    return done


def _step_back(nice: int) -> None:
    os.nice(nice)
    try:
        # A session of its own is weighed as a whole.
        Path("/proc/self/autogroup").write_text(f"{nice}\n")
    except OSError:
        return  # this kernel has no autogroups


def _die_with_parent(nice: int) -> Callable[[], None]:
    parent = os.getpid()

    def child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl took effect
            os._exit(1)
        if nice:
            os.nice(nice)

    return child


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _shown(argv: Sequence[str | os.PathLike[str]]) -> str:
    text = shlex.join(os.fspath(a) for a in argv)
    return text if len(text) <= 120 else text[:117] + "..."
