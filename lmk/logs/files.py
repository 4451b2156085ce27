"""Log files as lines of text: plain, gzip, zip (a bug report among them), UTF-8 or UTF-16, whatever bytes they hold."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

import attrs

from lmk.errors import UserError

#: Text has no NUL in its beginning; what has one is no log.
_PROBE_BYTES = 4096
#: In a bug report's zip, beside the report itself: logs that survived a boot, and the kernel's.
_ZIP_WANTED = ("logcat", "last_kmsg", "console-ramoops", "kmsg", "dmesg", "pmsg")
_CHUNK_BYTES = 1 << 20
#: Android Studio's export names its list of messages after the device's description.
_STUDIO_HEAD_LINES = 64


@attrs.frozen(kw_only=True)
class LogFile:
    """One text. ``modified_ns``: when it was last written; ``size``: bytes, for progress."""

    name: str
    modified_ns: int
    size: int
    open: Callable[[], IO[bytes]]

    def lines(self, progress: Callable[[int], None] = lambda _bytes: None) -> Iterator[str]:
        """Its lines, ends taken off. UserError if the file turns out to be damaged."""
        try:
            with self.open() as stream:
                yield from studio_lines(_lines(stream, progress))
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{self.name} cannot be read: {error}", "see whether the file is complete") from None


def find_logs(path: Path) -> list[LogFile]:
    """The texts a path holds. UserError if there is no such file, or nothing in it that is text."""
    try:
        if path.is_dir():
            found = [log for child in sorted(path.iterdir()) if child.is_file() for log in find_logs(child)]
            if not found:
                raise UserError(f"{path} holds no files", "give a log file, a bug report or a directory of them")
            return found
        with path.open("rb") as stream:
            head = stream.read(_PROBE_BYTES)
        if zipfile.is_zipfile(path):
            return _in_zip(path)
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", "give a log file or a bug report") from None
    if head.startswith(b"\x1f\x8b"):
        return [LogFile(name=path.name, modified_ns=stat.st_mtime_ns, size=stat.st_size, open=lambda: _gunzip(path))]
    if not _is_text(head):
        raise UserError(f"{path} is not text", "give a logcat or a bug report: plain, .gz or .zip")
    return [LogFile(name=path.name, modified_ns=stat.st_mtime_ns, size=stat.st_size, open=lambda: path.open("rb"))]


def _gunzip(path: Path) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(path), _CHUNK_BYTES)


def _in_zip(path: Path) -> list[LogFile]:
    modified_ns = path.stat().st_mtime_ns
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir() and info.file_size]
        names = {info.filename: info for info in members}
        main = _main_entry(archive, names)
        wanted = [info for info in members if _wanted(info.filename, main)]
        texts = [info for info in wanted if _member_is_text(archive, info)]
    if not texts:
        raise UserError(f"{path} holds no log", "give a bug report's zip, or a zip of text files")

    def opener(info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
        def open_member() -> IO[bytes]:
            with zipfile.ZipFile(path) as archive:  # the member keeps the file open as long as it needs it
                stream = archive.open(info)
            return _gunzip_stream(stream) if info.filename.endswith(".gz") else stream

        return open_member

    return [
        LogFile(name=f"{path.name}!{info.filename}", modified_ns=modified_ns, size=info.file_size, open=opener(info))
        for info in texts
    ]


def _gunzip_stream(stream: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(fileobj=stream), _CHUNK_BYTES)


def _main_entry(archive: zipfile.ZipFile, names: dict[str, zipfile.ZipInfo]) -> str | None:
    """dumpstate names the report in ``main_entry.txt``; older ones only by convention."""
    if "main_entry.txt" in names:
        named = archive.read("main_entry.txt").decode("utf-8", "replace").strip()
        if named in names:
            return named
    reports = sorted(
        name for name in names if PurePosixPath(name).name.startswith("bugreport") and name.endswith(".txt")
    )
    return reports[0] if reports else None


def _wanted(name: str, main: str | None) -> bool:
    if main is None:
        return True
    return name == main or any(word in PurePosixPath(name).name.lower() for word in _ZIP_WANTED)


def _member_is_text(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as member:
            head = member.read(_PROBE_BYTES)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError):
        return False
    return head.startswith(b"\x1f\x8b") if info.filename.endswith(".gz") else _is_text(head)


def _is_text(head: bytes) -> bool:
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) <= len(head) // 64


def _lines(stream: IO[bytes], progress: Callable[[int], None]) -> Iterator[str]:
    head = stream.read(2)
    if head in (b"\xff\xfe", b"\xfe\xff"):  # what PowerShell's redirection writes
        encoding = "utf-16-le" if head == b"\xff\xfe" else "utf-16-be"
        text = io.TextIOWrapper(io.BufferedReader(_Counted(stream, progress)), encoding, "replace", newline="\n")
        for line in text:
            yield line.rstrip("\r\n")
        return
    pending = head
    while chunk := stream.read(_CHUNK_BYTES):
        progress(len(chunk))
        parts = (pending + chunk).split(b"\n")
        pending = parts.pop()
        for part in parts:
            yield decode(part)
    for part in pending.splitlines():
        yield decode(part)


def studio_lines(lines: Iterator[str]) -> Iterator[str]:
    """Android Studio's ``.logcat`` export is one JSON object: its messages as ``logcat -v epoch`` shows them."""
    head = list(islice(lines, _STUDIO_HEAD_LINES))
    if not head or not head[0].startswith("{") or not any('"logcatMessages"' in line for line in head):
        yield from chain(head, lines)
        return
    text = "\n".join(chain(head, lines))
    try:
        messages = json.loads(text)["logcatMessages"]
        shown = [line for message in messages for line in _studio_message(message)]
    except (ValueError, KeyError, TypeError, AttributeError):
        yield from text.split("\n")
        return
    yield from shown


def _studio_message(message: dict[str, Any]) -> Iterator[str]:
    header = message["header"]
    stamp = header["timestamp"]
    start = f"{stamp['seconds']}.{stamp['nanos'] // 1_000_000:03d} {header['pid']} {header['tid']}"
    for line in str(message["message"]).split("\n"):
        yield f"{start} {header['logLevel'][0]} {header['tag']}: {line}"


def decode(line: bytes) -> str:
    """A line as text; bytes that are not UTF-8 stay readable as ``\\xNN``."""
    return line.decode("utf-8", "backslashreplace").rstrip("\r").replace("\0", "")


class _Counted(io.RawIOBase):
    def __init__(self, stream: IO[bytes], progress: Callable[[int], None]) -> None:
        self._stream, self._progress = stream, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._progress(len(data))
        buffer[: len(data)] = data
        return len(data)
