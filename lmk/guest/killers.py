"""Other memory killers for the guest: Debian's earlyoom, oomd and systemd-oomd with what they need to run there.

They come as one more archive behind the initramfs, so a guest without them is as small as before. strace is there to
see what they read and whom they kill. There is no systemd in the guest: systemd-oomd gets a message bus, and a server
of one answer in place of PID 1's io.systemd.ManagedOOM (src/oom/oomd-manager.c, process_managed_oom_reply).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs

from lmk import apt
from lmk.guest import userland
from lmk.guest.cpio import CpioTree
from lmk.guest.image import GuestImage
from lmk.progress import Progress, silent
from lmk.resources import cache_dir

PACKAGES = ("earlyoom", "oomd", "systemd-oomd", "dbus-daemon", "strace")
EARLYOOM = "/usr/bin/earlyoom"
OOMD = "/usr/bin/oomd"
SYSTEMD_OOMD = "/usr/lib/systemd/systemd-oomd"
DBUS = "/usr/bin/dbus-daemon"
STRACE = "/usr/bin/strace"
PROGRAMS = (EARLYOOM, OOMD, SYSTEMD_OOMD, DBUS, STRACE)
FOLDER = "/lmk/killers"
BUS_CONFIG = f"{FOLDER}/bus.conf"
ANSWER = f"{FOLDER}/managed-oom"
MANAGED_OOM = "/run/systemd/io.systemd.ManagedOOM"

_BUS = """\
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/></policy></busconfig>
"""


def with_killers(image: GuestImage, progress: Progress = silent) -> GuestImage:
    """The image with the programs behind it, from the cache or made now. HostError when a mirror is missing."""
    debs = apt.open_state(userland.SUITE, image.arch, progress=progress).download(PACKAGES, progress)
    tree = CpioTree()
    userland.add_programs(tree, debs, [path.lstrip("/") for path in PROGRAMS], image.arch)
    tree.add_file(BUS_CONFIG.lstrip("/"), _BUS.encode())
    for folder in ("run/dbus", "run/oomd", "run/systemd/oom", "etc/systemd/oomd.conf.d"):
        tree.add_dir(folder)
    extra = tree.archive()
    key = hashlib.sha256(image.key.encode() + extra).hexdigest()[:24]
    initrd = cache_dir("guest") / f"killers-{image.arch}-{key}.cpio"
    if not initrd.is_file():
        draft = initrd.with_suffix(".new")
        draft.write_bytes(image.initrd.read_bytes() + extra)
        draft.replace(initrd)
    return attrs.evolve(image, initrd=Path(initrd), key=key, ram_kib=image.ram_kib + tree.content_bytes // 1024)


def managed_oom_answer(groups: list[dict[str, object]]) -> bytes:
    """What PID 1 would tell systemd-oomd of the groups it may kill in: one varlink message, more to come."""
    body = {"parameters": {"cgroups": groups}, "continues": True}
    return json.dumps(body, separators=(",", ":")).encode() + b"\0"
