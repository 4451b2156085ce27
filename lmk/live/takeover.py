"""The process table where nobody registers with us: taken from /proc, as ActivityManager would have sent it.

ActivityManager does not register its processes again when the socket comes back under another daemon, and in a dry
run the socket belongs to the device's own lmkd. So the table is read from /proc (oom_score_adj, uid; oldest process
first, so that the oldest is the next victim of its slot) and delivered to the policy as the packets of a client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lmk.device.helper_types import TableRow, TableWhich
from lmk.policy import api
from lmk.policy.lmkd.control_packets import ProcPrio, ProcRemove, encode_command

#: Never a number of the helper's: those count from 1.
CONNECTION = -1
#: system_server: uid system. Its pid only says who owns the records.
_CREDENTIALS = (1, 1000)
#: Android's native daemons are not registered with lmkd; a shell's children are nobody's apps.
_NATIVE_ADJ = -1000
_FIRST_ANDROID_UID = 1000


class Table(Protocol):
    """The part of lmk.device.helper.HelperStream that is needed here."""

    def table(self, which: TableWhich) -> tuple[TableRow, ...]:
        """All processes of the device."""


class TakenTable:
    """Feed ``inject`` with what changed since the last ``refresh``; the first one delivers everything."""

    def __init__(self, stream: Table, inject: Callable[[api.Event], None]) -> None:
        self._stream = stream
        self._inject = inject
        self._known: dict[tuple[int, int], int] = {}
        self._again: set[tuple[int, int]] = set()
        self._connected = False

    def refresh(self) -> int:
        """Read the table; returns how many changes were delivered."""
        if not self._connected:
            self._inject(api.ConnectEvent(CONNECTION))
            self._connected = True
        rows = [row for row in self._stream.table(TableWhich.ALL) if is_managed(row)]
        current = {(row.pid, row.start_ticks): row for row in rows}
        changes = 0
        for gone in [key for key in self._known if key not in current]:
            # Also when the pid lives on in another process: the record still holds the dead one's pidfd.
            del self._known[gone]
            self._send(ProcRemove(pid=gone[0]))
            changes += 1
        for key, row in sorted(current.items(), key=lambda item: (item[1].start_ticks, item[1].pid)):
            if self._known.get(key) != row.oom_score_adj or key in self._again:
                self._known[key] = row.oom_score_adj
                self._send(ProcPrio(pid=row.pid, uid=row.uid, adj=row.oom_score_adj))
                changes += 1
        self._again.clear()
        return changes

    def again(self, pid: int) -> None:
        """The policy has dropped this process although it lives: the next refresh delivers it once more.

        So are all others of its score, in their order: whoever is registered comes last in its slot.
        """
        adjs = {adj for (known, _), adj in self._known.items() if known == pid}
        self._again |= {key for key, adj in self._known.items() if adj in adjs}

    def leave(self) -> None:
        """Hang up, so that the records belong to nobody: whoever registers a process next owns it."""
        self._inject(api.HangUpEvent(CONNECTION))

    def _send(self, command: ProcPrio | ProcRemove) -> None:
        self._inject(api.PacketEvent(CONNECTION, encode_command(command), _CREDENTIALS))


def is_managed(row: TableRow) -> bool:
    return row.oom_score_adj > _NATIVE_ADJ and row.uid >= _FIRST_ANDROID_UID and row.rss_pages > 0
