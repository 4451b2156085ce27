"""``lmk top``: how near each threshold is, who would die next, who died last; on a device or along a record."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import Protocol

import attrs
from rich.console import Console
from rich.live import Live

from lmk.cli.keys import Keys
from lmk.cli.runs import find_run
from lmk.config.probe import android_tag
from lmk.config.quantity import InvalidValue, parse_duration_ms
from lmk.errors import UserError
from lmk.live.devices import TargetName, attach_device, parse_target
from lmk.live.look_on import LiveFrames, adb_sight
from lmk.live.stock import read_properties
from lmk.policy.lmkd.versions import TAGS
from lmk.record.reader import RecordReader
from lmk.report.top_frame import Frame
from lmk.report.top_replay import ReplayFrames
from lmk.report.top_screen import screen

_JSON_SCHEMA = 1
_PLAIN_WIDTH, _PLAIN_HEIGHT = 130, 60
_REPLAY_TICK_S = 0.1
_SKIP_S = 5.0
_SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_INTERVALS_S = (0.25, 0.5, 1.0, 2.0, 5.0)
#: Two samples so far apart say what stalled in between.
_FIRST_LOOK_S = 1.0


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``top``."""
    parser = verbs.add_parser("top", help="watch thresholds, tiers and kills, on a device or along a record")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("run_dir", nargs="?", metavar="RUN", help="a run directory, or `last`: replay it")
    what.add_argument("--serial", metavar="S", help="look on at a device of `adb devices`")
    what.add_argument("--target", metavar="TARGET", help="look on at adb:SERIAL or emulator:NAME")
    parser.add_argument("--at", metavar="TIME", help="replay: begin there, e.g. 12.3s (where nobody watches: the end)")
    parser.add_argument("--speed", type=float, default=1.0, metavar="N", help="replay: so many times as fast (1)")
    parser.add_argument("--android", metavar="TAG", help="device: the lmkd whose rules are shown (the device's own)")
    parser.add_argument("--json", action="store_true", help="print one moment as a JSON object (docs/json.md)")
    parser.set_defaults(run=run)


class View(Protocol):
    """What a key does, and what is to be seen."""

    def frame(self) -> Frame:
        """The screen now."""

    def pressed(self, key: str) -> None:
        """A key other than q."""

    def wait_s(self) -> float:
        """Until the next frame."""

    def settle(self) -> None:
        """Before the only frame of a view that nobody watches."""


def run(args: argparse.Namespace) -> int:
    """Until q; one plain frame where there is no terminal."""
    if args.run_dir is not None:
        if args.android is not None:
            raise UserError("--android is for devices: a record knows its own", "leave it out")
        return _watch(_replay(args), args)
    if args.at is not None or args.speed != 1.0:
        raise UserError("--at and --speed are for a record", "give a RUN, or leave them out")
    target = _target(args)
    if args.android is not None and args.android not in TAGS:
        raise UserError(f"--android {args.android}: no such release", f"one of {', '.join(TAGS)}")
    with contextlib.closing(attach_device(target)) as device:
        android = args.android or android_tag(read_properties(device.adb), str(target), [])
        with LiveFrames(adb_sight(device.adb), str(target), android) as frames:
            return _watch(LiveView(frames), args)


def _target(args: argparse.Namespace) -> TargetName:
    target = parse_target(args.target if args.target is not None else f"adb:{args.serial}")
    if target.kind not in ("adb", "emulator"):
        raise UserError(
            f"--target {args.target}: nothing runs there that could be watched", "adb:SERIAL, emulator:NAME"
        )
    return target


def _replay(args: argparse.Namespace) -> ReplayView:
    if not 0 < args.speed <= _SPEEDS[-1]:
        raise UserError(f"--speed {args.speed:g}: must be above 0 and at most {_SPEEDS[-1]:g}", "leave it out for 1")
    at_s = None
    if args.at is not None:
        try:
            at_s = parse_duration_ms(args.at) / 1000
        except InvalidValue as error:
            raise UserError(f"--at {args.at}: {error}", "write a time such as 12.3s") from None
    with RecordReader(find_run(args.run_dir)) as record:
        return ReplayView(ReplayFrames(record), at_s, args.speed)


def _watch(view: View, args: argparse.Namespace) -> int:
    if args.json:
        view.settle()
        print(json.dumps({"schema": _JSON_SCHEMA, **attrs.asdict(view.frame())}))
        return 0
    console = Console()
    if not console.is_terminal or not sys.stdin.isatty():
        view.settle()
        plain = Console(width=_PLAIN_WIDTH, color_system=None)
        plain.print(screen(attrs.evolve(view.frame(), keys=""), _PLAIN_WIDTH, _PLAIN_HEIGHT))
        return 0
    with Keys(sys.stdin.fileno()) as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            width, height = console.size
            live.update(screen(view.frame(), width, height), refresh=True)
            key = keys.read(view.wait_s())
            if key in ("q", "escape"):
                return 0
            if key is not None:
                view.pressed(key)


class ReplayView:
    """A record along its own clock, faster, slower, or standing still."""

    def __init__(self, frames: ReplayFrames, at_s: float | None, speed: float) -> None:
        self._frames, self._speed, self._asked_s = frames, speed, at_s
        self._t_s = self._inside(frames.begin_s if at_s is None else at_s)
        self._paused = False
        self._seen_s = time.monotonic()

    def _inside(self, t_s: float) -> float:
        return min(max(t_s, self._frames.begin_s), self._frames.end_s)

    def frame(self) -> Frame:
        """See ``View``."""
        now_s = time.monotonic()
        if not self._paused:
            self._t_s = self._inside(self._t_s + (now_s - self._seen_s) * self._speed)
        self._seen_s = now_s
        status = f"×{self._speed:g}"
        if self._t_s >= self._frames.end_s:
            status = "the end"
        elif self._paused:
            status = "paused"
        return self._frames.frame(self._t_s, status, "q quit   space pause   ← → 5 s   ↑ ↓ speed")

    def pressed(self, key: str) -> None:
        """See ``View``."""
        if key == "space":
            self._paused = not self._paused
        elif key in ("left", "right"):
            self._t_s = self._inside(self._t_s + (_SKIP_S if key == "right" else -_SKIP_S))
        elif key in ("up", "down"):
            self._speed = _next(_SPEEDS, self._speed, 1 if key == "up" else -1)

    def wait_s(self) -> float:
        """See ``View``."""
        return _REPLAY_TICK_S

    def settle(self) -> None:
        """See ``View``."""
        self._paused = True
        if self._asked_s is None:
            self._t_s = self._frames.end_s


class LiveView:
    """A device, sampled every so often."""

    def __init__(self, frames: LiveFrames) -> None:
        self._frames = frames
        self._interval_s = 1.0
        self._frozen: Frame | None = None

    def frame(self) -> Frame:
        """See ``View``."""
        if self._frozen is not None:
            return self._frozen
        keys = "q quit   space hold   ↑ ↓ more or less often"
        return self._frames.frame(f"every {self._interval_s:g} s", keys)

    def pressed(self, key: str) -> None:
        """See ``View``."""
        if key == "space":
            self._frozen = None if self._frozen is not None else attrs.evolve(self.frame(), status="held")
        elif key in ("up", "down"):
            self._interval_s = _next(_INTERVALS_S, self._interval_s, -1 if key == "up" else 1)

    def wait_s(self) -> float:
        """See ``View``."""
        return self._interval_s

    def settle(self) -> None:
        """See ``View``."""
        self._frames.frame("", "")
        time.sleep(_FIRST_LOOK_S)


def _next(steps: tuple[float, ...], value: float, by: int) -> float:
    """The next step up or down from a value that need not be one."""
    if by > 0:
        return next((step for step in steps if step > value), value)
    return next((step for step in reversed(steps) if step < value), value)
