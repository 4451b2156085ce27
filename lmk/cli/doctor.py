"""``lmk doctor``: what this machine has and lacks for running guests."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from lmk import subproc
from lmk.backends.accel import find_accel
from lmk.backends.qemu_args import HOST_MEMORY_SHARE_MAX
from lmk.cli.runs import DEFAULT_CONFIG
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.config.quantity import format_bytes
from lmk.errors import HostError
from lmk.guest.image import find_guest_image
from lmk.kernel import cache as kernel_cache
from lmk.live.devices import KINDS, parse_target
from lmk.resources import cache_dir
from lmk.units import GIB, MIB

#: Program, Debian package, what it is for.
_TOOLS = (
    ("qemu-system-x86_64", "qemu-system-x86", "runs guests"),
    ("adb", "adb", "talks to devices"),
    ("apt-get", "apt", "fetches kernel sources and the guest's packages"),
    ("dpkg-deb", "dpkg", "unpacks packages"),
    ("mke2fs", "e2fsprogs", "makes the guest's data disk"),
    ("make", "make", "builds kernels"),
    ("gcc", "gcc", "builds kernels"),
    ("flex", "flex", "builds kernels"),
    ("bison", "bison", "builds kernels"),
    ("bc", "bc", "builds kernels"),
)
#: Kernel tree, guest image and the data disk's two copies.
_CACHE_ROOM_BYTES = 12 * GIB


@attrs.frozen(kw_only=True)
class Check:
    """One finding. ``ok`` False is a fault only with ``required``."""

    name: str
    ok: bool
    required: bool
    found: str
    remedy: str = ""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``doctor``."""
    parser = verbs.add_parser("doctor", help="check what this machine has and lacks")
    parser.add_argument(
        "--target",
        metavar="TARGET",
        help=f"also start or reach a target ({', '.join(KINDS)}) and verify every step of a run on it",
    )
    parser.add_argument("--config", default=DEFAULT_CONFIG, metavar="CONFIG", help="what is started (phone-2gb)")
    parser.add_argument("--kernel", metavar="WHICH", help="with --target avd or cuttlefish: boot this kernel")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing required is missing, 2 otherwise."""
    checks = [*_tools(), _accel(), _memory(), _room(), _kernels(), _image()]
    if args.target is not None:
        checks.extend(_target_checks(args))
    good = all(check.ok or not check.required for check in checks)
    if args.json:
        print(json.dumps({"schema": 1, "ok": good, "checks": [attrs.asdict(check) for check in checks]}))
        return 0 if good else 2
    for check in checks:
        mark = "ok" if check.ok else ("MISSING" if check.required else "note")
        print(f"{mark:8}{check.name}: {check.found}" + (f"; {check.remedy}" if check.remedy else ""))
    return 0 if good else 2


def _target_checks(args: argparse.Namespace) -> list[Check]:
    """Every step of a run on a target, by itself; the first that fails is the last."""
    from lmk.live.verify import verify_target

    config = load_device_config(find_config(args.config))
    target = parse_target(args.target, args.kernel)
    with tempfile.TemporaryDirectory(prefix="lmk-doctor-") as folder:
        found = verify_target(target, config, Path(folder))
    return [
        Check(name=f"{target}: {step.name}", ok=step.ok, required=True, found=step.found, remedy=step.remedy)
        for step in found
    ]


def _tools() -> Iterator[Check]:
    for program, package, purpose in _TOOLS:
        name = f"{program} ({purpose})"
        try:
            yield Check(name=name, ok=True, required=True, found=subproc.require_tool(program, package))
        except HostError as error:
            yield Check(name=name, ok=False, required=True, found="not found", remedy=error.remedy)


def _accel() -> Check:
    try:
        accel = find_accel()
    except HostError as error:
        return Check(name="acceleration", ok=False, required=False, found=error.cause, remedy=error.remedy)
    # Guests run either way; without KVM their memory is 5 to 20 times slower than a phone's.
    remedy = "" if accel.name == "kvm" else "guests run in software emulation"
    return Check(
        name="acceleration",
        ok=accel.name == "kvm",
        required=False,
        found=f"{accel.name}: {accel.reason}",
        remedy=remedy,
    )


def _memory() -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    largest = int(total * HOST_MEMORY_SHARE_MAX) // MIB * MIB
    enough = largest >= GIB
    return Check(
        name="memory",
        ok=enough,
        required=True,
        found=f"{total / GIB:.1f} GiB; guests of up to {largest / GIB:.1f} GiB, {len(os.sched_getaffinity(0))} CPUs",
        remedy="" if enough else "a guest needs at least 1 GiB, and 60 % of the host's memory is the limit",
    )


def _room() -> Check:
    folder = cache_dir()
    used = _size(folder)
    free = shutil.disk_usage(folder).free
    enough = free + used >= _CACHE_ROOM_BYTES
    return Check(
        name="cache",
        ok=enough,
        required=False,
        found=f"{folder}: {format_bytes(used // MIB * MIB)} used, {free / GIB:.1f} GiB free",
        remedy="" if enough else "a kernel build and the data disk need 12 GiB; point XDG_CACHE_HOME elsewhere",
    )


def _kernels() -> Check:
    bases = sorted({image.base for image in kernel_cache.all_images()})
    remedy = "" if bases else "built when first needed, or: lmk kernel build"
    return Check(name="kernels", ok=bool(bases), required=False, found=", ".join(bases) or "none", remedy=remedy)


def _image() -> Check:
    try:
        image = find_guest_image()
    except HostError as error:
        return Check(name="guest image", ok=False, required=True, found=error.cause, remedy=error.remedy)
    if image is None:
        return Check(name="guest image", ok=False, required=False, found="none", remedy="built when first needed")
    found = f"{image.initrd} ({image.ram_kib / 1024:.1f} MiB of guest RAM)"
    return Check(name="guest image", ok=True, required=False, found=found)


def _size(folder: Path) -> int:
    """Bytes really allocated below a folder, links not followed."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(parent) / name).lstat().st_blocks * 512
            except OSError:  # another command tidies up at this moment
                continue
    return total
