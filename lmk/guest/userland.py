"""What is in the guest: Android's layout around adbd, mksh, toybox, busybox and our own init, from Debian packages.

Only the programs named here and the libraries they really ask for are taken: the guest's root is a ramfs, so every
byte of it is RAM that can never be reclaimed.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen

from lmk import subproc
from lmk.errors import InfraError
from lmk.guest.cpio import CpioTree
from lmk.guest.elf import interpreter, needed_libraries

SUITE = "trixie"
#: Their dependencies follow by themselves.
PACKAGES = ("adbd", "toybox", "busybox-static", "mksh")
ADBD = "usr/lib/android-sdk/platform-tools/adbd"
_PROGRAMS = (ADBD, "usr/bin/mksh", "usr/bin/toybox", "usr/bin/busybox")
_TRIPLET = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

#: Tools of lmk-guest, as links in /system/bin.
GUEST_TOOLS = ("getprop", "setprop", "start", "stop", "log", "logcat", "lmkd")
#: toybox where Android uses toybox (the same output formats), busybox for what Debian's toybox lacks.
_TOYBOX_APPLETS = """
base64 basename blkid blockdev cat chgrp chmod chown chroot chrt cksum clear cmp comm cp cpio cut date df
dirname dmesg dos2unix du echo egrep env expand fallocate false fgrep file find flock fmt free fsync getconf
grep groups gunzip head hostname hwclock id ifconfig inotifyd insmod ionice iorenice iotop kill killall ln
logname losetup ls lsattr lsmod lspci lsusb md5sum microcom mkdir mkfifo mknod mkswap mktemp modinfo mount
mountpoint mv nc netcat netstat nice nl nohup nproc nsenter od paste patch pgrep pidof ping pkill pmap
printenv printf prlimit ps pwd pwdx readelf readlink realpath renice rev rm rmdir rmmod sed seq setsid
sha1sum sha224sum sha256sum sha384sum sha512sum sleep sort split stat strings swapoff swapon sync sysctl tac
tail tar taskset tee test time timeout top touch true truncate tty ulimit umount uname uniq unix2dos unlink
unshare uptime usleep uudecode uuencode uuidgen vmstat watch wc which whoami xargs xxd yes zcat
"""
TOYBOX_APPLETS = tuple(_TOYBOX_APPLETS.split())
_BUSYBOX_APPLETS = """
ash awk bc dd diff ed expr fold gzip hexdump hostid ip less more nslookup pstree reset route shuf tr
traceroute tree vi unzip wget bunzip2 bzip2 xz unxz
"""
BUSYBOX_APPLETS = tuple(_BUSYBOX_APPLETS.split())

_SERVICES = """\
# The guest's services; the words are Android init's (see docs/guest.md).
service adbd /system/bin/adbd
    oom_score_adj -1000
    # Above the reaper threads (1), which are busy for long, and below the helper (3), which never is.
    rt_priority 2
    cpus 1
    cgroup /sys/fs/cgroup/lmk.protected
    cgroup /dev/memcg/lmk.protected
    restart_period 1

# Stands in for the stock lmkd: setprop lmk.standin_lmkd 1, then start lmkd. It kills if lmk.standin_kill_adj is set.
service lmkd /system/bin/lmkd
    enabled_by lmk.standin_lmkd
    oom_score_adj -1000
"""

_PASSWD = """\
root:x:0:0:root:/data/local/tmp:/system/bin/sh
system:x:1000:1000:system:/data:/system/bin/sh
log:x:1007:1007:log:/data:/system/bin/sh
shell:x:2000:2000:shell:/data/local/tmp:/system/bin/sh
nobody:x:9999:9999:nobody:/:/system/bin/sh
"""
_GROUP = "root:x:0:\nsystem:x:1000:\nlog:x:1007:\nshell:x:2000:\nnobody:x:9999:\n"


@frozen(kw_only=True)
class _DebFile:
    """A regular file or, with ``link``, a symbolic link of a package."""

    data: bytes = b""
    link: str | None = None


def build_tree(debs: Iterable[Path], guest_program: bytes, arch: str) -> CpioTree:
    """The guest's root file system. Raises InfraError when a package lacks a file that is needed."""
    tree = CpioTree()
    _add_directories(tree)
    add_programs(tree, debs, _PROGRAMS, arch)
    _add_commands(tree, guest_program)
    tree.add_file("system/etc/init/services.rc", _SERVICES.encode())
    tree.add_file("etc/passwd", _PASSWD.encode())
    tree.add_file("etc/group", _GROUP.encode())
    tree.add_file("etc/hosts", b"127.0.0.1 localhost\n")
    # Overlays bring the real ones; a guest without an overlay still boots.
    tree.add_file("lmk/boot.conf", b"memcg v2\n")
    tree.add_file("system/build.prop", b"ro.adb.secure=0\n")
    return tree


def add_programs(tree: CpioTree, debs: Iterable[Path], programs: Iterable[str], arch: str) -> None:
    """Programs of packages, by path, with every library they ask for. InfraError when a package lacks one."""
    files: dict[str, _DebFile] = {}
    for deb in debs:
        files.update(_read_deb(deb))
    libraries = f"usr/lib/{_TRIPLET[arch]}"
    for path in _closure(files, programs, (libraries, f"{libraries}/android", f"{libraries}/systemd")):
        found = files[path]
        if found.link is not None:
            tree.add_link(path, found.link)
        else:
            tree.add_file(path, found.data, 0o755)


def _add_directories(tree: CpioTree) -> None:
    for path in (
        "dev",
        "proc",
        "sys",
        "data/local/tmp",
        "system/xbin",
        "system/etc",
        "vendor",
        "mnt",
        "run",
        "root",
        "usr/sbin",
        "var",
    ):
        tree.add_dir(path)
    tree.add_dir("tmp", 0o1777)
    # The kernel opens it for init before devtmpfs is mounted.
    tree.add_char_device("dev/console", 5, 1, 0o600)
    tree.add_char_device("dev/null", 1, 3, 0o666)
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.add_link(name, f"usr/{name}")
    tree.add_link("etc/mtab", "/proc/self/mounts")
    tree.add_link("sdcard", "/data/local/tmp")


def _add_commands(tree: CpioTree, guest_program: bytes) -> None:
    tree.add_file("system/bin/lmk-guest", guest_program, 0o755)
    tree.add_link("init", "/system/bin/lmk-guest")
    tree.add_link("system/bin/adbd", f"/{ADBD}")
    tree.add_link("system/bin/toybox", "/usr/bin/toybox")
    tree.add_link("system/bin/busybox", "/usr/bin/busybox")
    tree.add_link("system/bin/sh", "/system/bin/lmk-guest")
    tree.add_link("usr/bin/sh", "/system/bin/lmk-guest")
    for name in GUEST_TOOLS:
        tree.add_link(f"system/bin/{name}", "lmk-guest")
    for name in TOYBOX_APPLETS:
        tree.add_link(f"system/bin/{name}", "toybox")
    for name in BUSYBOX_APPLETS:
        if f"system/bin/{name}" not in tree:
            tree.add_link(f"system/bin/{name}", "busybox")


def file_in_package(deb: Path, path: str) -> bytes:
    """Content of one file of a package; InfraError where it is not there."""
    found = _read_deb(deb).get(path)
    if found is None or found.link is not None:
        raise InfraError(f"{deb.name} has no file {path}")
    return found.data


def _read_deb(deb: Path) -> dict[str, _DebFile]:
    unpacked = subproc.run(["dpkg-deb", "--fsys-tarfile", str(deb)], timeout_s=120.0).stdout
    files: dict[str, _DebFile] = {}
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for member in archive:
            path = _merged_usr(posixpath.normpath(member.name).lstrip("/"))
            if member.issym():
                files[path] = _DebFile(link=member.linkname)
            elif member.isfile():
                content = archive.extractfile(member)
                files[path] = _DebFile(data=content.read() if content else b"")
            elif member.islnk():
                files[path] = files[_merged_usr(posixpath.normpath(member.linkname).lstrip("/"))]
    return files


def _merged_usr(path: str) -> str:
    """Packages built before the /usr merge still say lib/…"""
    first = path.partition("/")[0]
    return f"usr/{path}" if first in ("bin", "sbin", "lib", "lib64") else path


def _closure(files: Mapping[str, _DebFile], programs: Iterable[str], library_dirs: tuple[str, ...]) -> list[str]:
    """Paths of the programs, their libraries (links and targets) and the dynamic linker."""
    pending, chosen = list(programs), set[str]()
    while pending:
        path = pending.pop()
        if path in chosen:
            continue
        found = files.get(path)
        if found is None:
            raise InfraError(f"no package of the guest image contains {path}", "the Debian suite may have changed")
        chosen.add(path)
        if found.link is not None:
            pending.append(_merged_usr(posixpath.normpath(posixpath.join(posixpath.dirname(path), found.link))))
            continue
        pending += [_library(files, name, library_dirs) for name in needed_libraries(found.data)]
        linker = interpreter(found.data)
        if linker is not None:
            pending.append(_merged_usr(linker.lstrip("/")))
    return sorted(chosen)


def _library(files: Mapping[str, _DebFile], name: str, library_dirs: tuple[str, ...]) -> str:
    for directory in library_dirs:
        if f"{directory}/{name}" in files:
            return f"{directory}/{name}"
    raise InfraError(f"no package of the guest image contains the library {name}", "the Debian suite may have changed")
