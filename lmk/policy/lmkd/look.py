"""What lmkd would see if it woke now: an onlooker's view of a device, by the code that decides elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from lmk.policy.api import FileAnswer, FileError, Machine, ReadFile
from lmk.policy.decision import Evaluation
from lmk.policy.lmkd.daemon import Daemon
from lmk.policy.lmkd.params import LmkdParams
from lmk.policy.lmkd.policy import dialect_of
from lmk.policy.lmkd.psi_strategy import look
from lmk.policy.lmkd.versions import Behaviour

_ENOENT = 2


class Looker:
    """Looks again and again, as lmkd's polling would: thrashing is counted from one look to the next."""

    def __init__(self, params: LmkdParams, behaviour: Behaviour, page_bytes: int = 4096) -> None:
        self._daemon = Daemon(behaviour=behaviour, dialect=dialect_of(behaviour))
        self._daemon.params, self._daemon.machine = params, Machine(page_size=page_bytes)
        self._daemon.page_kib = page_bytes // 1024

    def look(self, now_ns: int, files: Mapping[str, FileAnswer]) -> Evaluation | None:
        """``files``: the four memory files by path, as text or values. None where one is missing or does not parse.
        Never raises."""
        self._daemon.now_ns = self._daemon.event_ns = now_ns
        steps = look(self._daemon)
        answer: object = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as end:
                found: Evaluation | None = end.value
                return found
            # Anything but a file is a log line, or a question that "no" is an answer to.
            answer = None
            if isinstance(request, ReadFile):
                answer = files.get(request.path, FileError("open", _ENOENT))
