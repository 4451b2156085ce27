"""What the benchmarks in a guest share: boot one, measure the host's other load, print JSON and a table."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lmk.backends.hostload import HostLoad, HostLoadResult
from lmk.backends.qemu import QemuGuest
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.guest.image import build_guest_image
from lmk.kernel.build import build_kernel


def device_config(name: str) -> DeviceConfig:
    """A shipped device config."""
    return load_device_config(find_config(name))


@contextlib.contextmanager
def booted(config: DeviceConfig) -> Iterator[QemuGuest]:
    """A guest of this config, ended afterwards."""
    kernel, image = build_kernel(config.kernel.base, config.arch), build_guest_image(config.arch)
    with (
        tempfile.TemporaryDirectory(prefix="lmk-bench-") as folder,
        QemuGuest.boot(config, kernel, image, run_dir=Path(folder)) as guest,
    ):
        yield guest


@contextlib.contextmanager
def host_load(guest: QemuGuest) -> Iterator[list[HostLoadResult]]:
    """Measure the host during the block; the one result is in the list afterwards."""
    server = guest.adb_server.pid
    load = HostLoad([guest.pid, *([server] if server else [])])
    results: list[HostLoadResult] = []
    yield results
    results.append(load.finish())


def show(title: str, rows: Sequence[dict[str, Any]], facts: dict[str, Any], *, as_json: bool) -> None:
    """One JSON object, or a table of the rows with the facts below."""
    if as_json:
        print(json.dumps({"schema": 1, "benchmark": title, **facts, "rows": list(rows)}))
        return
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right" if isinstance(rows[0][name], int | float) else "left")
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    console = Console(width=160)
    console.print(table)
    console.print(", ".join(f"{name}: {value}" for name, value in facts.items()), highlight=False)
