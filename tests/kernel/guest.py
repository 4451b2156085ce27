"""Selftests of a built kernel, run in a minimal guest: one boot per kernel runs everything. For the tests here only."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import attrs
import pytest

from lmk import apt, subproc
from lmk.errors import LmkError
from lmk.guest import userland
from lmk.kernel.bases import BASES, DEFAULT_BASE
from lmk.kernel.build import find_kernel
from lmk.kernel.cache import KernelImage
from lmk.kernel.selftests import build_selftests
from lmk.kernel.trial import run_trial

#: Swap for the swap test, an ext4 that may be frozen, every event and check of ours switched on.
SETUP = """
echo lz4 > /sys/block/zram0/comp_algorithm
echo 256M > /sys/block/zram0/disksize
mkswap /dev/zram0 > /dev/null && swapon /dev/zram0
losetup /dev/loop0 /ext4.img && mount -t ext4 /dev/loop0 /mnt
for switch in module/oom_kill/parameters/sharing_check_mode=2 kernel/tracing/events/oom/process_reap/enable=1; do
  test -e /sys/${switch%=*} && echo ${switch#*=} > /sys/${switch%=*}
done
"""
#: What our patches add, with its argument; and upstream's own that the patches must leave as they are.
OURS = {"process_reap_test": "/mnt", "test_cgroup_reap": "/mnt"}
MRELEASE = ("mrelease_test", "mrelease_test_reap")
CGROUP_KILL = "cgroup_test_kill"
_COMPLAINTS = "WARNING|BUG:|Oops|blocked for more"


@attrs.frozen(kw_only=True)
class Target:
    """A kernel that tests run on. ``required`` (see tools/test): missing is a failure, not a skip."""

    base: str
    arch: str = "x86_64"
    debug: bool = False
    patched: bool = True

    def __str__(self) -> str:
        words = [self.base, self.arch, *(["debug"] if self.debug else []), *([] if self.patched else ["unpatched"])]
        return "-".join(words)

    @property
    def build_command(self) -> str:
        """The command that builds it."""
        options = [f"--base {self.base}", *([f"--arch {self.arch}"] if self.arch != "x86_64" else [])]
        options += [*(["--debug"] if self.debug else []), *([] if self.patched else ["--unpatched"])]
        return " ".join(["lmk kernel build", *options])

    def kernel(self) -> KernelImage:
        """The built kernel; skips the test, or fails it, where there is none, and where others are not asked for."""
        if not (self.debug or self == DEFAULT or _all_kernels()):
            pytest.skip(f"kernel {self} is tested by tools/test --all-kernels")
        program = "qemu-system-aarch64" if self.arch == "arm64" else "qemu-system-x86_64"
        found = None
        try:
            found = find_kernel(self.base, self.arch, debug=self.debug, patched=self.patched)
            missing = "" if found is not None else f"kernel {self} is not built: {self.build_command}"
        except LmkError as error:
            missing = str(error)
        if not missing and shutil.which(program) is None:
            missing = f"{program} is not installed"
        if missing:
            assert not self._required(), missing
            pytest.skip(missing)
        assert found is not None
        return found

    def _required(self) -> bool:
        if _all_kernels():
            return not self.debug
        return self == DEFAULT and os.environ.get("LMK_REQUIRE_EMULATOR") == "1"


def _all_kernels() -> bool:
    return os.environ.get("LMK_REQUIRE_KERNELS") == "all"


#: The one that every run of the suite tests.
DEFAULT = Target(base=DEFAULT_BASE)
#: Every kernel that the patches are tested on.
TARGETS = [*(Target(base=base) for base in BASES), Target(base=DEFAULT_BASE, arch="arm64")]


@attrs.frozen(kw_only=True)
class Results:
    """What one guest printed, by program."""

    target: Target
    programs: tuple[str, ...]
    output: str

    def section(self, name: str) -> str:
        """Output of one program; "" is a program that printed nothing."""
        match = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", self.output, re.MULTILINE | re.DOTALL)
        assert match is not None, f"{name} did not run"
        return match[1]

    def exit_code(self, name: str) -> int:
        """Exit code of one program."""
        match = re.search(rf"^## {re.escape(name)} exit (\d+)$", self.output, re.MULTILINE)
        assert match is not None, f"{name} did not end:\n{self.output[-2000:]}"
        return int(match[1])


def script(programs: Sequence[str]) -> str:
    """The guest's script: programs one by one, then what the kernel has traced and complained about."""
    runs = [f"echo '## {p}'; /tests/{p} {OURS.get(p, '')}; echo \"## {p} exit $?\"" for p in programs]
    traced = "echo '## trace'; grep process_reap: /sys/kernel/tracing/trace"
    complaints = f"echo '## dmesg'; dmesg | grep -E '{_COMPLAINTS}' || true"
    return "\n".join([SETUP, *runs, traced, complaints])


def ext4_image(directory: Path) -> bytes:
    """A small file system for a loop device."""
    image = directory / "ext4.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subproc.run([subproc.require_tool("mkfs.ext4", "e2fsprogs"), "-q", "-F", image], timeout_s=60)
    return image.read_bytes()


@cache
def foreign_busybox(arch: str) -> Path | None:
    """busybox for a guest of another architecture than the host's, from Debian; None: the host's own will do."""
    if arch == "x86_64":
        return None
    (deb,) = (f for f in apt.open_state(userland.SUITE, arch).download(["busybox-static"]) if "busybox" in f.name)
    binary = deb.with_suffix(".busybox")
    binary.write_bytes(userland.file_in_package(deb, "usr/bin/busybox"))
    return binary


@cache
def run_selftests(target: Target, directory: Path, programs: tuple[str, ...] = ()) -> Results:
    """Run ``programs`` (default: ours, and those of upstream that touch what we change) on one kernel."""
    kernel = target.kernel()
    built = build_selftests(kernel)
    wanted = tuple(p for p in programs or (*OURS, *MRELEASE, CGROUP_KILL) if p in built)
    files = {f"/tests/{name}": built[name].read_bytes() for name in wanted}
    files["/ext4.img"] = ext4_image(directory)
    result = run_trial(
        kernel,
        script(wanted),
        files,
        memory_mib=3072 if target.debug else 1536,
        timeout_s=900.0 if target.debug else 300.0,
        busybox=foreign_busybox(target.arch),
    )
    return Results(target=target, programs=wanted, output=result.output)
