"""A QMP server on a unix socket: greets, answers from a table, can interleave events or fall silent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}


class FakeQmp:
    """Answers each command with ``answers[name]``: a dict with "return" or "error"; None means silence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.greeting: Any = GREETING
        self.answers: dict[str, Any] = {"qmp_capabilities": {"return": {}}}
        self.events: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FakeQmp:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._say(connection, self.greeting)
            for line in connection.makefile("rb"):
                command = json.loads(line)
                self.commands.append(command)
                for event in self.events:
                    self._say(connection, event)
                answer = self.answers.get(command["execute"])
                if answer is not None:
                    self._say(connection, answer)

    def _say(self, connection: socket.socket, message: Any) -> None:
        text = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\r\n"
        connection.sendall(text)
