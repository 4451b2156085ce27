"""Answer the policy's reads from what came with the wake-up, and fetch the rest in as few round trips as possible.

One instance serves one wake-up after another: ``begin`` drops everything and takes the snapshot that came with the
event. Reads have no effect on the device (lmk.policy.api), so fetching more than was asked is always right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from lmk.device import helper_messages as m
from lmk.device import helper_requests as r
from lmk.device.helper_types import FileId, FileOp, FileText, PidEntry, PidField, PidText, Snapshot
from lmk.policy.api import FileError
from lmk.policy.lmkd.memory import VENDOR_VMSTAT_FIELDS
from lmk.record import counters

SAMPLE_FILES = {
    "/proc/meminfo": FileId.MEMINFO,
    "/proc/vmstat": FileId.VMSTAT,
    "/proc/zoneinfo": FileId.ZONEINFO,
    "/proc/pressure/memory": FileId.PSI_MEMORY,
    "/proc/pressure/io": FileId.PSI_IO,
    "/proc/pressure/cpu": FileId.PSI_CPU,
}
#: What every sample carries. zoneinfo is half of a sample's cost and lmkd looks at it once a minute: on demand.
SAMPLE_MASK = sum(1 << f for f in SAMPLE_FILES.values() if f is not FileId.ZONEINFO)
#: All that the policy and the record look for in /proc/vmstat: the rest of it would be half of a sample's bytes.
VMSTAT_NAMES = ",".join(dict.fromkeys((*VENDOR_VMSTAT_FIELDS, *counters.VMSTAT_NAMES)))
PID_FILES = {
    "status": PidField.STATUS,
    "cmdline": PidField.CMDLINE,
    "stat": PidField.STAT,
    "statm": PidField.STATM,
    "cgroup": PidField.CGROUP,
}
#: A kill reads these of its victim one after another.
VICTIM_FIELDS = sum(1 << PID_FILES[name] for name in ("status", "cmdline", "stat"))
_OPS = {FileOp.OPEN: "open", FileOp.IO: "read", FileOp.REFUSED: "open"}
#: How many likely victims come with each sample. One is enough for nearly every kill: cached apps differ in their
#: scores. Each costs the device three files and the way to the host another 2 KB.
CANDIDATES = 1


def candidate_fields(*, per_app_memcg: bool) -> int:
    """What every sample carries of the likely victims; with per-app memory cgroups lmkd reads memory.stat too."""
    return VICTIM_FIELDS | (1 << PidField.MEMCG_STAT if per_app_memcg else 0)


_Answer = TypeVar("_Answer")


class Asker(Protocol):
    """The part of the helper stream that is needed here."""

    def request(self, message: r.Request, answer: type[_Answer]) -> _Answer:
        """Send and wait for the answer; raises DeviceLostError, HelperError."""


class _Nobody:
    def request(self, message: r.Request, answer: type[_Answer]) -> _Answer:
        raise AssertionError(f"a finished sample cannot ask for {message} ({answer})")


_NOBODY = _Nobody()


class SampledFiles:
    """Files of the device during one wake-up.

    ``sampled_ns`` and ``complete_ns``: device time at which the sample was begun and over, 0 if none was taken.
    """

    def __init__(self, stream: Asker, candidate_fields: int = VICTIM_FIELDS) -> None:
        self._stream = stream
        self._candidate_fields = candidate_fields
        self._files: dict[int, FileText] = {}
        self._pids: dict[int, PidEntry] = {}
        self._sizes: dict[int, str | FileError] = {}
        self.sampled_ns = self.complete_ns = 0

    @classmethod
    def of(cls, snapshot: Snapshot) -> SampledFiles:
        """Just this snapshot; asking for anything else raises."""
        files = cls(_NOBODY)
        files.begin(snapshot)
        return files

    def begin(self, snapshot: Snapshot | None) -> None:
        """A new wake-up; ``snapshot`` came with its event."""
        self._files.clear()
        self._pids.clear()
        self._sizes.clear()
        self.sampled_ns = self.complete_ns = 0
        if snapshot is not None:
            self._take(snapshot)

    def read(self, path: str) -> str | FileError:
        """A whole file."""
        file = SAMPLE_FILES.get(path)
        if file is None:
            answer = self._stream.request(r.GetFiles(paths=(path,)), m.Files)
            return _file_answer(answer.files[0])
        if file not in self._files:
            mask = SAMPLE_MASK if not self.sampled_ns else 0
            ask = r.GetSample(files=mask | 1 << file, candidates=CANDIDATES, candidate_fields=self._candidate_fields)
            sample = self._stream.request(ask, m.Sample)
            self._take(sample)
        return _file_answer(self._files[file])

    def text(self, file: FileId) -> str | None:
        """A file of the present sample, without asking the device; None if it has none."""
        entry = self._files.get(file)
        return None if entry is None or entry.error else _decode(entry.data)

    def read_process(self, pid: int, name: str) -> str | FileError:
        """One file of a process, from its entry; the whole entry is fetched at once."""
        field = PID_FILES[name]
        entry = self._pids.get(pid)
        found = entry.text(field) if entry is not None else None
        if found is None:
            answer = self._stream.request(r.GetProc(fields=VICTIM_FIELDS | 1 << field, pids=(pid,)), m.Proc)
            self._pids[pid] = answer.entries[0]
            found = answer.entries[0].text(field)
        assert found is not None
        return _pid_answer(found)

    def memcg_stat(self, pid: int) -> str | FileError | None:
        """memory.stat of a process's group if it came with the sample."""
        entry = self._pids.get(pid)
        found = entry.text(PidField.MEMCG_STAT) if entry is not None else None
        return None if found is None else _pid_answer(found)

    def read_sizes(self, pids: Sequence[int]) -> list[str | FileError]:
        """statm of every pid, in one round trip."""
        missing = tuple(pid for pid in pids if pid not in self._sizes)
        if missing:
            answer = self._stream.request(r.GetSizes(pids=missing), m.Sizes)
            for entry in answer.entries:
                error = FileError(_OPS[FileOp(entry.op)], entry.error) if entry.error else None
                self._sizes[entry.pid] = error or entry.statm
        return [self._sizes[pid] for pid in pids]

    def start_ticks(self, pid: int) -> int | None:
        """Start time of a process whose entry is at hand."""
        entry = self._pids.get(pid)
        return entry.start_ticks if entry is not None and entry.start_ticks else None

    def _take(self, snapshot: Snapshot) -> None:
        self.sampled_ns = self.sampled_ns or snapshot.begin_ns
        self.complete_ns = self.complete_ns or snapshot.end_ns
        self._files.update({entry.file: entry for entry in snapshot.files})
        for candidate in snapshot.candidates:
            self._pids.setdefault(candidate.pid, candidate)
            statm = candidate.text(PidField.STATM)
            if statm is not None:
                self._sizes.setdefault(candidate.pid, _pid_answer(statm))


def _decode(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _file_answer(entry: FileText) -> str | FileError:
    return FileError(_OPS[FileOp(entry.op)], entry.error) if entry.error else _decode(entry.data)


def _pid_answer(entry: PidText) -> str | FileError:
    return FileError(_OPS[FileOp(entry.op)], entry.error) if entry.error else _decode(entry.data)
