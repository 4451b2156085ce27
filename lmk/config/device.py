"""A device config: what one device is made of, read from ``device-configs/*.yaml`` or a user's own file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lmk.config.android import android_tag
from lmk.config.check import check_device
from lmk.config.convert import (
    boolean,
    integer,
    number,
    one_of,
    rate,
    size,
    size_or_share,
    string,
)
from lmk.config.load import Document, Section, Value, open_document
from lmk.config.properties import effective_properties, property_value
from lmk.config.quantity import ByteRate, InvalidValue, format_bytes
from lmk.units import GIB, MIB

ARCHITECTURES: Final = ("x86_64", "arm64")
KERNEL_BASES: Final = ("5.10", "6.1", "6.12")
#: The multi-generational LRU came with Linux 6.1.
WITHOUT_MGLRU: Final = ("5.10",)
ZRAM_ALGORITHMS: Final = ("lzo", "lzo-rle", "lz4", "zstd")
#: vm sysctl -> smallest and largest value the kernels of KERNEL_BASES take (kernel/sysctl.c, mm/*.c).
VM_SYSCTLS: Final[dict[str, tuple[int, int]]] = {
    "compaction_proactiveness": (0, 100),
    "dirty_background_bytes": (1, 2**40),
    "dirty_background_ratio": (0, 100),
    "dirty_bytes": (8192, 2**40),
    "dirty_expire_centisecs": (0, 2**31 - 1),
    "dirty_ratio": (0, 100),
    "dirty_writeback_centisecs": (0, 2**31 - 1),
    "laptop_mode": (0, 2**31 - 1),
    "min_free_kbytes": (0, 2**31 - 1),
    "oom_kill_allocating_task": (0, 1),
    "overcommit_memory": (0, 2),
    "overcommit_ratio": (0, 2**31 - 1),
    "page-cluster": (0, 31),
    "panic_on_oom": (0, 2),
    "stat_interval": (1, 2**31 - 1),
    "swappiness": (0, 200),
    "user_reserve_kbytes": (0, 2**31 - 1),
    "admin_reserve_kbytes": (0, 2**31 - 1),
    "vfs_cache_pressure": (0, 2**31 - 1),
    "watermark_boost_factor": (0, 2**31 - 1),
    "watermark_scale_factor": (1, 3000),
}
#: Below it neither the guest's userland nor any Android fits.
MEMORY_MIN_BYTES: Final = 256 * MIB
MEMORY_MAX_BYTES: Final = 1024 * GIB
#: Anonymous memory of system processes as compressed by zram, where a config says nothing else.
DEFAULT_COMPRESSIBILITY: Final = 2.6

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


@attrs.frozen(kw_only=True)
class Source:
    """Where facts of a config come from; ``fields`` are the dotted keys it stands for, none meaning all."""

    fields: tuple[str, ...]
    text: str


@attrs.frozen(kw_only=True)
class Zram:
    """Compressed swap in RAM: its disksize and the kernel's name of the algorithm."""

    size_bytes: int
    algorithm: str


@attrs.frozen(kw_only=True)
class Storage:
    """What the data disk is throttled to."""

    read_bytes_per_s: int
    iops: int


@attrs.frozen(kw_only=True)
class KernelChoice:
    """Which kernel runs, and how memory control is set up in it."""

    base: str
    mglru: bool
    #: "v1" or "v2".
    memcg: str


@attrs.frozen(kw_only=True)
class SystemProcess:
    """A process of the base load. ``hot`` is the share of its memory it keeps touching, 0 to 1."""

    name: str
    adj: int
    anon_bytes: int
    file_bytes: int
    hot: float
    #: Size before over size after compression of its anonymous memory.
    compressibility: float


@attrs.frozen(kw_only=True)
class DeviceConfig:
    """One device, complete: defaults filled in, shares turned into sizes, properties derived."""

    name: str
    description: str
    sources: tuple[Source, ...]
    memory_bytes: int
    cpus: int
    arch: str
    #: lmkd's release tag, e.g. "14Q2"; see lmk.config.android.
    android: str
    zram: Zram | None
    #: None: the data disk runs as fast as the host's.
    storage: Storage | None
    kernel: KernelChoice
    system: tuple[SystemProcess, ...]
    unreclaimable_bytes: int
    #: Sysctls below /proc/sys/vm; the kernel's own default holds for what is absent.
    vm: Mapping[str, int]
    #: As written in the file.
    own_properties: Mapping[str, str]
    #: As getprop answers on the device: own and derived.
    properties: Mapping[str, str]

    def with_properties(self, own: Mapping[str, str], **changes: Any) -> DeviceConfig:
        """The same device with these properties of its own and what Android derives from them; other fields by name."""
        changed = attrs.evolve(self, own_properties=dict(own), **changes)
        derived = effective_properties(own, name=changed.name, android=changed.android, arch=changed.arch)
        return attrs.evolve(changed, properties=derived)

    @property
    def low_ram(self) -> bool:
        """Whether Android counts this as a low-RAM (Go) device."""
        return self.properties["ro.config.low_ram"] in ("1", "y", "yes", "on", "true")

    @property
    def swap_bytes(self) -> int:
        """Size of all swap."""
        return self.zram.size_bytes if self.zram else 0


def load_device_config(path: Path | str) -> DeviceConfig:
    """Read one device config. Raises ConfigErrors naming everything that is wrong with it."""
    document = open_document(path)
    config = read_device_config(document)
    document.problems.raise_if_any()
    check_device(document, config)
    document.problems.raise_if_any()
    return config


def read_device_config(document: Document) -> DeviceConfig:
    """The config in ``document``; usable only if ``document.problems`` has no errors afterwards.

    Every value is looked at by itself; check_device then looks at all of them together.
    """
    with document.root.section() as top:
        name = top.need("name", plain_name, "unnamed")
        memory_bytes = top.need("memory", memory_size, GIB)
        android = top.need("android", android_tag, "14Q2")
        arch = top.take("arch", one_of(*ARCHITECTURES), "x86_64")
        own = top.take("properties", _properties, dict[str, str]())
        system, unreclaimable_bytes = _system(top)
        return DeviceConfig(
            name=name,
            description=top.take("description", string, ""),
            sources=top.take("source", _sources, ()),
            memory_bytes=memory_bytes,
            cpus=top.need("cpus", integer(minimum=1, maximum=64), 1),
            arch=arch,
            android=android,
            zram=_zram(top, memory_bytes),
            storage=_storage(top),
            kernel=_kernel(top),
            system=system,
            unreclaimable_bytes=unreclaimable_bytes,
            vm=top.take("vm", _vm, dict[str, int]()),
            own_properties=own,
            properties=effective_properties(own, name=name, android=android, arch=arch),
        )


def plain_name(value: Value) -> str:
    """A config's name: usable as a file's. Raises InvalidValue."""
    text = string(value)
    if not _NAME.fullmatch(text):
        raise InvalidValue(f"found {text!r}, expected lower-case letters, digits, '.', '_' or '-'")
    return text


def memory_size(value: Value) -> int:
    """RAM in bytes, a whole number of MiB. Raises InvalidValue."""
    memory_bytes = size(value)
    if memory_bytes % MIB:
        binary = value.text.replace("GB", "GiB").replace("MB", "MiB")
        hint = f"did you mean {binary}?" if binary != value.text else ""
        raise InvalidValue(f"found {value.text!r}, which is not a whole number of MiB", hint)
    if not MEMORY_MIN_BYTES <= memory_bytes <= MEMORY_MAX_BYTES:
        limits = f"{format_bytes(MEMORY_MIN_BYTES)} to {format_bytes(MEMORY_MAX_BYTES)}"
        raise InvalidValue(f"found {value.text!r}, expected {limits}")
    return memory_bytes


def _sources(value: Value) -> tuple[Source, ...]:
    items = [value] if value.kind in ("string", "mapping") else value.items()
    found: list[Source] = []
    for item in items:
        if item.kind == "mapping":
            for fields, text in item.entries().items():
                names = tuple(field.strip() for field in fields.split(","))
                found.append(Source(fields=names, text=text.convert(string, "")))
        else:
            found.append(Source(fields=(), text=item.convert(string, "")))
    return tuple(found)


def _zram(top: Section, memory_bytes: int) -> Zram | None:
    if top.get("zram") is None:
        return None
    with top.subsection("zram") as section:
        size_bytes = section.need("size", size_or_share(memory_bytes), 0)
        algorithm = section.need("algorithm", one_of(*ZRAM_ALGORITHMS), "lz4")
        given = section.get("size")
        if given is not None and size_bytes == 0 and not section.problems.errors:
            given.error("found no size at all", "leave out `zram:` for a device without swap")
    return Zram(size_bytes=size_bytes // 4096 * 4096, algorithm=algorithm)


def _storage(top: Section) -> Storage | None:
    if top.get("storage") is None:
        return None
    with top.subsection("storage") as section:
        read = section.need("read", rate, ByteRate(amount_bytes=1, per_ms=1000))
        iops = section.need("iops", integer(minimum=1, maximum=10_000_000), 1)
        given = section.get("read")
        if given is not None and read.bytes_per_s == 0:
            given.error(f"found {given.text!r}, less than one byte per second")
    return Storage(read_bytes_per_s=read.bytes_per_s, iops=iops)


def _kernel(top: Section) -> KernelChoice:
    with top.subsection("kernel") as section:
        base = section.take("base", one_of(*KERNEL_BASES), "6.12")
        return KernelChoice(
            base=base,
            mglru=section.take("mglru", boolean, base not in WITHOUT_MGLRU),
            memcg=section.take("memcg", one_of("v1", "v2"), "v2"),
        )


def _system(top: Section) -> tuple[tuple[SystemProcess, ...], int]:
    value = top.get("system")
    if value is None:
        return (), 0
    entries = value.convert(Value.entries, dict[str, Value]())
    unreclaimable = entries.pop("unreclaimable", None)
    processes = tuple(_process(name, entry) for name, entry in entries.items())
    return processes, unreclaimable.convert(size, 0) if unreclaimable else 0


def _process(name: str, value: Value) -> SystemProcess:
    with value.section() as section:
        return SystemProcess(
            name=name,
            # Everything above is an app's: scenarios bring those.
            adj=section.need("adj", integer(minimum=-1000, maximum=-700), -1000),
            anon_bytes=section.need("anon", size, 0),
            file_bytes=section.take("file", size, 0),
            hot=section.take("hot", number(minimum=0, maximum=1), 0.5),
            compressibility=section.take("compressibility", number(minimum=1, maximum=100), DEFAULT_COMPRESSIBILITY),
        )


def _vm(value: Value) -> dict[str, int]:
    with value.section() as section:
        found: dict[str, int] = {}
        for name, (lowest, highest) in VM_SYSCTLS.items():
            entry = section.get(name)
            if entry is not None:
                found[name] = entry.convert(integer(minimum=lowest, maximum=highest), lowest)
    return found


def _properties(value: Value) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, entry in value.entries().items():
        try:
            found[name] = property_value(name, entry)
        except InvalidValue as invalid:
            entry.error(invalid.cause, invalid.hint)
    return found
