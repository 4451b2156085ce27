"""A device config out of a running device: the questions, as one shell command, and what its answer means.

Pure. What a device does not let be read (most of it needs root on a user build) is named in a note and left to
the default; nothing is guessed without saying so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from lmk.config.assemble import Facts, assemble_device
from lmk.config.device import (
    KERNEL_BASES,
    VM_SYSCTLS,
    WITHOUT_MGLRU,
    DeviceConfig,
    KernelChoice,
    Source,
    SystemProcess,
    Zram,
)
from lmk.config.importing import KEPT_PREFIXES, Imported, Setting
from lmk.config.quantity import format_bytes
from lmk.errors import UserError
from lmk.policy.lmkd.versions import LAST_QUARTERLY, TAGS
from lmk.procfs.properties import parse_getprop
from lmk.units import GIB, KIB, MIB

MARK: Final = "@@lmk "
_FILES: Final = (
    *("/proc/meminfo", "/proc/cpuinfo", "/proc/swaps", "/proc/mounts"),
    *("/sys/block/zram0/disksize", "/sys/block/zram0/comp_algorithm", "/sys/kernel/mm/lru_gen/enabled"),
    *(f"/proc/sys/vm/{name}" for name in VM_SYSCTLS),
)
#: The properties come last: whatever their values hold, they cannot pass for another answer.
PROBE_COMMAND: Final = "; ".join(
    (
        f"for f in {' '.join(_FILES)}; do echo '{MARK}'$f; cat $f 2>/dev/null; done",
        f"echo '{MARK}uname'; uname -r",
        f"echo '{MARK}processes'",
        # `read` is the shell's own: no process is started for the hundreds of apps that do not matter.
        "for p in /proc/[0-9]*; do a=0; { read a < $p/oom_score_adj; } 2>/dev/null"
        '; [ "$a" -le -700 ] && echo "adj $a" && grep -E "^(Name|RssAnon|RssFile|VmSwap):" $p/status 2>/dev/null'
        "; done",
        f"echo '{MARK}getprop'; getprop",
    )
)
#: Sizes RAM is sold in; above 4 GiB nothing else is.
_LARGE_SIZES_GIB: Final = (6, 8, 12, 16, 18, 24, 32, 48, 64)
_STATUS: Final = re.compile(r"^(Name|RssAnon|RssFile|VmSwap):\s*(.+?)(?: kB)?$", re.MULTILINE)
_SWAP: Final = re.compile(r"^\S*zram\d+\s+\S+\s+([0-9]+)", re.MULTILINE)
#: Smaller system processes are shown as one.
_SMALL_BYTES: Final = 24 * MIB


def probed_device(answer: str, serial: str, name: str | None = None) -> tuple[DeviceConfig, list[str]]:
    """The config of the device that answered PROBE_COMMAND, and notes. Raises UserError for a device too old."""
    parts = answer_parts(answer)
    properties = parse_getprop(parts.get("getprop", ""))
    notes: list[str] = []
    facts = _facts(parts, properties, serial, name, notes)
    config, more = assemble_device(_settings(parts, properties), facts, [serial])
    kernel = KernelChoice(base=facts.kernel_base, mglru=_mglru(parts, config, notes), memcg=_memcg(parts, config))
    system = _system(parts.get("processes", ""))
    notes += [note for note in more if "nothing to do with killing" not in note]
    notes.append("storage and unreclaimable memory cannot be read from a device: add them")
    model = properties.get("ro.product.model", serial)
    return (
        attrs.evolve(
            config,
            description=f"pulled from {model}",
            sources=(Source(fields=(), text=f"measured: pulled from {model}, {parts.get('uname', '').strip()}"),),
            zram=_zram(parts, config, notes),
            kernel=kernel,
            system=system,
        ),
        notes,
    )


def answer_parts(answer: str) -> dict[str, str]:
    """A probe's answer by question; the properties, whose values may hold anything, come last."""
    head, mark, properties = answer.partition(f"{MARK}getprop\n")
    found = {"getprop": properties} if mark else {}
    for part in head.split(MARK)[1:]:
        name, _, text = part.partition("\n")
        found[name] = text
    return found


def _facts(
    parts: Mapping[str, str], properties: Mapping[str, str], serial: str, name: str | None, notes: list[str]
) -> Facts:
    total = re.search(r"^MemTotal:\s+([0-9]+) kB", parts.get("/proc/meminfo", ""), re.MULTILINE)
    if total is None or not properties:
        raise UserError(f"{serial}: answers neither /proc/meminfo nor getprop", "is this an Android device?")
    memory_bytes = _installed(int(total[1]) * KIB)
    notes.append(f"MemTotal is {int(total[1]) // KIB} MiB: taken as {format_bytes(memory_bytes)} installed")
    abi = properties.get("ro.product.cpu.abi", "")
    arch = "x86_64" if abi.startswith("x86") else "arm64"
    if abi not in ("x86_64", "arm64-v8a"):
        notes.append(f"its architecture is {abi or 'unknown'}: {arch} stands in")
    cpus = len(re.findall(r"^processor\s*:", parts.get("/proc/cpuinfo", ""), re.MULTILINE))
    if not cpus:
        notes.append("/proc/cpuinfo does not say how many CPUs there are: 4 are assumed")
    return Facts(
        name=name or _name(properties.get("ro.product.device", serial)),
        memory_bytes=memory_bytes,
        cpus=min(cpus or 4, 64),
        android=android_tag(properties, serial, notes),
        arch=arch,
        kernel_base=_base(parts.get("uname", "").strip(), notes),
    )


def _installed(total_bytes: int) -> int:
    """The RAM a device with this MemTotal most likely has: kernel and firmware keep up to a tenth to themselves."""
    if total_bytes <= 4 * GIB:
        step = 256 * MIB if total_bytes <= GIB else 512 * MIB
        return -(-total_bytes // step) * step
    larger = [size * GIB for size in _LARGE_SIZES_GIB if size * GIB >= total_bytes]
    return larger[0] if larger else -(-total_bytes // GIB) * GIB


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "device"


def android_tag(properties: Mapping[str, str], serial: str, notes: list[str]) -> str:
    """The release of lmkd that a device's properties speak of; notes say what was assumed. UserError if too old."""
    release = properties.get("ro.build.version.release", "").partition(".")[0]
    if properties.get("ro.build.version.sdk") == "32":
        return "12L"
    if release.isdigit() and int(release) in LAST_QUARTERLY:
        tag = LAST_QUARTERLY[int(release)]
        if tag != release:
            notes.append(f"Android {release} is taken as its last quarterly release, {tag}")
        return tag
    if release.isdigit() and int(release) < min(LAST_QUARTERLY):
        raise UserError(f"{serial}: runs Android {release}", f"lmkd is known from Android {min(LAST_QUARTERLY)} on")
    notes.append(f"Android {release or '(unknown)'} is not known: {TAGS[-1]} stands in")
    return TAGS[-1]


def _base(release: str, notes: list[str]) -> str:
    line = ".".join(release.split(".")[:2])
    if line in KERNEL_BASES:
        return line
    newer = [base for base in KERNEL_BASES if _version(base) >= _version(line)]
    base = newer[0] if newer else KERNEL_BASES[-1]
    notes.append(f"it runs Linux {release or '(unknown)'}: {base} stands in")
    return base


def _version(line: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", line))


def _settings(parts: Mapping[str, str], properties: Mapping[str, str]) -> Imported:
    imported = Imported()
    for name, text in properties.items():
        # Set to nothing is how setprop takes a property away.
        if name.startswith(KEPT_PREFIXES) and text:
            imported.settings[name] = Setting(name=name, text=text, line=0)
    for name in VM_SYSCTLS:
        number = parts.get(f"/proc/sys/vm/{name}", "").strip()
        if number:
            imported.settings[f"vm.{name}"] = Setting(name=f"vm.{name}", text=number, line=0)
    size_bytes = _swap_bytes(parts)
    if size_bytes:
        imported.settings["zram.size"] = Setting(name="zram.size", text=f"{size_bytes}B", line=0)
        chosen = re.search(r"\[(.+?)\]", parts.get("/sys/block/zram0/comp_algorithm", ""))
        if chosen:
            imported.settings["zram.algorithm"] = Setting(name="zram.algorithm", text=chosen[1], line=0)
    # Both are 0 where the other of the pair counts.
    for one, other in (("dirty_bytes", "dirty_ratio"), ("dirty_background_bytes", "dirty_background_ratio")):
        unused = one if imported.settings.get(f"vm.{one}", Setting(name="", text="0", line=0)).text == "0" else other
        imported.settings.pop(f"vm.{unused}", None)
    return imported


def _swap_bytes(parts: Mapping[str, str]) -> int:
    disk = parts.get("/sys/block/zram0/disksize", "").strip()
    if disk.isdigit() and int(disk):
        return int(disk)
    return sum(int(size_kib) for size_kib in _SWAP.findall(parts.get("/proc/swaps", ""))) * KIB


def _zram(parts: Mapping[str, str], config: DeviceConfig, notes: list[str]) -> Zram | None:
    total = re.search(r"^SwapTotal:\s+([0-9]+) kB", parts.get("/proc/meminfo", ""), re.MULTILINE)
    if config.zram is None and total and int(total[1]):
        notes.append(f"it has {int(total[1]) // KIB} MiB of swap, taken as zram")
        return Zram(size_bytes=int(total[1]) * KIB // 4096 * 4096, algorithm="lz4")
    return config.zram


def _mglru(parts: Mapping[str, str], config: DeviceConfig, notes: list[str]) -> bool:
    text = parts.get("/sys/kernel/mm/lru_gen/enabled", "").strip()
    if not re.fullmatch(r"0x[0-9a-f]{1,8}", text):
        return config.kernel.mglru
    enabled = int(text, 16) & 1 == 1
    if enabled and config.kernel.base in WITHOUT_MGLRU:
        notes.append(f"its MGLRU is on, a backport that our Linux {config.kernel.base} lacks: off")
        return False
    return enabled


def _memcg(parts: Mapping[str, str], config: DeviceConfig) -> str:
    for line in parts.get("/proc/mounts", "").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[2] == "cgroup" and "memory" in fields[3].split(","):
            return "v1"
    return config.kernel.memcg


def _system(text: str) -> tuple[SystemProcess, ...]:
    """Processes at adj -700 and below; small ones of one adj as one, equal names numbered."""
    found: dict[str, SystemProcess] = {}
    for chunk in text.split("adj ")[1:]:
        number, _, status = chunk.partition("\n")
        values = dict(_STATUS.findall(status))
        if not {"Name", "RssAnon", "RssFile"} <= values.keys() or not number.strip().lstrip("-").isdigit():
            continue  # a kernel thread, or gone meanwhile
        adj = int(number)
        sizes = [int(values.get(key, "0")) * KIB for key in ("RssAnon", "VmSwap", "RssFile")]
        anon_bytes = sizes[0] + sizes[1]
        name = values["Name"] if anon_bytes >= _SMALL_BYTES else f"small_processes_{-adj}"
        while name in found and anon_bytes >= _SMALL_BYTES:
            name += "_"
        before = found.get(name)
        found[name] = SystemProcess(
            name=name,
            adj=max(adj, -1000),
            anon_bytes=anon_bytes + (before.anon_bytes if before else 0),
            # File pages are shared: of small processes, counting each one's would count the same ones often.
            file_bytes=max(sizes[2], before.file_bytes if before else 0),
            hot=0.5,
            compressibility=2.6,
        )
    return tuple(sorted(found.values(), key=lambda one: (one.adj, -one.anon_bytes)))
