"""One real killer in a guest under strace while a scenario plays; what is left is its trace."""

from __future__ import annotations

import time

from lmk.backends.qemu import QemuGuest
from lmk.config.device import DeviceConfig, read_device_config
from lmk.config.load import parse_document
from lmk.config.scenario import read_scenario
from lmk.config.timeline import compile_timeline
from lmk.device.adb import AdbDevice
from lmk.device.apprunner import AppRunner
from lmk.guest import killers
from lmk.killers.cases import DEVICE, Case
from lmk.killers.trace import CALLS
from lmk.policy.earlyoom import Limits
from lmk.policy.systemd_oomd import Settings

KILLERS = ("earlyoom", "oomd", "systemd-oomd")
_TRACE = "/dev/killer.trace"
_LOG = "/dev/killer.log"
_OOMD_CONFIG = "/dev/oomd.json"
_STRACE = f"{killers.STRACE} -f -y -v -qq -ttt -s 65536 -o {_TRACE} -e trace={','.join(CALLS)}"
_STEADY_S = 2.0
#: Stands in for PID 1: answers the one call that systemd-oomd makes, and stays connected.
_MANAGED_OOM = f"dd bs=1 count=1 of=/dev/null 2>/dev/null; cat {killers.ANSWER}; exec sleep 100000"


def prepare(adb: AdbDevice) -> None:
    """Once per guest: what they need to run there, and someone who sets the scores that apps ask for."""
    adb.check_shell("setprop lmk.standin_lmkd 1; start lmkd")
    groups: list[dict[str, object]] = [
        {"mode": "kill", "path": "/", "property": "ManagedOOMSwap"},
        {"mode": "kill", "path": "/apps", "property": "ManagedOOMMemoryPressure"},
    ]
    adb.push(killers.managed_oom_answer(groups), killers.ANSWER)
    adb.check_shell(f"{killers.DBUS} --config-file={killers.BUS_CONFIG} --fork")
    adb.check_shell(f"(setsid toybox nc -U -L -s {killers.MANAGED_OOM} sh -c '{_MANAGED_OOM}' >/dev/null 2>&1 &)")


def play(guest: QemuGuest, killer: str, case: Case) -> str:
    """The trace of one killer through one case, and its own log before it."""
    adb = guest.adb
    document = parse_document(case.scenario, f"{case.name}.yaml")
    scenario = read_scenario(document)
    document.problems.raise_if_any()
    timeline = compile_timeline(scenario, guest.config, None)
    with AppRunner(adb, arch=guest.config.arch) as runner:
        runner.launch()
        runner.load(timeline)
        runner.prepare()
        adb.check_shell(f"(setsid {_STRACE} {_command(adb, killer, case)} >{_LOG} 2>&1 &)")
        # It looks at everything once when it starts.
        time.sleep(_STEADY_S)
        runner.go()
        for _ in runner.events(timeout_s=timeline.duration_ms / 1000 + 120):
            pass
        adb.shell(f"pkill -x {killer[:15]}; sleep 0.5", timeout_s=60)
        trace = adb.shell(f"cat {_TRACE}", timeout_s=120).stdout
        log = adb.shell(f"cat {_LOG}; rm -f {_TRACE} {_LOG}", timeout_s=60).stdout
        runner.stop()
    return "".join(f"# {line}\n" for line in log.splitlines()) + trace


def _command(adb: AdbDevice, killer: str, case: Case) -> str:
    if killer == "earlyoom":
        limits: Limits = case.earlyoom
        memory = f"{limits.memory_term_pct:g},{limits.memory_kill_pct:g}"
        return f"{killers.EARLYOOM} -r 0 -m {memory} -s {limits.swap_term_pct:g},{limits.swap_kill_pct:g}"
    if killer == "oomd":
        adb.push(case.oomd.encode(), _OOMD_CONFIG)
        return f"{killers.OOMD} --interval 1 --config {_OOMD_CONFIG}"
    settings: Settings = case.systemd_oomd
    text = (
        f"[OOM]\nSwapUsedLimit={settings.swap_used_limit_pct}%\n"
        f"DefaultMemoryPressureLimit={settings.pressure_limit_pct}%\n"
        f"DefaultMemoryPressureDurationSec={settings.pressure_duration_s}s\n"
    )
    adb.push(text.encode(), "/etc/systemd/oomd.conf")
    return killers.SYSTEMD_OOMD


def device_config() -> DeviceConfig:
    """The device that all cases run on."""
    document = parse_document(DEVICE, "killers.yaml")
    config = read_device_config(document)
    document.problems.raise_if_any()
    return config
