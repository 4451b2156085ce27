"""System properties a device of a config answers with: the config's own, and what Android derives by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lmk.config.android import BUILD_VERSIONS
from lmk.config.convert import scalar_text
from lmk.config.load import Value
from lmk.config.quantity import InvalidValue

#: bionic's PROP_VALUE_MAX is 92 with the terminating NUL; only ro.* may be longer since Android 8.
VALUE_MAX: Final = 91
_NAME: Final = re.compile(r"[A-Za-z0-9_@:-]+(\.[A-Za-z0-9_@:-]+)*", re.ASCII)
#: Android's name of an architecture: the main ABI, and all of them.
_ABIS: Final = {
    "x86_64": ("x86_64", "x86_64"),
    "arm64": ("arm64-v8a", "arm64-v8a"),
}


def property_value(name: str, value: Value) -> str:
    """One property's text as written. Raises InvalidValue if init would refuse the name or the value."""
    if not _NAME.fullmatch(name):
        raise InvalidValue("not a property name", "letters, digits and . _ - @ : only, no empty part")
    text = scalar_text(value)
    if len(text.encode()) > VALUE_MAX and not name.startswith("ro."):
        raise InvalidValue(f"the value is longer than {VALUE_MAX} bytes, which init refuses")
    if "\n" in text or "\0" in text:
        raise InvalidValue("the value has more than one line")
    return text


def effective_properties(own: Mapping[str, str], *, name: str, android: str, arch: str) -> dict[str, str]:
    """What ``getprop`` answers on the device: derived values under the config's ``own``, sorted by name.

    ``sys.boot_completed`` is 1: a policy starts on a device that has finished booting.
    """
    release, sdk = BUILD_VERSIONS[android]
    abi, abi_list = _ABIS[arch]
    low_ram = own.get("ro.config.low_ram", "false")
    derived = {
        "dev.bootcomplete": "1",
        "ro.adb.secure": "0",
        "ro.boot.config.low_ram": low_ram,
        "ro.boot.hardware": "ranchu",
        "ro.boot.qemu": "1",
        "ro.boot.selinux": "permissive",
        "ro.build.characteristics": "emulator",
        "ro.build.fingerprint": f"lmk/{name}/{name}:{release}/{android}/1:userdebug/test-keys",
        "ro.build.tags": "test-keys",
        "ro.build.type": "userdebug",
        "ro.build.version.codename": "REL",
        "ro.build.version.release": release,
        "ro.build.version.release_or_codename": release,
        "ro.build.version.sdk": str(sdk),
        "ro.config.low_ram": low_ram,
        "ro.debuggable": "1",
        "ro.hardware": "ranchu",
        "ro.kernel.qemu": "1",
        "ro.product.brand": "lmk",
        "ro.product.cpu.abi": abi,
        "ro.product.cpu.abilist": abi_list,
        "ro.product.cpu.abilist64": abi_list,
        "ro.product.device": name,
        "ro.product.manufacturer": "lmk",
        "ro.product.model": name,
        "ro.product.name": name,
        "ro.secure": "0",
        "sys.boot_completed": "1",
    }
    return dict(sorted((derived | dict(own)).items()))
