"""Real guests: what a device config asks for is what the kernel in QEMU has."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import attrs
import pytest

from lmk.backends import registry
from lmk.backends.qemu import QemuGuest
from lmk.config.device import Storage, load_device_config
from lmk.config.find import find_config
from lmk.device.adb import AdbDevice
from lmk.errors import BootError, DeviceLostError, UserError
from lmk.guest.datadisk import POOL_BYTES, POOL_PATH
from lmk.guest.image import build_guest_image
from lmk.live.stock import transport_cpus
from tests.conftest import Guests, test_kernel

pytestmark = pytest.mark.emulator


def test_memory_swap_and_cpus_are_the_configs(guest: QemuGuest) -> None:
    config, facts = guest.config, guest.facts
    assert facts.mem_total_kib * 1024 <= config.memory_bytes
    assert config.zram is not None
    assert facts.swap_total_kib * 1024 == config.zram.size_bytes - 4096  # the header page
    assert facts.cpus == min(config.cpus, len(os.sched_getaffinity(0)))
    chosen = guest.adb.check_shell("cat /sys/block/zram0/comp_algorithm")
    assert f"[{config.zram.algorithm}]" in chosen


def test_userland_takes_at_most_64_mib(guest: QemuGuest) -> None:
    assert guest.facts.userland_kib <= 64 * 1024


def test_sysctls_and_mglru_are_the_configs(guest: QemuGuest) -> None:
    for name, value in guest.config.vm.items():
        assert guest.adb.check_shell(f"cat /proc/sys/vm/{name}").strip() == str(value), name
    enabled = int(guest.adb.check_shell("cat /sys/kernel/mm/lru_gen/enabled"), 16)
    assert bool(enabled) == guest.config.kernel.mglru


def test_every_property_of_the_config_is_answered(guest: QemuGuest) -> None:
    listing = guest.adb.check_shell("getprop")
    answered = dict(re.findall(r"^\[(.*?)\]: \[(.*)\]$", listing, re.MULTILINE))
    assert {name: answered.get(name) for name in guest.config.properties} == dict(guest.config.properties)
    assert guest.adb.getprop("no.such.property") == ""
    assert guest.adb.check_shell("getprop no.such.property fallback") == "fallback\n"


def test_properties_follow_androids_rules(guest: QemuGuest) -> None:
    guest.adb.setprop("lmk.test", "one")
    guest.adb.setprop("lmk.test", "two words")
    assert guest.adb.getprop("lmk.test") == "two words"
    assert guest.adb.shell("setprop ro.debuggable 0").exit_code == 1
    assert guest.adb.getprop("ro.debuggable") == "1"
    assert guest.adb.shell("setprop ro.lmk_test_once x").exit_code == 0
    assert guest.adb.shell("setprop ro.lmk_test_once y").exit_code == 1
    assert guest.adb.shell(f"setprop lmk.long {'x' * 91}").exit_code == 0
    assert guest.adb.shell(f"setprop lmk.long {'x' * 92}").exit_code == 1
    assert guest.adb.shell("setprop bad..name x").exit_code == 1
    assert guest.adb.shell("setprop ../../etc/passwd x").exit_code == 1


def test_a_property_is_never_read_half_written(guest: QemuGuest) -> None:
    loop = "i=0; while [ $i -lt 40 ]; do setprop lmk.race aaaaaaaa; setprop lmk.race bbbbbbbb; i=$((i+1)); done"
    guest.adb.setprop("lmk.race", "aaaaaaaa")
    seen = guest.adb.check_shell(
        f"({loop}) & j=0; while [ $j -lt 60 ]; do getprop lmk.race; j=$((j+1)); done; wait", timeout_s=60
    )
    assert set(seen.split()) <= {"aaaaaaaa", "bbbbbbbb"}


def test_androids_layout(guest: QemuGuest) -> None:
    guest.adb.check_shell("test -x /system/bin/sh && test -d /dev/socket && test -w /data/local/tmp")
    assert guest.adb.check_shell("id -u").strip() == "0"
    assert "KSH" in guest.adb.check_shell("echo $KSH_VERSION")
    guest.adb.check_shell("test -d /sys/kernel/tracing/events/vmscan")
    controllers = guest.adb.check_shell("cat /sys/fs/cgroup/cgroup.subtree_control").split()
    assert "memory" in controllers


def test_adbd_is_kept_out_of_reclaim_and_shells_are_not(guest: QemuGuest) -> None:
    pid = guest.adb.getprop("init.svc_debug_pid.adbd")
    assert guest.adb.check_shell(f"cat /proc/{pid}/oom_score_adj").strip() == "-1000"
    assert "lmk.protected" in guest.adb.check_shell(f"cat /proc/{pid}/cgroup")
    assert int(guest.adb.check_shell("cat /sys/fs/cgroup/lmk.protected/memory.min")) >= 32 << 20
    assert "lmk.protected" not in guest.adb.check_shell("cat /proc/self/cgroup")


def test_data_disk_has_really_written_blocks(guest: QemuGuest) -> None:
    size, blocks = guest.adb.check_shell(f"stat -c '%s %b' {POOL_PATH}").split()
    assert int(size) == POOL_BYTES
    assert int(blocks) * 512 >= POOL_BYTES
    before = _sectors_read(guest.adb)
    guest.adb.check_shell(f"dd if={POOL_PATH} of=/dev/null bs=1048576 count=16 skip=777")
    assert _sectors_read(guest.adb) - before >= 16 * 2048
    zeros = "dd if=/dev/zero bs=4096 count=1 2>/dev/null | sha256sum"
    page = f"dd if={POOL_PATH} bs=4096 count=1 skip=1234 2>/dev/null | sha256sum"
    assert guest.adb.check_shell(zeros) != guest.adb.check_shell(page)


def test_adbd_runs_ahead_of_what_its_shells_start(guest: QemuGuest) -> None:
    adbd = guest.adb.getprop("init.svc_debug_pid.adbd")
    policy = "cut -d' ' -f40,41 /proc/{}/stat"  # real-time priority and scheduling policy; proc(5)
    assert guest.adb.check_shell(policy.format(adbd)).split() == ["2", str(os.SCHED_FIFO)]
    assert guest.adb.check_shell(policy.format("self")).split() == ["0", str(os.SCHED_OTHER)]


def test_what_carries_bytes_shares_one_cpu_and_shells_leave_it(guest: QemuGuest) -> None:
    cpus = "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/{}/status"
    adbd = guest.adb.getprop("init.svc_debug_pid.adbd")
    assert transport_cpus({"ro.lmk_guest.transport_cpus": guest.adb.getprop("ro.lmk_guest.transport_cpus")}) == 1
    assert guest.adb.check_shell(cpus.format(adbd)).strip() == "0"
    interrupts = "for i in $(grep virtio0- /proc/interrupts | cut -d: -f1); do cat /proc/irq/$i/smp_affinity; done"
    assert {int(mask, 16) for mask in guest.adb.check_shell(interrupts).split()} == {1}
    everywhere = f"0-{guest.facts.cpus - 1}" if guest.facts.cpus > 1 else "0"
    assert guest.adb.check_shell(cpus.format("self")).strip() == everywhere


def test_services_start_stop_and_come_back(guest: QemuGuest) -> None:
    assert guest.adb.shell("start nothing").stderr.startswith("Unable to start service 'nothing': no such service")
    assert guest.adb.shell("start lmkd").exit_code == 1  # not enabled
    guest.adb.setprop("lmk.standin_lmkd", "1")
    guest.adb.check_shell("start lmkd")
    first = guest.adb.getprop("init.svc_debug_pid.lmkd")
    assert guest.adb.getprop("init.svc.lmkd") == "running"
    guest.adb.check_shell(f"kill -9 {first}")
    assert _eventually(lambda: guest.adb.getprop("init.svc_debug_pid.lmkd") not in ("", first), 10)
    guest.adb.check_shell("stop lmkd")
    assert guest.adb.getprop("init.svc.lmkd") == "stopped"
    assert guest.adb.getprop("init.svc_debug_pid.lmkd") == ""
    guest.adb.setprop("lmk.standin_lmkd", "0")


def test_log_and_logcat(guest: QemuGuest) -> None:
    guest.adb.check_shell("logcat -c -b all")
    guest.adb.check_shell("log -t lmktest -p w 'one two'; log -t other x; log -b events -t killinfo '[12,900]'")
    main = guest.adb.check_shell("logcat -d")
    assert re.search(r"^--------- beginning of main$", main, re.MULTILINE)
    assert re.search(r"^\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} +\d+ +\d+ W lmktest : one two$", main, re.MULTILINE)
    assert "killinfo" not in main
    assert re.search(r" I killinfo: \[12,900\]$", guest.adb.check_shell("logcat -d -b events"), re.MULTILINE)
    only = guest.adb.check_shell("logcat -d -s lmktest")
    assert "one two" in only and "other" not in only
    assert guest.adb.check_shell("logcat -d -v brief lmktest:E '*:S'").count("\n") == 0


def test_storage_is_throttled(guest_factory: Guests) -> None:
    config = load_device_config(find_config("go-1gb"))
    slow = attrs.evolve(config, storage=Storage(read_bytes_per_s=8 << 20, iops=10_000))
    guest = guest_factory.boot(slow)
    seconds = float(
        guest.adb.check_shell(
            f"a=$(cut -d' ' -f1 /proc/uptime); dd if={POOL_PATH} of=/dev/null bs=1048576 count=24 2>/dev/null;"
            "b=$(cut -d' ' -f1 /proc/uptime); echo $a $b | awk '{print $2 - $1}'",
            timeout_s=60,
        )
    )
    # 24 MiB at 8 MiB/s; QEMU lets a tenth of a second through at once.
    assert 2.5 <= seconds <= 8


def test_memcg_v1_where_the_config_says_so(guest_factory: Guests) -> None:
    config = load_device_config(find_config("go-1gb"))
    guest = guest_factory.boot(attrs.evolve(config, kernel=attrs.evolve(config.kernel, memcg="v1", mglru=False)))
    guest.adb.check_shell("test -f /dev/memcg/apps/memory.usage_in_bytes")
    assert "memory" not in guest.adb.check_shell("cat /sys/fs/cgroup/cgroup.controllers").split()
    pid = guest.adb.getprop("init.svc_debug_pid.adbd")
    assert "memory:/lmk.protected" in guest.adb.check_shell(f"cat /proc/{pid}/cgroup")
    assert "memory:/lmk.protected" not in guest.adb.check_shell("cat /proc/self/cgroup")
    guest.adb.check_shell("mkdir /sys/fs/cgroup/f && test -f /sys/fs/cgroup/f/cgroup.freeze")
    assert int(guest.adb.check_shell("cat /sys/kernel/mm/lru_gen/enabled"), 16) == 0


def test_qemu_runs_at_lower_priority_than_we_do(guest: QemuGuest) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, guest.pid) > ours
    with guest.qmp() as qmp:
        for thread_id in qmp.cpu_threads():
            assert os.getpriority(os.PRIO_PROCESS, thread_id) > os.getpriority(os.PRIO_PROCESS, guest.pid)
    assert guest.adb_server.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, guest.adb_server.pid) == ours


def test_adb_answers_while_memory_runs_out(guest_factory: Guests) -> None:
    guest = guest_factory.boot()
    adbd = guest.adb.getprop("init.svc_debug_pid.adbd")
    hog = f"echo 900 > /proc/self/oom_score_adj; cat {POOL_PATH} {POOL_PATH} | tail -c 4000000000"
    guest.adb.check_shell(f"setsid sh -c '{hog}' </dev/null >/dev/null 2>&1 &")
    # The pool does not compress, so zram fills RAM as fast as it empties it, until the kernel kills the hog.
    oom_kills, end = 0, time.monotonic() + 120
    while time.monotonic() < end and not oom_kills:
        oom_kills = int(guest.adb.check_shell("grep oom_kill /proc/vmstat", timeout_s=60).split()[1])
        time.sleep(0.1)
    assert oom_kills == 1
    # Nothing that has to answer was killed or swapped out on the way there.
    assert guest.adb.getprop("init.svc_debug_pid.adbd") == adbd
    assert re.search(r"VmSwap:\s+0 kB", guest.adb.check_shell(f"cat /proc/{adbd}/status"))


def test_panic_at_boot_ends_quickly_with_the_consoles_last_lines(guest_factory: Guests) -> None:
    began = time.monotonic()
    with pytest.raises(BootError, match=r"the guest's kernel panicked: .*root") as caught:
        guest_factory.boot(extra_cmdline="rdinit=/missing")
    assert "Kernel panic" in caught.value.detail
    assert caught.value.exit_code == 3 and caught.value.owner == "target"
    assert time.monotonic() - began < 60


def test_panic_while_running_ends_qemu(guest_factory: Guests) -> None:
    guest = guest_factory.boot()
    with contextlib.suppress(DeviceLostError):
        guest.adb.shell("echo c > /proc/sysrq-trigger", timeout_s=5)
    assert _eventually(lambda: not guest.alive, 20)
    assert "Kernel panic" in guest.console_tail()


def test_a_setting_the_kernel_refuses_is_reported(guest_factory: Guests) -> None:
    config = load_device_config(find_config("go-1gb"))
    with pytest.raises(BootError, match=r"refused: sysctl vm/no_such_knob = 1: this kernel has no such setting"):
        guest_factory.boot(attrs.evolve(config, vm={**config.vm, "no_such_knob": 1}))


def test_silent_guest_ends_at_the_deadline(guest_factory: Guests) -> None:
    with pytest.raises(BootError, match="did not reach adb within 6 s"):
        guest_factory.boot(extra_cmdline="rdinit=/system/bin/yes", timeout_s=6)


def test_adb_survives_the_death_of_its_server(guest_factory: Guests) -> None:
    guest = guest_factory.boot()
    assert guest.adb_server.pid is not None
    os.kill(guest.adb_server.pid, signal.SIGKILL)
    guest.adb.recover(30)
    assert guest.adb.shell("true").exit_code == 0


def test_kill_9_of_the_parent_kills_qemu(guest_factory: Guests, tmp_path: Path) -> None:
    guest_factory.close()
    test_kernel()
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from lmk.backends.qemu import QemuGuest
        from lmk.config.device import load_device_config
        from lmk.config.find import find_config
        from lmk.guest.image import build_guest_image
        from tests.conftest import test_kernel
        config = load_device_config(find_config("go-1gb"))
        guest = QemuGuest.boot(config, test_kernel(), build_guest_image(), run_dir=Path({str(tmp_path)!r}))
        print(guest.pid, guest.adb_server.pid, flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    assert _eventually(lambda: not any(_runs(pid) for pid in pids), 5)


def test_up_list_attach_down(guest_factory: Guests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    guest_factory.close()
    monkeypatch.setenv("LMK_STATE", str(tmp_path))
    config = load_device_config(find_config("go-1gb"))
    kernel, image = test_kernel(), build_guest_image()
    emulator = registry.up(config, kernel, image, name="one", idle_s=600)
    try:
        assert [(e.name, e.state, e.port) for e in registry.list_emulators()] == [("one", "running", emulator.port)]
        with pytest.raises(UserError, match="an emulator named one is already up"):
            registry.up(config, kernel, image, name="one")
        with pytest.raises(UserError, match="did you mean one"):
            registry.attach("ones")
        with registry.attach("one") as attached:
            assert attached.adb.getprop("ro.product.device") == "go-1gb"
        assert _runs(emulator.pid)
    finally:
        registry.down("one")
    assert registry.list_emulators() == []
    assert _eventually(lambda: not _runs(emulator.pid), 5)
    assert emulator.console_path.is_file()


def test_an_idle_guest_powers_itself_off(
    guest_factory: Guests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest_factory.close()
    monkeypatch.setenv("LMK_STATE", str(tmp_path))
    config = load_device_config(find_config("go-1gb"))
    emulator = registry.up(config, test_kernel(), build_guest_image(), name="idler", idle_s=8)
    try:
        assert _eventually(lambda: not registry.list_emulators(), 60)
    finally:
        if registry.list_emulators():
            registry.down("idler")
    assert "idle for 8 s" in emulator.console_path.read_text(errors="replace")


def _sectors_read(adb: AdbDevice) -> int:
    return int(adb.check_shell("cat /sys/block/vda/stat").split()[2])


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _eventually(condition: object, timeout_s: float) -> bool:
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


#: QEMU where KVM runs the probe and then stops at an instruction of Linux, as nested virtualisation does.
_HALF_KVM = """#!/bin/sh
case "$*" in
*"-accel kvm"*isa-debug-exit*) exit 85 ;;
*"-accel kvm"*) echo "KVM internal error. Suberror: 1"; exec sleep 600 ;;
*) exec REAL "$@" ;;
esac
"""


@pytest.mark.skipif(not os.access("/dev/kvm", os.W_OK), reason="without /dev/kvm nothing is tried")
def test_a_kvm_that_cannot_run_linux_is_given_up(
    guest_factory: Guests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("qemu-system-x86_64")
    assert real is not None
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(_HALF_KVM.replace("REAL", real))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    guest = guest_factory.boot()
    assert guest.accel.name == "tcg"
    assert guest.accel.reason == "Linux under KVM: KVM internal error. Suberror: 1"
    assert guest.adb.check_shell("echo alive").strip() == "alive"
