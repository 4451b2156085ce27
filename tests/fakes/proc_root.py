"""A /proc tree that a test writes: the helper is pointed at it with --proc-root."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = """\
MemTotal:        2048000 kB
MemFree:          100000 kB
MemAvailable:     400000 kB
Buffers:            1000 kB
Cached:           300000 kB
SwapTotal:       1000000 kB
SwapFree:         500000 kB
"""
PSI = """\
some avg10=0.00 avg60=0.00 avg300=0.00 total=0
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
"""


class ProcRoot:
    """One directory. Files are rewritten in place, because the helper keeps descriptors open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("meminfo", MEMINFO)
        self.write("vmstat", "nr_free_pages 25000\nnr_zone_inactive_anon 1\n")
        self.write("zoneinfo", "Node 0, zone      DMA\n  pages free     3968\n")
        self.write("pressure/memory", PSI)
        self.write("pressure/io", PSI)
        self.write("pressure/cpu", PSI)

    def write(self, name: str, text: str | bytes) -> None:
        """Create or rewrite one file."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def read(self, name: str) -> str:
        """What is in one file now."""
        return (self.path / name).read_text()

    def make_fifo(self) -> None:
        """Turn pressure/memory into a FIFO: each ``press`` then is a pressure event."""
        path = self.path / "pressure/memory"
        path.unlink()
        os.mkfifo(path)

    def press(self) -> None:
        """One pressure event; the helper must have armed its trigger."""
        fd = os.open(self.path / "pressure/memory", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, b"!")
        finally:
            os.close(fd)

    def add_process(
        self,
        pid: int,
        *,
        name: str = "com.example.app",
        start_ticks: int = 1000,
        oom_score_adj: int = 0,
        rss_kib: int = 40960,
        uid: int = 10001,
        tgid: int | None = None,
    ) -> None:
        """All the files of one process that anybody reads."""
        anon_kib, shmem_kib, swap_kib = rss_kib // 2, rss_kib // 4, 512
        self.write(
            f"{pid}/status",
            f"Name:\t{name[:15]}\nTgid:\t{pid if tgid is None else tgid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
            f"VmRSS:\t{rss_kib:8} kB\nRssAnon:\t{anon_kib:8} kB\nRssFile:\t{rss_kib - anon_kib - shmem_kib:8} kB\n"
            f"RssShmem:\t{shmem_kib:8} kB\nVmSwap:\t{swap_kib:8} kB\n",
        )
        fields = ["S", "1", *["0"] * 17, str(start_ticks), *["0"] * 30]
        # A comm that tries hard to look like further fields.
        self.write(f"{pid}/stat", f"{pid} (a) R 1 (b) {' '.join(fields)}\n")
        self.write(f"{pid}/statm", f"{rss_kib} {rss_kib // 4} 100 1 0 200 0\n")
        self.write(f"{pid}/cmdline", name.encode() + b"\0--flag\0")
        self.write(f"{pid}/comm", name[:15] + "\n")
        self.write(f"{pid}/oom_score_adj", f"{oom_score_adj}\n")
        self.write(f"{pid}/cgroup", "0::/\n")

    def adj(self, pid: int) -> int:
        """What is in that process's oom_score_adj."""
        return int(self.read(f"{pid}/oom_score_adj"))
