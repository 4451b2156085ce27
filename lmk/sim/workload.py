"""What the apps of a timeline do with their memory: launch, fill, grow, leak, touch again what they use.

The work of one process is that of tools/lmk-helper/apprunner_app.c; a hot set that is all in memory costs nothing here,
only what reclaim took of it is touched in earnest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from lmk.config.timeline import PlannedProcess
from lmk.sim.machine import Machine
from lmk.sim.process import SimProcess
from lmk.sim.region import FILE, Region
from lmk.sim.zone import PAGE_KIB
from lmk.units import NS_PER_MS, NS_PER_S

#: The hot set is touched in so many slices (HOT_SLICES). Here only where that is often: what reclaim took of a set
#: that is touched more seldom than every two seconds comes back in one go.
_HOT_SLICES: Final = 4
_SLICED_MS_MAX: Final = 2000
#: A leak is written down in stretches of this size, so that its pages age one after the other.
_GROWN_PAGES: Final = 4096
#: Growth and leaks happen in pieces of at least this many pages (PIECE_PAGES).
_PIECE_PAGES: Final = 128
#: Slow growth comes in so many pieces at once, at most, as long as they are no more than this part of what is free
#: above the low marks: nobody has to reclaim for it sooner.
_PIECES_MAX: Final = 8
_PIECES_PART: Final = 16
#: Groups without pages: the root, /apps and /system, and below the last of these numbers one for each user.
_TOP_GROUPS: Final = (-1, -2, -3)
_USER_GROUP: Final = -4
#: While something grows the app looks this often at what is due.
_GROW_LOOP_NS: Final = 20 * NS_PER_MS


class Emit(Protocol):
    """Tell of an event; without a time: now."""

    def __call__(self, kind: str, body: dict[str, Any], t_ns: int | None = None) -> None: ...


class App:
    """A planned process and its present life, if any."""

    __slots__ = (
        "active",
        "cached_ns",
        "cold",
        "compacted",
        "dirty",
        "exiting",
        "files",
        "filled",
        "growing",
        "grown_ns",
        "growth_rest",
        "leak",
        "plan",
        "process",
        "restart_at_ns",
        "restart_delay_ns",
        "sent_adj",
        "show_ns",
        "showing",
        "started",
        "touching",
    )

    def __init__(self, plan: PlannedProcess) -> None:
        self.plan = plan
        file = plan.file_kib // PAGE_KIB
        hot = file * plan.hot_permille // 1000
        # The page cache of its files outlives the process.
        self.files = (
            Region(f"{plan.name} hot files", FILE, hot),
            Region(f"{plan.name} files", FILE, file - hot),
        )
        self.process: SimProcess | None = None
        self.restart_at_ns: int | None = None
        #: How long it had to wait for its restart the last time; 0: it never had.
        self.restart_delay_ns = 0
        self.reset()

    def reset(self) -> None:
        """Nothing of a former life is left."""
        self.sent_adj = 0
        self.dirty = self.cold = self.showing = self.started = self.filled = False
        self.exiting = self.compacted = self.touching = self.active = self.growing = False
        self.show_ns = 0
        #: When its growth was last written, and what was due beyond whole pages (KiB a minute times nanoseconds).
        self.grown_ns = self.growth_rest = 0
        self.cached_ns: int | None = None
        self.leak = 0

    @property
    def always_active(self) -> bool:
        """Keeps touching its hot set although nobody looks at it."""
        return self.plan.role not in ("app", "home") or self.plan.rest != "cached"


class Workload:
    """See the module's docstring. ``filled_one`` is called when a process has written all its memory."""

    def __init__(
        self, machine: Machine, emit: Emit, since_zero: Callable[[int], float], filled_one: Callable[[], None]
    ) -> None:
        self._machine = machine
        self._emit = emit
        self._since_zero = since_zero
        self._filled_one = filled_one
        self._region_apps: dict[Region, App] = {}
        #: Users that have a cgroup. It has no pages of its own, and neither have those above it; all the same reclaim
        #: has to pass each of them twice before it comes back to whoever is young.
        self._users: set[int] = set()
        for group in _TOP_GROUPS:
            machine.memory.lru.online(group)

    def own(self, app: App, process: SimProcess) -> None:
        """A process exists now. Its memory cgroup is as new as itself, and named after its pid here."""
        lru, uid = self._machine.memory.lru, app.plan.uid
        if uid not in self._users:
            self._users.add(uid)
            lru.online(_USER_GROUP - uid)
        lru.online(process.pid)
        for region in _watched(app, process):
            self._region_apps[region] = app

    def disown(self, app: App, process: SimProcess) -> None:
        """It no longer does; the cache of its files stays."""
        self._machine.memory.lru.offline(process.pid)
        if process.busy is not None:
            self._machine.remove_runner(process.busy)
        process.hot.use(0, self._machine.now_ns)
        for region in app.files:
            region.unmap(self._machine.now_ns)
        for region in _watched(app, process):
            del self._region_apps[region]

    def rest(self, app: App, process: SimProcess) -> None:
        """It stops touching its hot set, and growing."""
        if app.active and app.growing:
            self._grow_due(app, process, self._machine.now_ns)
            app.growing = False
        app.active = False
        if process.busy is not None:
            process.busy.active = False
        for region in (process.hot, app.files[0]):
            region.use(0, self._machine.now_ns)

    # ---- what an app does

    def show(self, app: App, process: SimProcess) -> None:
        """The work of a launch goes before everything that is still queued."""
        waiting = list(process.jobs)
        process.jobs.clear()
        if app.cold:
            # fork comes first
            process.jobs.extend(waiting)
            waiting = []
            process.burn(app.plan.cold_start_ms * NS_PER_MS)
        unwritten = process.hot.pages - process.hot.resident - process.hot.out
        if unwritten > 0:
            process.write(process.hot, unwritten)
        else:
            process.touch(process.hot, process.hot.pages)
        if app.cold:
            process.write(None, app.plan.pinned_kib // PAGE_KIB)
        process.touch(app.files[0], app.files[0].pages)
        process.then(lambda t_ns: self._shown(app, process, t_ns))
        process.jobs.extend(waiting)
        app.active = True
        if process.busy is not None:
            process.busy.active = True
        self.go(process)

    def _shown(self, app: App, process: SimProcess, t_ns: int) -> None:
        app.showing = False
        first, app.started = not app.started, True
        if app.plan.role in ("app", "home"):
            self._emit(
                "home_shown" if app.plan.role == "home" else "launch",
                {
                    "app": app.plan.process_name,
                    "pid": process.pid,
                    "cold": app.cold,
                    "t_ms": self._since_zero(app.show_ns),
                    "launch_ms": ms(t_ns - app.show_ns),
                },
                t_ns,
            )
        if app.active:
            period_ns = app.plan.touch_every_ms * NS_PER_MS
            for region in (process.hot, app.files[0]):
                region.use(period_ns, t_ns)
                for part in (region, *region.former):
                    self._machine.memory.lru.follow(part)
        self._begin_growth(app, process, t_ns)
        if first:
            process.write(process.cold, process.cold.pages)
            process.touch(app.files[1], app.files[1].pages)
            process.then(lambda t_ns: self._filled(app, process, t_ns))

    def _filled(self, app: App, process: SimProcess, t_ns: int) -> None:
        app.filled = True
        self._emit(
            "filled",
            {"app": app.plan.process_name, "pid": process.pid, "after_ms": ms(t_ns - process.born_ns)},
            t_ns,
        )
        self._begin_growth(app, process, t_ns)
        self._machine.at(t_ns, self._filled_one)

    def _begin_growth(self, app: App, process: SimProcess, t_ns: int) -> None:
        if app.plan.growth_kib_per_min and app.filled and not app.growing:
            app.growing, app.grown_ns, app.growth_rest = True, t_ns, 0
            self._grow_later(app, process)

    def _grow_later(self, app: App, process: SimProcess) -> None:
        """Grows while active. ``_shown`` begins it again after a pause."""
        piece_ns = -(-self._pieces() * _PIECE_PAGES * PAGE_KIB * 60 * NS_PER_S // app.plan.growth_kib_per_min)
        since_ns = app.grown_ns
        at_ns = since_ns + max(piece_ns, app.plan.touch_every_ms * NS_PER_MS // _HOT_SLICES)

        def grow() -> None:
            if process.killed or app.process is not process or app.grown_ns != since_ns:
                return
            if not app.active or process.frozen:
                app.growing = False
                return
            self._grow_due(app, process, at_ns)
            self._grow_later(app, process)

        self._machine.at(at_ns, grow)

    def _grow_due(self, app: App, process: SimProcess, now_ns: int) -> None:
        """Write what is due since it was last looked at."""
        due = app.growth_rest + (now_ns - app.grown_ns) * app.plan.growth_kib_per_min
        pages = due // (60 * NS_PER_S * PAGE_KIB)
        app.grown_ns, app.growth_rest = now_ns, due - pages * 60 * NS_PER_S * PAGE_KIB
        if not process.jobs:
            self._write_grown(process, pages)

    def _pieces(self) -> int:
        zones = self._machine.memory.zones
        return max(1, min(_PIECES_MAX, (zones.free - zones.user_low_sum) // (_PIECES_PART * _PIECE_PAGES)))

    def grow(self, app: App, process: SimProcess, pages: int, over_ms: int) -> None:
        # every 20 ms, as the app looks (apprunner_app.c, work)
        pieces = max(1, min(over_ms // 20, pages // _PIECE_PAGES)) if over_ms else 1
        start_ns = self._machine.now_ns

        def piece(index: int) -> None:
            if app.process is not process or process.killed:
                return
            self._write_grown(process, pages * (index + 1) // pieces - pages * index // pieces)
            if index + 1 < pieces:
                self._machine.at(start_ns + over_ms * NS_PER_MS * (index + 1) // pieces, lambda: piece(index + 1))

        piece(0)

    def leak(
        self, app: App, process: SimProcess, kib_per_s: int, limit: int | None, serial: int, start_ns: int, done: int
    ) -> None:
        piece_ns = -(-_PIECE_PAGES * PAGE_KIB * NS_PER_S // max(1, kib_per_s))

        def leak() -> None:
            if process.killed or app.process is not process or app.leak != serial:
                return
            due = kib_per_s * (self._machine.now_ns - start_ns) // NS_PER_S // PAGE_KIB
            if limit is not None:
                due = min(due, limit)
            pages = 0 if process.frozen or process.jobs else due - done
            self._write_grown(process, pages)
            if limit is None or done + pages < limit:
                self.leak(app, process, kib_per_s, limit, serial, start_ns, done + pages)

        self._machine.at(self._machine.now_ns + max(_GROW_LOOP_NS, piece_ns), leak)

    def _write_grown(self, process: SimProcess, pages: int) -> None:
        """New pages; what is hot stays the same share of all there is, so some of them join it."""
        hot_pages = pages * process.plan.hot_permille // 1000
        if hot_pages:
            process.write(process.hot, hot_pages)
            process.then(lambda _: process.enlarge_hot(hot_pages))
        pages -= hot_pages
        while pages > 0:
            last = process.grown[-1] if process.grown else None
            if last is None or last.pages >= _GROWN_PAGES:
                last = Region(
                    f"{process.plan.name} grown", process.cold.kind, 0, process.cold.stored_bytes, process.pid
                )
                process.grown.append(last)
            part = min(pages, _GROWN_PAGES - last.pages)
            last.pages += part
            process.write(last, part)
            pages -= part
        self.go(process)

    def sweep(self, process: SimProcess, anon_permille: int, file_permille: int) -> None:
        for regions, permille in (
            (process.anon_regions, anon_permille),
            ([process.hot_file, process.cold_file], file_permille),
        ):
            left = sum(region.pages for region in regions) * permille // 1000
            for region in regions:
                part = min(left, region.pages)
                process.touch(region, part)
                left -= part

    def go(self, process: SimProcess) -> None:
        """Its threads take part from now on, as far as they have something to do."""
        if process.runnable:
            self._machine.add_runner(process)
        if process.busy is not None and process.busy.runnable:
            self._machine.add_runner(process.busy)

    # ---- hot sets under reclaim

    def disturbed(self, regions: dict[Region, None]) -> None:
        """Pages of hot sets were evicted: their owners will miss them at the next slice they touch."""
        for region in regions:
            app = self._region_apps.get(region)
            if app is not None and not app.touching and app.process is not None:
                app.touching = True
                self._slice_later(app, app.process)

    def _slice_later(self, app: App, process: SimProcess) -> None:
        delay_ns = app.plan.touch_every_ms * NS_PER_MS // _slices(app)
        self._machine.at(self._machine.now_ns + delay_ns, lambda: self._slice(app, process))

    def _slice(self, app: App, process: SimProcess) -> None:
        if app.process is not process or not app.active or process.killed:
            if app.process is process:
                app.touching = False
            return
        missing = more = False
        for region in (process.hot, app.files[0]):
            gone = region.out + (region.absent if region.former else 0)
            if gone:
                missing = True
                if process.jobs and app.showing:
                    more = True
                else:
                    pages = -(-region.pages // _slices(app))
                    process.touch(region, pages)
                    # What goes meanwhile disturbs it again.
                    more = more or gone > pages
        app.touching = more
        if missing:
            self.go(process)
        if more:
            self._slice_later(app, process)


def _watched(app: App, process: SimProcess) -> list[Region]:
    """What an app in use keeps touching, as far as it may."""
    return [process.hot, *(part for file in app.files for part in (file, *file.former))]


def _slices(app: App) -> int:
    return _HOT_SLICES if app.plan.touch_every_ms <= _SLICED_MS_MAX else 1


def ms(span_ns: int) -> float:
    """Milliseconds to the microsecond: a float for people, never for a decision."""
    return span_ns // 1000 / 1000
