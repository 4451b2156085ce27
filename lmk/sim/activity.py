"""The stand-in for ActivityManager and the user: carries a timeline out on simulated processes.

It does what the guest's app runner does (tools/lmk-helper/apprunner_run.c, apprunner_process.c): starts processes,
gives them their oom_score_adj, tells lmkd over its socket, freezes and compacts what is cached, restarts services.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol

from lmk.config.app_adj import CACHED_ADJ_MIN, AdjProcess, AdjState
from lmk.config.app_restart import next_restart_ns
from lmk.config.timeline import Timeline, TimelineStep
from lmk.policy.lmkd.control_packets import (
    ProcPrio,
    ProcPurge,
    ProcRemove,
    Subscribe,
    Target,
    encode_command,
)
from lmk.sim.compactor import Compactor
from lmk.sim.machine import Machine
from lmk.sim.process import SimProcess
from lmk.sim.timing import PRIORITY_SCENARIO
from lmk.sim.workload import App, Workload, ms
from lmk.sim.zone import PAGE_KIB
from lmk.units import NS_PER_MS, NS_PER_US

#: ProcessList.NATIVE_ADJ, and where pids begin (nothing depends on it).
_NATIVE_ADJ: Final = -1000
_FIRST_PID: Final = 300

#: Kinds of event that a long run leaves out of its record.
DETAILS: Final = frozenset({"step", "frozen", "thawed", "filled", "compacted", "grew"})


class World(Protocol):
    """What this module asks of the rest of the device (lmk.sim.target)."""

    def app_event(self, t_ns: int, kind: str, body: dict[str, Any]) -> None: ...
    def send_packet(self, data: bytes) -> None: ...
    def end_process(self, process: SimProcess) -> None: ...


class Activity:
    """See the module's docstring."""

    def __init__(self, machine: Machine, timeline: Timeline, world: World, *, details: bool) -> None:
        self._machine = machine
        self._timeline = timeline
        self._world = world
        self._details = details
        self.apps = [App(plan) for plan in timeline.processes]
        self.by_pid: dict[int, App] = {}
        self._adj = AdjState()
        self._next_pid = _FIRST_PID
        self._connected = False
        self._compactor = Compactor(machine, self._compacted)
        self.zero_ns: int | None = None
        self.done = False
        self._workload = Workload(machine, self._emit, self._since_zero_ms, self._note_prepared)
        machine.disturbed = self._workload.disturbed
        self._home = next((app for app in self.apps if app.plan.role == "home"), None)

    # ---- the run

    def prepare(self) -> None:
        """Start the base load; ``started`` follows once its memory is written."""
        for app in self.apps:
            if app.plan.autostart:
                self._begin(app)
        self._apply_adj()
        self._note_prepared()

    def connected(self) -> None:
        """lmkd has accepted the connection: LmkdConnection's onConnect, then every process."""
        self._connected = True
        send = self._world.send_packet
        send(encode_command(ProcPurge()))
        if self._timeline.minfree:
            send(encode_command(Target(tuple(self._timeline.minfree))))
        for event in (0, 1):
            send(encode_command(Subscribe(event)))
        for app in self.apps:
            app.dirty = app.process is not None
        self._apply_adj()

    def apps_process(self, pid: int) -> SimProcess:
        """The living process with this pid."""
        process = self.by_pid[pid].process
        assert process is not None
        return process

    def died(self, process: SimProcess, signal: int) -> None:
        """A process is gone, with its /proc directory."""
        app = self.by_pid.pop(process.pid)
        now_ns = self._machine.now_ns
        old_top = self._adj.top
        self._emit(
            "died",
            {
                "app": app.plan.process_name,
                "pid": process.pid,
                "uid": app.plan.uid,
                "adj": app.sent_adj,
                "signal": signal,
                "code": 0,
                "expected": app.exiting,
                "launching": app.showing,
                "t_ms": self._since_zero_ms(now_ns),
            },
        )
        missed_ns = app.show_ns if app.showing and not app.cold and old_top == app.plan.id else None
        if app.plan.restart and not app.exiting:
            self._plan_restart(app, process)
        self._forget(app, process)
        if missed_ns is not None:
            # The user opened an app that was already dying: ActivityManager starts it anew.
            self._begin(app)
            app.show_ns = missed_ns
        self._top_changed(None if old_top == app.plan.id else old_top)
        self._note_prepared()

    def _note_prepared(self) -> None:
        if self.zero_ns is not None:
            return
        for app in self.apps:
            if app.plan.autostart and (app.restart_at_ns is not None or (app.process is not None and not app.filled)):
                return
        self.zero_ns = self._machine.now_ns
        self._emit("started", {"seed": self._timeline.seed, "end_ms": self._timeline.duration_ms})
        for step in self._timeline.steps:
            self._machine.at(self._step_ns(step.t_ms), partial(self._step, step), PRIORITY_SCENARIO)
        self._machine.at(self._step_ns(self._timeline.duration_ms), self._end, PRIORITY_SCENARIO)

    def _step_ns(self, t_ms: int) -> int:
        return (self.zero_ns or 0) + t_ms * NS_PER_MS

    def _end(self) -> None:
        self.done = True
        self._emit("done", {"t_ms": self._since_zero_ms(self._machine.now_ns)})

    # ---- steps

    def _step(self, step: TimelineStep) -> None:
        app = self.apps[step.process]
        old_top = self._adj.top
        self._emit(
            "step",
            {"action": step.action, "app": app.plan.process_name, "t_ms": self._since_zero_ms(self._machine.now_ns)},
        )
        if step.action == "launch":
            self._launch(app)
        elif step.action == "background":
            self._adj = self._adj.leave(app.plan.id)
            if self._adj.top != old_top:
                self._top_changed(old_top)
        elif app.process is None or app.process.killed:
            self._emit("skipped", {"app": app.plan.process_name, "why": "dead"})
        else:
            self._thaw(app)
            if app.cached_ns is not None:
                self._cached_since(app, self._machine.now_ns)
            self._work(app, app.process, step)

    def _work(self, app: App, process: SimProcess, step: TimelineStep) -> None:
        if step.action == "grow":
            self._workload.grow(app, process, step.kib // PAGE_KIB, step.over_ms)
        elif step.action == "leak":
            app.leak += 1
            limit = step.kib // PAGE_KIB or None
            self._workload.leak(app, process, step.kib_per_s, limit, app.leak, self._machine.now_ns, 0)
        elif step.action == "touch":
            for _ in range(step.times):
                self._workload.sweep(process, step.anon_permille, step.file_permille)
            self._workload.go(process)
        elif step.action == "exit":
            app.exiting = True
            self._world.end_process(process)

    def _launch(self, app: App) -> None:
        shows = app.plan.role in ("app", "home")
        if app.process is not None and not shows:
            return
        # Asked for: ActiveServices forgets how often it had to start it again (resetRestartCounter).
        app.restart_delay_ns = 0
        old_top = self._adj.top
        cold = app.process is None
        self._begin(app)
        assert app.process is not None
        self._emit(
            "launching" if shows else "service_started",
            {
                "app": app.plan.process_name,
                "pid": app.process.pid,
                "cold": cold,
                "t_ms": self._since_zero_ms(self._machine.now_ns),
            },
        )
        self._top_changed(old_top)

    def _begin(self, app: App) -> None:
        plan = app.plan
        if app.process is None:
            state = self._adj.start(AdjProcess(id=plan.id, role=plan.role, rest=plan.rest, fixed_adj=plan.adj))
            self._adj = state.launch(plan.id)
            self._spawn(app)
            app.cold = True
        else:
            self._adj = self._adj.launch(plan.id)
            app.cold = False
        assert app.process is not None
        app.restart_at_ns = None
        app.showing = True
        app.show_ns = self._machine.now_ns
        self._thaw(app)
        self._workload.show(app, app.process)

    def _spawn(self, app: App) -> None:
        machine = self._machine
        app.files = machine.memory.open_files(app.files, self._next_pid)
        process = SimProcess(self._next_pid, app.plan, app.files, machine.now_ns)
        self._next_pid += 1
        process.text_pages = machine.calibration.text_kib // PAGE_KIB
        app.reset()
        app.process = process
        app.dirty = app.plan.adj != _NATIVE_ADJ
        app.active = app.always_active
        self.by_pid[process.pid] = app
        self._workload.own(app, process)
        machine.memory.hold_process(1)
        process.burn(machine.calibration.fork_us * NS_PER_US)
        self._emit("spawned", {"app": app.plan.process_name, "pid": process.pid, "uid": app.plan.uid})

    def _forget(self, app: App, process: SimProcess) -> None:
        self._workload.disown(app, process)
        self._compactor.cancel(process)
        app.process = None
        app.exiting = False
        app.reset()
        self._adj = self._adj.gone(app.plan.id)
        if self._connected and not self._is_native(app):
            self._world.send_packet(encode_command(ProcRemove(process.pid)))

    def _plan_restart(self, app: App, process: SimProcess) -> None:
        now_ns = self._machine.now_ns
        if app.plan.role == "persistent":
            # ActiveServices: persistent processes are immediately restarted.
            at_ns = now_ns
        else:
            others = [one.restart_at_ns for one in self.apps if one is not app and one.restart_at_ns is not None]
            at_ns = next_restart_ns(app.restart_delay_ns, now_ns - process.born_ns, now_ns, others)
            app.restart_delay_ns = at_ns - now_ns
        app.restart_at_ns = at_ns

        def restart() -> None:
            if app.restart_at_ns == at_ns and app.process is None:
                old_top = self._adj.top
                self._begin(app)
                self._top_changed(old_top)

        self._machine.at(at_ns, restart)

    # ---- what is on top

    def _top_changed(self, old_top: int | None) -> None:
        home, top = self._home, self._adj.top
        if (
            home is not None
            and home.restart_at_ns is None
            and (top is None or (top != old_top and top == home.plan.id and not home.showing))
        ):
            self._begin(home)
        if old_top is not None and old_top != self._adj.top:
            self._hide(self.apps[old_top])
        self._apply_adj()

    def _hide(self, app: App) -> None:
        if app.process is not None and not app.always_active:
            self._workload.rest(app, app.process)

    def _apply_adj(self) -> None:
        for id_, adj in self._adj.assign():
            app = self.apps[id_]
            process = app.process
            if process is None:
                continue
            cached = adj >= CACHED_ADJ_MIN and app.plan.role in ("app", "empty")
            if cached != (app.cached_ns is not None):
                self._note_cached(app, cached)
            if app.dirty or app.sent_adj != adj:
                app.sent_adj = process.adj = adj
                if self._connected:
                    app.dirty = False
                    if not self._is_native(app):
                        record = ProcPrio(process.pid, app.plan.uid, adj)
                        self._world.send_packet(encode_command(record))

    def _is_native(self, app: App) -> bool:
        return app.plan.role == "fixed" and app.plan.adj == _NATIVE_ADJ

    # ---- freezing and compaction

    def _note_cached(self, app: App, cached: bool) -> None:
        if cached:
            self._cached_since(app, self._machine.now_ns)
        else:
            app.cached_ns = None
            self._thaw(app)

    def _cached_since(self, app: App, since_ns: int) -> None:
        app.cached_ns = since_ns
        if not (self._timeline.freeze or self._timeline.compact):
            return

        def rest() -> None:
            if app.cached_ns == since_ns and app.process is not None:
                self._freeze(app, app.process)

        self._machine.at(since_ns + self._timeline.freeze_after_ms * NS_PER_MS, rest)

    def _freeze(self, app: App, process: SimProcess) -> None:
        if self._timeline.freeze:
            process.frozen = True
            self._emit("frozen", {"app": app.plan.process_name, "pid": process.pid, "errno": 0})
        if self._timeline.compact and not app.compacted:
            app.compacted = True
            self._compactor.submit(process)

    def _thaw(self, app: App) -> None:
        process = app.process
        if process is None:
            return
        self._compactor.cancel(process)
        app.compacted = False
        if process.frozen:
            process.frozen = False
            self._emit("thawed", {"app": app.plan.process_name, "pid": process.pid})
            self._workload.go(process)

    def _compacted(self, process: SimProcess, body: dict[str, Any]) -> None:
        self._emit("compacted", {"app": process.plan.process_name, "pid": process.pid, **body})

    # ---- events

    def _emit(self, kind: str, body: dict[str, Any], t_ns: int | None = None) -> None:
        if self._details or kind not in DETAILS:
            self._world.app_event(self._machine.now_ns if t_ns is None else t_ns, kind, body)

    def _since_zero_ms(self, t_ns: int) -> float:
        return ms(t_ns - self.zero_ns) if self.zero_ns is not None else 0.0
