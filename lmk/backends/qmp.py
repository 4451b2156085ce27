"""QEMU's control socket (QMP): one command at a time, each with a deadline."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmk.errors import InfraError

_TIMEOUT_S = 10.0
#: `info usernet`: TCP[HOST_FORWARD]  12  127.0.0.1 35725  10.0.2.15  5555  0  0
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)")


class Qmp:
    """A connection to QMP, negotiated. InfraError for every failure."""

    def __init__(self, stream: socket.socket) -> None:
        """``stream``: a connected socket on which QEMU's greeting is due."""
        self._stream = stream
        self._buffer = b""
        greeting = self._receive(time.monotonic() + _TIMEOUT_S)
        if "QMP" not in greeting:
            raise InfraError("QEMU's control socket did not greet", detail=json.dumps(greeting))
        self.command("qmp_capabilities")

    @classmethod
    def connect(cls, path: Path) -> Qmp:
        """Connect to QEMU's unix socket."""
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.settimeout(_TIMEOUT_S)
            stream.connect(str(path))
            return cls(stream)
        except OSError as error:
            stream.close()
            raise InfraError(f"QEMU's control socket {path}: {error.strerror or error}") from error
        except BaseException:
            stream.close()
            raise

    def command(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = _TIMEOUT_S) -> Any:
        """Run one command, skipping events; its ``return`` value."""
        deadline = time.monotonic() + timeout_s
        request = {"execute": name, "arguments": dict(arguments or {})}
        try:
            self._stream.settimeout(timeout_s)
            self._stream.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise InfraError(f"QEMU is gone ({name}: {error})") from error
        while True:
            answer = self._receive(deadline)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise InfraError(f"QEMU refused {name}: {answer['error'].get('desc', answer['error'])}")

    def forwarded_port(self, guest_port: int) -> int:
        """The host port that QEMU's user network bound for a guest port (asked for as port 0)."""
        table = str(self.command("human-monitor-command", {"command-line": "info usernet"}))
        for host_port, inner in _FORWARD.findall(table):
            if int(inner) == guest_port:
                return int(host_port)
        raise InfraError(f"QEMU forwards no port to the guest's {guest_port}", detail=table)

    def cpu_threads(self) -> list[int]:
        """Host thread ids of the guest's CPUs."""
        return [int(cpu["thread-id"]) for cpu in self.command("query-cpus-fast")]

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._stream.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise InfraError("QEMU's control socket does not answer", "see whether the machine is overloaded")
            try:
                self._stream.settimeout(left)
                chunk = self._stream.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                raise InfraError(f"QEMU is gone ({error})") from error
            if not chunk:
                raise InfraError("QEMU closed its control socket")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise InfraError("QEMU's control socket sent no JSON", detail=repr(line[:200])) from error
        if not isinstance(message, dict):
            raise InfraError("QEMU's control socket sent no JSON object", detail=repr(line[:200]))
        return message
