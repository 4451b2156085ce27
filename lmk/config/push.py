"""A config's settings onto a running device: what differs, what can change while it runs, and how to take it back.

Pure: a device's answer in, changes and shell commands out. lmkd of Android 12L and later re-reads its properties'
overrides (``persist.device_config.lmkd_native.*``): those go through ``cmd device_config``, with the sync of flags
switched off, for it would take them away again; where a device has no such service, as property. Sysctls are written.
Everything else is part of the build or of the boot.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from lmk.config.device import VM_SYSCTLS, DeviceConfig
from lmk.config.effective import EffectiveKnob, EffectiveKnobs, clamp, effective_knobs, parse_value
from lmk.config.probe import MARK, android_tag, answer_parts
from lmk.errors import UserError
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTY_BY_NAME, RO_PREFIX, Property
from lmk.policy.lmkd.versions import tag_index
from lmk.procfs.properties import parse_getprop

NAMESPACE: Final = "lmkd_native"
REINIT: Final = "setprop lmkd.reinit 1"
#: The properties come last: whatever their values hold, they cannot pass for another answer.
PUSH_PROBE: Final = "; ".join(
    (
        f"for f in {' '.join(f'/proc/sys/vm/{name}' for name in VM_SYSCTLS)}"
        f"; do echo '{MARK}'$f; cat $f 2>/dev/null; done",
        # Older releases know only whether it is disabled.
        f"echo '{MARK}sync'; cmd device_config get_sync_disabled_for_tests 2>/dev/null"
        " || cmd device_config is_sync_disabled_for_tests 2>/dev/null",
        f"echo '{MARK}overrides'; cmd device_config list {NAMESPACE} 2>/dev/null",
        f"echo '{MARK}uid'; id -u",
        f"echo '{MARK}getprop'; getprop",
    )
)
#: Answers to how flags are synced; "false" and "true" are an older release's.
_SYNC_MODES: Final = ("none", "persistent", "until_reboot", "false", "true")


@attrs.frozen(kw_only=True)
class Change:
    """One setting that differs."""

    name: str
    #: As text; None: unset.
    device: str | None
    wanted: str
    #: "device_config", "setprop", "sysctl", or "reboot".
    how: str
    #: Why a reboot, or another build, is needed.
    why: str = ""


@attrs.frozen(kw_only=True)
class Device:
    """What a device answered to PUSH_PROBE."""

    serial: str
    properties: Mapping[str, str]
    vm: Mapping[str, str]
    tag: str
    #: How flags are synced; None: the device has no ``cmd device_config``.
    sync: str | None
    overrides: Mapping[str, str]
    root: bool


@attrs.frozen(kw_only=True)
class Saved:
    """What a device had before a push: enough to take it back. A value of None was unset."""

    serial: str
    sync: str | None
    overrides: Mapping[str, str | None]
    sysctls: Mapping[str, str]


def read_device(answer: str, serial: str) -> Device:
    """Raises UserError for something that is no Android device, or one too old for lmkd."""
    parts = answer_parts(answer)
    properties = parse_getprop(parts.get("getprop", ""))
    if not properties:
        raise UserError(f"{serial}: does not answer getprop", "is this an Android device?")
    sync = parts.get("sync", "").strip()
    overrides = dict(line.split("=", 1) for line in parts.get("overrides", "").splitlines() if "=" in line)
    vm = {name: text for name in VM_SYSCTLS if (text := parts.get(f"/proc/sys/vm/{name}", "").strip())}
    return Device(
        serial=serial,
        properties=properties,
        vm=vm,
        tag=android_tag(properties, serial, []),
        sync=sync if sync in _SYNC_MODES else None,
        overrides={name.rpartition("/")[2]: text for name, text in overrides.items()},
        root=parts.get("uid", "").strip() == "0",
    )


def changes(config: DeviceConfig, device: Device) -> list[Change]:
    """Everything that the config sets and the device has otherwise, lmkd's own first."""
    on_device = effective_knobs(device.properties, device.tag)
    found = [_knob(row, text, on_device, device) for row, text in _knobs(config).items()]
    found += [_other(name, text, device) for name, text in config.own_properties.items() if not _is_knob(name)]
    found += [_sysctl(f"vm.{name}", str(number), device) for name, number in config.vm.items()]
    return [change for change in found if change is not None]


def _knobs(config: DeviceConfig) -> dict[Property, str]:
    """lmkd's rows that the config sets, with the text that counts: an override's before ``ro.lmk.``'s."""
    found: dict[Property, str] = {}
    for prefix in (RO_PREFIX, PERSIST_PREFIX):
        for name, text in config.own_properties.items():
            row = PROPERTY_BY_NAME.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
            if row is not None:
                found[row] = text
    return found


def _is_knob(name: str) -> bool:
    return any(name.startswith(prefix) and name.removeprefix(prefix) in PROPERTY_BY_NAME for prefix in _PREFIXES)


_PREFIXES: Final = (RO_PREFIX, PERSIST_PREFIX)


def _knob(row: Property, text: str, on_device: EffectiveKnobs, device: Device) -> Change | None:
    knob: EffectiveKnob | None = on_device.find(row.name)
    value = parse_value(row, text)
    if knob is None or value is None:
        return None  # this device's lmkd does not read it, or would take it for unset
    wanted = ("true" if value else "false") if isinstance(value, bool) else str(clamp(row, value))
    have = ("true" if knob.value else "false") if isinstance(knob.value, bool) else str(knob.value)
    if have == wanted:
        return None
    name = RO_PREFIX + row.name
    if not on_device.behaviour.persist_overrides:
        why = f"lmkd of Android {device.tag} reads no overrides: build it in"
        return Change(name=name, device=have, wanted=wanted, how="reboot", why=why)
    if not row.persist:
        return Change(name=name, device=have, wanted=wanted, how="reboot", why="lmkd takes no override: build it in")
    return Change(name=name, device=have, wanted=wanted, how="setprop" if device.sync is None else "device_config")


def _other(name: str, text: str, device: Device) -> Change | None:
    have = device.properties.get(name)
    if have == text:
        return None
    why = "part of the build" if name.startswith("ro.") else "read at boot"
    return Change(name=name, device=have, wanted=text, how="reboot", why=why)


def _sysctl(name: str, wanted: str, device: Device) -> Change | None:
    have = device.vm.get(name.removeprefix("vm."))
    return None if have == wanted else Change(name=name, device=have, wanted=wanted, how="sysctl")


def check_rights(found: Sequence[Change], device: Device) -> None:
    """Raises UserError if something can be applied and the shell may not do it."""
    needed = [change.name for change in found if change.how in ("sysctl", "setprop")]
    if needed and not device.root:
        raise UserError(
            f"{device.serial}: its shell is not root, and {', '.join(needed)} takes root", "adb root (userdebug builds)"
        )


def before(found: Sequence[Change], device: Device) -> Saved:
    """What to keep before the changes are applied."""
    knobs = [change.name.removeprefix(RO_PREFIX) for change in found if change.how in ("device_config", "setprop")]
    return Saved(
        serial=device.serial,
        sync=device.sync,
        overrides={name: _override(name, device) for name in knobs},
        sysctls={
            change.name.removeprefix("vm."): change.device
            for change in found
            if change.how == "sysctl" and change.device is not None
        },
    )


def _override(name: str, device: Device) -> str | None:
    return device.overrides.get(name) or device.properties.get(PERSIST_PREFIX + name) or None


def merged(older: Saved, newer: Saved) -> Saved:
    """After a second push: what was there before the first one."""
    return Saved(
        serial=older.serial,
        sync=older.sync,
        overrides={**newer.overrides, **older.overrides},
        sysctls={**newer.sysctls, **older.sysctls},
    )


def apply_commands(found: Sequence[Change], device: Device) -> list[str]:
    """Shell commands that apply what can change at run time, in order."""
    puts = {change.name.removeprefix(RO_PREFIX): change.wanted for change in found if change.how in _OVERRIDES}
    commands = []
    if any(change.how == "device_config" for change in found):
        commands.append("cmd device_config set_sync_disabled_for_tests until_reboot")
    commands += [_put(name, text, device.sync) for name, text in puts.items()]
    if _needs_reinit(list(puts), device):
        commands.append(REINIT)
    commands += [_write(change.name.removeprefix("vm."), change.wanted) for change in found if change.how == "sysctl"]
    return commands


_OVERRIDES: Final = ("device_config", "setprop")


def undo_commands(saved: Saved, device: Device) -> list[str]:
    """Shell commands that take a push back, in order."""
    commands = [_put(name, text, saved.sync) for name, text in saved.overrides.items()]
    if _needs_reinit(list(saved.overrides), device):
        commands.append(REINIT)
    commands += [_write(name, text) for name, text in saved.sysctls.items()]
    if saved.overrides and saved.sync in ("none", "false"):
        commands.append("cmd device_config set_sync_disabled_for_tests none")
    elif saved.overrides and saved.sync == "persistent":
        commands.append("cmd device_config set_sync_disabled_for_tests persistent")
    return commands


def _put(name: str, text: str | None, sync: str | None) -> str:
    if sync is None:
        # Set to nothing is how setprop takes a property away.
        return f"setprop {PERSIST_PREFIX}{name} {shlex.quote(text or '')}"
    if text is None:
        return f"cmd device_config delete {NAMESPACE} {name}"
    return f"cmd device_config put {NAMESPACE} {name} {shlex.quote(text)}"


def _needs_reinit(names: Sequence[str], device: Device) -> bool:
    """Whether init does not watch one of them, so that lmkd must be told to read them again."""
    watched = (PROPERTY_BY_NAME[name].watched_since for name in names)
    return any(since is None or tag_index(since) > tag_index(device.tag) for since in watched)


def _write(name: str, text: str) -> str:
    return f"echo {shlex.quote(text)} > /proc/sys/vm/{name}"


def not_arrived(found: Sequence[Change], device: Device) -> list[str]:
    """Names of applied changes that the device, asked again, does not have."""
    missing = []
    for change in found:
        if change.how in _OVERRIDES:
            have = device.properties.get(PERSIST_PREFIX + change.name.removeprefix(RO_PREFIX))
        else:
            have = device.vm.get(change.name.removeprefix("vm.")) if change.how == "sysctl" else change.wanted
        if have != change.wanted:
            missing.append(change.name)
    return missing


def saved_json(saved: Saved) -> dict[str, Any]:
    """For the file that undo reads."""
    return {"schema": 1, **attrs.asdict(saved)}


def saved_from(body: Mapping[str, Any]) -> Saved:
    """The opposite. KeyError if it is no such file."""
    return Saved(
        serial=body["serial"], sync=body["sync"], overrides=dict(body["overrides"]), sysctls=dict(body["sysctls"])
    )
