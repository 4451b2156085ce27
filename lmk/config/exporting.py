"""A device config's settings in the forms Android takes them: prop file, makefile, init rc, device_config.

Pure: config in, text out. What a form cannot carry stands in it as a comment with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lmk.config.device import DeviceConfig
from lmk.config.effective import clamp, parse_value
from lmk.errors import UserError
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTY_BY_NAME, RO_PREFIX
from lmk.policy.lmkd.versions import behaviour, tag_index

#: A word of a makefile's list, which ends at a blank.
_MAKE_WORD: Final = re.compile(r"[^\s#\\]*")


def export_prop(config: DeviceConfig) -> str:
    """For a tree's ``vendor.prop`` or ``system.prop``."""
    lines = [*_head(config), *(f"{name}={text}" for name, text in config.own_properties.items())]
    return _text(lines + _kernel_settings_as_comments(config))


def export_mk(config: DeviceConfig) -> str:
    """For a tree's ``device.mk``."""
    words = []
    comments = []
    for name, text in config.own_properties.items():
        if _MAKE_WORD.fullmatch(text):
            words.append(f"{name}={text.replace('$', '$$')}")
        else:
            comments.append(f"# {name}: a makefile cannot carry its value; use a .prop file")
    block = ["PRODUCT_VENDOR_PROPERTIES += \\", *(f"    {word} \\" for word in words)] if words else []
    if block:
        block[-1] = block[-1].removesuffix(" \\")
    return _text([*_head(config), *block, *comments, *_kernel_settings_as_comments(config)])


def export_rc(config: DeviceConfig) -> str:
    """For an init rc file of a tree: properties before services start, kernel settings at boot."""
    lines = _head(config)
    if config.own_properties:
        # lmkd reads its properties when it starts, in class core.
        lines += ["on early-init", *(f"    setprop {k} {_rc_word(v)}" for k, v in config.own_properties.items())]
    writes = [f"    write /proc/sys/vm/{name} {number}" for name, number in config.vm.items()]
    if config.zram:
        writes += [
            f"    write /sys/block/zram0/comp_algorithm {config.zram.algorithm}",
            f"    write /sys/block/zram0/disksize {config.zram.size_bytes}",
        ]
    return _text(lines + (["on boot", *writes] if writes else []))


def export_device_config(config: DeviceConfig) -> str:
    """A script for ``adb shell``: lmkd's overrides, which take effect without a reboot.

    Raises UserError before Android 12L, where lmkd reads no overrides.
    """
    if not behaviour(config.android).persist_overrides:
        raise UserError(
            f"{config.name}: lmkd of Android {config.android} reads no device_config overrides",
            "export as prop or mk and rebuild, or choose 12L or later",
        )
    puts, comments, reinit = [], [], False
    for name, text in _knobs(config).items():
        row = PROPERTY_BY_NAME.get(name)
        if row is None:
            comments.append(f"# {RO_PREFIX}{name}: not a property of AOSP's lmkd")
        elif not row.persist:
            comments.append(f"# {row.full_name}: lmkd takes no override for it; needs a reboot")
        elif (value := parse_value(row, text)) is not None:
            shown = ("true" if value else "false") if isinstance(value, bool) else str(clamp(row, value))
            puts.append(f"cmd device_config put lmkd_native {name} {shown}")
            watched = row.watched_since is not None and tag_index(row.watched_since) <= tag_index(config.android)
            reinit = reinit or not watched
    lines = ["#!/system/bin/sh", *_head(config)]
    if puts:
        # Without it the next flag sync of a Google build takes the values away again.
        lines += ["cmd device_config set_sync_disabled_for_tests until_reboot", *puts]
    if reinit:
        lines.append("setprop lmkd.reinit 1")
    return _text(lines + comments + _kernel_settings_as_comments(config))


FORMATS: Final[dict[str, Callable[[DeviceConfig], str]]] = {
    "prop": export_prop,
    "mk": export_mk,
    "rc": export_rc,
    "device_config": export_device_config,
}


def _knobs(config: DeviceConfig) -> dict[str, str]:
    """lmkd's own properties by short name; an override wins."""
    found: dict[str, str] = {}
    for prefix in (RO_PREFIX, PERSIST_PREFIX):
        for name, text in config.own_properties.items():
            if name.startswith(prefix):
                found[name.removeprefix(prefix)] = text
    return found


def _head(config: DeviceConfig) -> list[str]:
    return [f"# lmk device config {config.name}, Android {config.android}"]


def _kernel_settings_as_comments(config: DeviceConfig) -> list[str]:
    lines = [f"# not a property: vm.{name}={number} (init rc: write)" for name, number in config.vm.items()]
    if config.zram:
        size, algorithm = config.zram.size_bytes, config.zram.algorithm
        lines.append(f"# not a property: zram {size} bytes {algorithm} (fstab: zramsize={size})")
    return lines


def _rc_word(text: str) -> str:
    if text and not re.search(r'[\s"\\#$]', text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
