"""What a memory killer did, from strace: every file it read, with its text and time, and every signal it sent.

Written by ``strace -f -y -v -qq -ttt -s SIZE``: a line is "PID SECONDS CALL(ARGUMENTS) = RESULT", descriptors carry
their path, and a call during which another thread ran comes in two lines.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

from lmk.units import NS_PER_S, NS_PER_US

CALLS = ("read", "pread64", "close", "getdents64", "kill", "pidfd_send_signal", "write", "pidfd_open")

_LINE = re.compile(r"^(\d+)\s+(\d+)\.(\d{6}) (.*)$")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)", re.DOTALL)
_DESCRIPTOR = re.compile(r"^(-?\d+)(?:<(.*?)>)?(?:, |$)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_NAME = re.compile(r'd_name="((?:[^"\\]|\\.)*)"')
_SIGNAL = {"SIGTERM": 15, "SIGKILL": 9}


@attrs.frozen
class Reading:
    """A file as it was read at a time, or a folder's entries, one a line."""

    t_ns: int
    path: str
    text: str


@attrs.frozen
class Signal:
    """A signal to a process, or (``group``) the end of a whole cgroup by its cgroup.kill."""

    t_ns: int
    signal: int
    pid: int | None = None
    group: str | None = None


@attrs.frozen
class Trace:
    """Both in order of time; nanoseconds of the device's wall clock."""

    readings: tuple[Reading, ...]
    signals: tuple[Signal, ...]
    end_ns: int


def parse_trace(text: str) -> Trace:
    """Lines that say something else are passed over."""
    readings: list[Reading] = []
    signals: list[Signal] = []
    open_files: dict[tuple[int, str], _Open] = {}
    pidfds: dict[tuple[int, str], int] = {}
    t_ns = 0
    for pid, t_ns, call in _calls(text.splitlines()):
        found = _CALL.match(call)
        if found is None:
            continue
        name, arguments, result = found[1], found[2], found[3]
        if name == "pidfd_open":
            pidfds[pid, result] = int(arguments.split(",")[0])
        elif name in ("kill", "pidfd_send_signal", "write"):
            own = {number: of for (thread, number), of in pidfds.items() if thread == pid}
            signals += _signal(name, arguments, result, t_ns, own)
        elif name in ("read", "pread64", "getdents64", "close"):
            readings += _read(open_files, pid, name, arguments, result, t_ns)
    readings += [file.reading() for file in open_files.values() if file.chunks]
    return Trace(tuple(sorted(readings, key=lambda reading: reading.t_ns)), tuple(signals), t_ns)


@attrs.define
class _Open:
    """A file being read: its chunks so far."""

    path: str
    t_ns: int
    chunks: list[str] = attrs.field(factory=list)

    def reading(self) -> Reading:
        return Reading(self.t_ns, self.path, "".join(self.chunks))


def _calls(lines: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """(thread, time, call) with halves put together; the time is that of the beginning."""
    waiting: dict[int, tuple[int, str]] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        pid = int(found[1])
        t_ns = int(found[2]) * NS_PER_S + int(found[3]) * NS_PER_US
        rest = found[4]
        if rest.endswith(_UNFINISHED):
            waiting[pid] = t_ns, rest.removesuffix(_UNFINISHED)
        elif _RESUMED.match(rest) and pid in waiting:
            began_ns, head = waiting.pop(pid)
            yield pid, began_ns, head + _RESUMED.sub("", rest)
        else:
            yield pid, t_ns, rest


def _signal(name: str, arguments: str, result: str, t_ns: int, pidfds: Mapping[str, int]) -> list[Signal]:
    if result.startswith("-"):
        return []
    if name == "write":
        found = _DESCRIPTOR.match(arguments)
        if found is None or found[2] is None or not found[2].endswith("/cgroup.kill"):
            return []
        group = found[2].removesuffix("/cgroup.kill").removeprefix("/sys/fs/cgroup")
        return [Signal(t_ns, 9, group=group)]
    signal = next((number for word, number in _SIGNAL.items() if word in arguments), None)
    if signal is None:
        return []
    if name == "kill":
        return [Signal(t_ns, signal, pid=abs(int(arguments.split(",")[0])))]
    descriptor = _DESCRIPTOR.match(arguments)
    pid = pidfds.get(descriptor[1]) if descriptor else None
    return [Signal(t_ns, signal, pid=pid)] if pid is not None else []


def _read(
    files: dict[tuple[int, str], _Open], pid: int, name: str, arguments: str, result: str, t_ns: int
) -> list[Reading]:
    """What this call completes: a file is whole at its end, when it is closed, or when it is read from the start."""
    found = _DESCRIPTOR.match(arguments)
    if found is None or found[2] is None or not found[2].startswith(("/proc", "/sys/fs/cgroup")):
        return []
    key = pid, found[1]
    done: list[Reading] = []
    file = files.get(key)
    if file is not None and (name == "close" or result == "0" or file.path != found[2] or arguments.endswith(", 0")):
        done = [files.pop(key).reading()]
        file = None
    if name == "close" or result == "0" or result.startswith("-"):
        return done
    if file is None:
        file = files[key] = _Open(found[2], t_ns)
    if name == "getdents64":
        file.chunks += [f"{_unescaped(entry)}\n" for entry in _NAME.findall(arguments)]
    else:
        string = _STRING.search(arguments)
        file.chunks.append(_unescaped(string[1]) if string else "")
    return done


def _unescaped(text: str) -> str:
    return codecs.escape_decode(text.encode())[0].decode("utf-8", "replace")
