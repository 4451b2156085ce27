"""What happens in a recorded world, when: the virtual clock, the queue of a step's events, the connections.

`Clock.wait` implements the time rules of ``vectors/README.md``: time passes only while the daemon waits,
a death at a moment comes before a step at that moment, each wait returns one event of a step.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from lmk.policy.api import (
    ConnectEvent,
    Event,
    ExitEvent,
    HangUpEvent,
    KernelKillEvent,
    MemoryEvent,
    MemoryEvents,
    MemoryEventsReady,
    PacketEvent,
    PressureEvent,
    ReaperFailureEvent,
    WatchdogEvent,
)
from lmk.policy.lmkd.control_packets import pack_integers
from lmk.replay.world import Process, World

FOREVER = float("inf")
DEFAULT_CLIENT = (1000, 1000)
UNKNOWN_UID = 10001


class EndOfRecording(Exception):  # noqa: N818 - not an error
    """The recording stops here."""


class Clock:
    """Virtual time and everything that can end a wait."""

    def __init__(self, script: dict[str, Any], world: World) -> None:
        self.now_us = int(script["cfg"]["start_us"])
        #: Start-up, ``setup`` and ``reg`` are not over.
        self.starting = True
        self.world = world
        self._steps: deque[dict[str, Any]] = deque(script["steps"])
        self._end_us = int(script["end"])
        self._clients = [tuple(client) for client in script.get("clients", ())]
        self._queue: deque[list[Any]] = deque(script.get("setup", [["conn", 0]]))
        self._queue.extend(self._registration(*entry) for entry in script.get("reg", ()))
        #: Connection number of the script -> connection of the policy's protocol, while open.
        self.open_connections: dict[int, int] = {}
        self._connection_numbers: list[int] = []
        self._hung_up: set[int] = set()
        # What the daemon listens to.
        self.psi_levels: set[int] = set()
        self.vmpressure = [0, 0, 0]
        self.vmpressure_levels: set[int] = set()
        self.memory_events = False
        self._later: tuple[Event, ...] = ()
        #: Filled whether anybody listens or not.
        self._ring: list[MemoryEvent] = []
        self.kernel_kills = False
        self.watched: dict[int, Process] = {}
        self.reaper_failures: deque[int] = deque()

    def wait(self, deadline_us: float) -> tuple[Event, ...]:
        """Events that end a wait; none at the deadline. Raises EndOfRecording."""
        world = self.world
        while True:
            events = self._ready()
            if events:
                return events
            self.starting = False
            step_us: float = self._steps[0]["t"] if self._steps else FOREVER
            next_us = min(step_us, world.next_death_us(), self._end_us)
            if deadline_us < next_us:
                self.now_us = int(deadline_us)
                return ()
            self.now_us = int(next_us)
            # Who dies at this very moment dies after the rest of the step that killed it.
            if world.next_death_us() <= next_us:
                world.bury(self.now_us)
            elif step_us > next_us:
                raise EndOfRecording
            else:
                step = self._steps.popleft()
                world.apply_step(step)
                self._queue.extend(step.get("ev", ()))

    def connection_number(self, connection: int) -> int:
        """The script's number of a connection of the policy's protocol."""
        return self._connection_numbers[connection]

    def close_connection(self, connection: int) -> int:
        """The daemon closes; returns the script's number."""
        number = self._connection_numbers[connection]
        if self.open_connections.get(number) == connection:
            del self.open_connections[number]
        return number

    def can_send(self, connection: int) -> bool:
        """False after the client hung up."""
        return connection not in self._hung_up

    def take_memory_events(self) -> MemoryEvents:
        """Empty the ring; while its reads fail the entries stay in it."""
        if self.world.memory_events_fail:
            return MemoryEvents(None)
        entries, self._ring = tuple(self._ring), []
        return MemoryEvents(entries)

    # ---- events ---------------------------------------------------------------------------

    def _ready(self) -> tuple[Event, ...]:
        """What one wait returns now: level-triggered descriptors first, then the next event of the step."""
        while True:
            level = [ExitEvent(handle) for handle, process in self.watched.items() if process.dead]
            if level or self.reaper_failures:
                failures = [ReaperFailureEvent(self.reaper_failures.popleft())] if self.reaper_failures else []
                return (*failures, *level)
            if self._later:
                events, self._later = self._later, ()
                return events
            if not self._queue:
                return ()
            entry = self._queue.popleft()
            batch = entry[1] if entry[0] == "batch" else [entry]
            events = tuple(event for event in map(self._event, batch) if event is not None)
            if len(events) > 1 and any(isinstance(event, WatchdogEvent) for event in events):
                # The watchdog's thread does not share the main thread's wait.
                self._later = tuple(event for event in events if not isinstance(event, WatchdogEvent))
                return (WatchdogEvent(),)
            if events:
                return events

    def _event(self, entry: list[Any]) -> Event | None:
        """One event of the script; None if the daemon does not see it."""
        kind, args = entry[0], entry[1:]
        match kind:
            case "psi":
                return PressureEvent(args[0]) if args[0] in self.psi_levels else None
            case "mp":
                if args[0] not in self.vmpressure_levels:
                    return None
                self.vmpressure[args[0]] += 1
                return PressureEvent(args[0])
            case "exit":
                process = self.world.processes.get(args[0])
                if process is not None:
                    self.world.end_process(process)
                return None
            case "bite":
                return WatchdogEvent()
            case "lmk":
                return KernelKillEvent(args[0]) if self.kernel_kills else None
            case "mem":
                # The kernel fills the ring also while nobody listens.
                self._ring.append(MemoryEvent(*args[:3]))
                return MemoryEventsReady() if self.memory_events else None
            case "conn":
                connection = len(self._connection_numbers)
                self._connection_numbers.append(args[0])
                self.open_connections[args[0]] = connection
                return ConnectEvent(connection)
            case "hup":
                closing = self.open_connections.pop(args[0], None)
                if closing is None:
                    return None
                self._hung_up.add(closing)
                return HangUpEvent(closing)
        return self._packet(kind, args)

    def _packet(self, kind: str, args: list[Any]) -> Event | None:
        """A message, from its bytes or from what it means."""
        if kind == "pkt":
            number, text, sender = args
            credentials = None if sender[0] == -1 else (sender[0], sender[1])
            data = bytes.fromhex(text)
        else:
            number = 0
            credentials = self._clients[0] if self._clients else DEFAULT_CLIENT
            data = pack_integers(_integers(kind, args))
        connection = self.open_connections.get(number)
        return None if connection is None else PacketEvent(connection, data, credentials)

    def _registration(self, pid: int, adj: int, process_type: int | None) -> list[Any]:
        process = self.world.processes.get(pid)
        uid = process.fields["uid"] if process else UNKNOWN_UID
        return ["prio", pid, uid, adj, process_type]


def _integers(kind: str, args: list[Any]) -> list[int]:
    match kind:
        case "prio":
            return [1, *(value for value in args if value is not None)]
        case "rm":
            return [2, args[0]]
        case "purge":
            return [3]
        case "sub":
            return [5, args[0]]
        case "target":
            return [0, *(value for pair in args[0] for value in pair)]
        case "cmd":
            return list(args)
    raise ValueError(f"unknown event {kind!r} in the recording")
