"""Follow a device's log while it is observed: what its own lmkd and its kernel kill, as it happens.

A thread reads ``logcat``; whoever observes asks for news. Stamps are the device's wall clock (``-v epoch``); the
helper's two clocks turn them into its monotonic one.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from lmk.logs.files import decode
from lmk.logs.merge import Told
from lmk.logs.report import Report
from lmk.logs.scan import FileScan, LogScanner
from lmk.units import NS_PER_MS

#: Only what is about processes that end; the device's log goes through the cable otherwise.
LOG_COMMAND = (
    "logcat -v epoch -T 1 -b main,system,events -s lowmemorykiller:V lmkd:V killinfo:V am_kill:V am_proc_died:V "
    "ActivityManager:I Zygote:I"
)
#: Further lines of one message come at once.
_QUIET_S = 0.2


class LogFollower:
    """``open_log`` gives the log's byte stream; ``offset_ns`` is monotonic minus wall time of the device."""

    def __init__(self, open_log: Callable[[], socket.socket], offset_ns: int, begin_ns: int) -> None:
        self._scanner = LogScanner("logcat")
        self._offset_ns = offset_ns
        self._begin_ns = begin_ns
        self._lock = threading.Lock()
        self._seen = 0
        #: Why the log could not be read any more; "" while it can.
        self.ended = ""
        self._stream = open_log()
        self._thread = threading.Thread(target=self._read, name="log-follower", daemon=True)
        self._thread.start()

    def news(self) -> list[Told]:
        """Reports since the last call, on the device's monotonic clock; what was logged before we came is left out."""
        with self._lock:
            found = self._scanner.result.reports[self._seen :]
            self._seen += len(found)
        return [told for report in found if (told := self._told(report)).ns >= self._begin_ns - NS_PER_MS]

    def close(self) -> FileScan:
        """Stop reading; everything that was read."""
        self._stream.close()
        self._thread.join(5)
        with self._lock:
            return self._scanner.finish()

    def _told(self, report: Report) -> Told:
        stamp = report.stamp
        if stamp is None or not stamp.dated or stamp.boot:
            return Told(ns=self._begin_ns, report=report, timed=False)
        return Told(ns=stamp.ns + self._offset_ns, report=report)

    def _read(self) -> None:
        pending = b""
        try:
            self._stream.settimeout(_QUIET_S)
            while True:
                try:
                    chunk = self._stream.recv(65536)
                except TimeoutError:
                    with self._lock:
                        self._scanner.flush()
                    continue
                if not chunk:
                    self.ended = "the device closed its log"
                    return
                lines = (pending + chunk).split(b"\n")
                pending = lines.pop()
                with self._lock:
                    for line in lines:
                        self._scanner.feed(decode(line))
        except OSError as error:
            self.ended = str(error)
