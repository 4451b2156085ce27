"""A device config as YAML text that loads to an equal config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from lmk.config.device import DEFAULT_COMPRESSIBILITY, DeviceConfig, SystemProcess
from lmk.config.quantity import ByteRate, format_bytes, format_rate

#: Text that any YAML reader takes as written, a number, a truth value or a word.
_PLAIN: Final = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._/+%-]*(?: [A-Za-z0-9._/+%()-]+)*", re.ASCII)
#: Plain words YAML would read as "no value".
_NOTHING: Final = ("null", "Null", "NULL")
_TRUTH_WORDS: Final = ("y", "yes", "n", "no", "on", "off", "true", "false")
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dump_device(config: DeviceConfig) -> str:
    """YAML in the order of the shipped configs. ``load_device_config`` of it gives an equal config."""
    kernel = config.kernel
    lines = [f"name: {quoted_text(config.name)}"]
    if config.description:
        lines.append(f"description: {quoted_text(config.description)}")
    if config.sources:
        lines.append("source:")
        for source in config.sources:
            fields = f"{quoted(', '.join(source.fields))}: " if source.fields else ""
            lines.append(f"  - {fields}{quoted_text(source.text)}")
    lines += [f"memory: {format_bytes(config.memory_bytes)}", f"cpus: {config.cpus}", f"arch: {config.arch}"]
    lines.append(f'android: "{config.android}"')
    if config.zram:
        lines.append(f"zram: {{size: {format_bytes(config.zram.size_bytes)}, algorithm: {config.zram.algorithm}}}")
    if config.storage:
        read = format_rate(ByteRate(amount_bytes=config.storage.read_bytes_per_s, per_ms=1000))
        lines.append(f"storage: {{read: {read}, iops: {config.storage.iops}}}")
    mglru = "true" if kernel.mglru else "false"
    lines.append(f'kernel: {{base: "{kernel.base}", mglru: {mglru}, memcg: {kernel.memcg}}}')
    if config.system or config.unreclaimable_bytes:
        lines.append("system:")
        lines += [f"  {quoted(process.name)}: {_process(process)}" for process in config.system]
        lines.append(f"  unreclaimable: {format_bytes(config.unreclaimable_bytes)}")
    if config.vm:
        lines.append(f"vm: {{{', '.join(f'{name}: {number}' for name, number in config.vm.items())}}}")
    if config.own_properties:
        lines.append("properties:")
        lines += dump_properties(config.own_properties)
    return "\n".join(lines) + "\n"


def dump_properties(properties: Mapping[str, str]) -> Iterable[str]:
    """Indented lines of a ``properties:`` block, values as their text."""
    return (f"  {quoted(name)}: {quoted(text)}" for name, text in properties.items())


def quoted(text: str) -> str:
    """``text`` as a YAML scalar on one line: plain where every reader agrees on it, else in double quotes."""
    if _PLAIN.fullmatch(text) and text not in _NOTHING:
        return text
    return '"' + "".join(_ESCAPES.get(letter) or _printable(letter) for letter in text) + '"'


def quoted_text(text: str) -> str:
    """As ``quoted``, for a key whose value must be text and not look like a number or truth value."""
    if text[:1].isalpha() and text.lower() not in _TRUTH_WORDS:
        return quoted(text)
    plain = quoted(text)
    return plain if plain.startswith('"') else f'"{plain}"'


def _printable(letter: str) -> str:
    if " " <= letter <= "~" or (letter.isprintable() and letter > "\xa0"):
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _process(process: SystemProcess) -> str:
    parts = [f"adj: {process.adj}", f"anon: {format_bytes(process.anon_bytes)}"]
    parts += [f"file: {format_bytes(process.file_bytes)}", f"hot: {_number(process.hot)}"]
    if process.compressibility != DEFAULT_COMPRESSIBILITY:
        parts.append(f"compressibility: {_number(process.compressibility)}")
    return f"{{{', '.join(parts)}}}"


def _number(value: float) -> str:
    # repr may write 1e-05, which YAML 1.1 takes for text.
    text = repr(value)
    return text if "e" not in text else f"{value:.20f}"
