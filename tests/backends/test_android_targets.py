"""The Android Emulator and Cuttlefish: exact command lines, and the conversation with stand-ins that start nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from lmk.backends import cuttlefish
from lmk.backends.android import Prepared, check_memory, make_permissive, prepare
from lmk.backends.avd import AvdDevice, avd_arguments, check_avd, free_port
from lmk.backends.cuttlefish import CuttlefishDevice, start_arguments, stop_arguments
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.device.adb import AdbServer
from lmk.errors import BootError, DeviceLostError, HostError, UserError
from lmk.kernel.cache import KernelImage
from lmk.live.devices import parse_target
from lmk.progress import silent
from tests.fakes.adb_server import FakeAdbServer

MEMINFO = "MemTotal:        {} kB\nMemFree:           1000 kB\n"


class FakePhone:
    """Behind the fake adb server: an Android whose shell answers what a run asks before it begins."""

    def __init__(self, mem_total_kib: int, *, enforcing: bool = True) -> None:
        self.mem_total_kib, self.enforcing = mem_total_kib, enforcing
        self.booted_after = 2
        self.uid = "0"
        self.commands: list[str] = []

    def shell(self, command: str) -> tuple[int, bytes, bytes]:
        self.commands.append(command)
        if command == "getprop sys.boot_completed":
            self.booted_after -= 1
            return 0, b"1\n" if self.booted_after <= 0 else b"\n", b""
        if command == "setenforce 0" or command == "setenforce 1":
            self.enforcing = command.endswith("1")
            return 0, b"", b""
        answers = {
            "true": "", "id -u": f"{self.uid}\n", "getprop ro.build.version.release": "14\n",
            "getenforce": "Enforcing\n" if self.enforcing else "Permissive\n",
            "cat /proc/meminfo": MEMINFO.format(self.mem_total_kib),
        }  # fmt: skip
        return (0, answers[command].encode(), b"") if command in answers else (127, b"", b"not found\n")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdbServer]:
    monkeypatch.setattr("lmk.backends.android._POLL_S", 0.01)
    with FakeAdbServer() as fake:
        assert isinstance(fake.address, tuple)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(fake.address[1]))
        yield fake


@pytest.fixture
def config() -> DeviceConfig:
    return load_device_config(find_config("phone-2gb"))


def program(folder: Path, name: str, body: str) -> Path:
    """An executable that records its arguments in NAME.argv, one a line, and then does as told."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0" "$@" >> "{path}.argv"\n{body}\n')
    path.chmod(0o755)
    return path


def argv(path: Path) -> list[str]:
    return Path(f"{path}.argv").read_text().splitlines()


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    body = '[ "$1" = -list-avds ] && { echo Pixel_6; echo Go; exit; }\nexec sleep 600'
    path = program(tmp_path / "sdk" / "emulator", "emulator", body)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    return path


def test_the_emulators_command_line(config: DeviceConfig) -> None:
    plain = attrs.evolve(config, properties={})
    assert avd_arguments("/sdk/emulator", "Pixel_6", plain, 5560, Path("/k/bzImage")) == [
        "/sdk/emulator", "-avd", "Pixel_6", "-port", "5560", "-memory", "2048", "-cores", str(config.cpus),
        "-no-window", "-no-audio", "-no-boot-anim", "-no-snapshot", "-no-metrics", "-read-only",
        "-camera-back", "none", "-camera-front", "none", "-gpu", "swiftshader_indirect",
        "-kernel", "/k/bzImage", "-show-kernel",
    ]  # fmt: skip
    low = attrs.evolve(config, properties={"ro.config.low_ram": "true"})
    assert avd_arguments("e", "a", low, 5554, None)[-2:] == ["-append-userspace-opt", "androidboot.config.low_ram=true"]


def test_cuttlefishs_command_lines(config: DeviceConfig) -> None:
    plain = attrs.evolve(config, properties={})
    common = [
        "--daemon", "--base_instance_num=2", "--num_instances=1", "--memory_mb=2048", f"--cpus={config.cpus}",
        "--guest_enforce_security=false", "--report_anonymous_usage_stats=n", "--data_policy=always_create",
    ]  # fmt: skip
    kernel = ["--kernel_path=/k/bzImage", "--initramfs_path=/k/initramfs.img"]
    files = Path("/k/bzImage"), Path("/k/initramfs.img")
    assert start_arguments("/bin/cvd", 2, plain, *files) == ["/bin/cvd", "create", *common, *kernel]
    assert start_arguments("/b/launch_cvd", 2, plain, *files) == ["/b/launch_cvd", *common, *kernel]
    assert start_arguments("/b/launch_cvd", 2, plain, None, None) == ["/b/launch_cvd", *common]
    assert stop_arguments("/bin/cvd", 2) == ["/bin/cvd", "stop"]
    assert stop_arguments("/b/launch_cvd", 2) == ["/b/stop_cvd", "--instance_nums=2"]


def test_an_avd_from_start_to_end(server: FakeAdbServer, emulator: Path, config: DeviceConfig, tmp_path: Path) -> None:
    port = free_port()
    phone = FakePhone(config.memory_bytes // 1024 - 60_000)
    server.devices = {f"emulator-{port}": "device"}
    server.shell = phone.shell
    device = AvdDevice.boot("Pixel_6", config, tmp_path / "run", None, silent)
    try:
        assert device.adb.serial == f"emulator-{port}"
        assert "setenforce 0" in phone.commands
        assert argv(emulator)[2:] == avd_arguments(str(emulator), "Pixel_6", config, port, None)
    finally:
        process = device._process
        device.close()
    assert process.poll() is not None
    assert "setenforce 1" in phone.commands


def test_an_emulator_that_raised_the_ram_is_refused(
    server: FakeAdbServer, emulator: Path, config: DeviceConfig, tmp_path: Path
) -> None:
    phone = FakePhone(2 * config.memory_bytes // 1024)
    server.devices = {f"emulator-{free_port()}": "device"}
    server.shell = phone.shell
    with pytest.raises(BootError, match="KiB of memory, the config says"):
        AvdDevice.boot("Pixel_6", config, tmp_path / "run", None, silent)
    assert phone.enforcing


def test_an_emulator_that_ends_says_why(
    server: FakeAdbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: DeviceConfig
) -> None:
    body = '[ "$1" = -list-avds ] && { echo Go; exit; }\necho "ERROR: no KVM"; exit 1'
    program(tmp_path / "sdk" / "emulator", "emulator", body)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    server.devices = {}
    with pytest.raises(BootError, match="exit code 1") as caught:
        AvdDevice.boot("Go", config, tmp_path / "run", None, silent)
    assert "no KVM" in caught.value.detail


def installed(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    """Of Cuttlefish's programs this one is found, wherever one looks."""
    found = {program.name: str(program)}
    monkeypatch.setattr("lmk.backends.cuttlefish.shutil.which", lambda name, path: found.get(name))


def test_cuttlefish_from_start_to_end(
    server: FakeAdbServer, config: DeviceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = program(tmp_path / "bin", "launch_cvd", "exit 0")
    stop = program(tmp_path / "bin", "stop_cvd", "exit 0")
    monkeypatch.setattr(
        "lmk.backends.cuttlefish.shutil.which", lambda name, path: str(launch) if name == "launch_cvd" else None
    )
    phone = FakePhone(config.memory_bytes // 1024 - 60_000, enforcing=False)
    server.devices = {"127.0.0.1:6521": "device"}
    server.shell = phone.shell
    device = CuttlefishDevice.boot(2, config, None, None, silent)
    assert device.adb.serial == "127.0.0.1:6521"
    device.close()
    assert argv(launch)[1:] == start_arguments(str(launch), 2, config, None, None)[1:]
    assert argv(stop)[1:] == ["--instance_nums=2"]
    assert "setenforce 0" not in phone.commands


def test_a_cuttlefish_that_does_not_start(
    server: FakeAdbServer, config: DeviceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = program(tmp_path / "bin", "cvd", 'echo "no group kvm" >&2; exit 3')
    monkeypatch.setattr(
        "lmk.backends.cuttlefish.shutil.which", lambda name, path: str(launch) if name == "cvd" else None
    )
    with pytest.raises(BootError, match="no group kvm"):
        CuttlefishDevice.boot(1, config, None, None, silent)


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, emulator: Path) -> None:
    with pytest.raises(UserError, match="knows no AVD Nexus"):
        check_avd("Nexus")
    monkeypatch.delenv("ANDROID_HOME")
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    monkeypatch.setattr("lmk.backends.avd.shutil.which", lambda *_: None)
    monkeypatch.setattr("lmk.backends.cuttlefish.shutil.which", lambda *_, **__: None)
    with pytest.raises(HostError, match="Android Emulator is not installed"):
        check_avd("Go")
    with pytest.raises(HostError, match="Cuttlefish is not installed"):
        cuttlefish.cuttlefish_program()


def test_a_user_build_has_no_root(server: FakeAdbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmk.backends.android.ROOT_TIMEOUT_S", 0.5)
    phone = FakePhone(1000)
    phone.uid = "2000"
    server.shell = phone.shell
    with pytest.raises(DeviceLostError, match="root"):
        prepare(AdbServer.of_user().device("emulator-5554"), None)


def test_selinux_is_left_alone_where_it_is_permissive(server: FakeAdbServer) -> None:
    phone = FakePhone(1000, enforcing=False)
    server.shell = phone.shell
    prepared = Prepared(adb=AdbServer.of_user().device("emulator-5554"))
    assert make_permissive(prepared) == "Permissive"
    prepared.restore()
    assert phone.commands == ["getenforce"]
    assert check_memory(prepared.adb, None) == "1000 KiB"


def image(folder: Path, source: str, key: str) -> KernelImage:
    path = folder / key / "bzImage"
    path.parent.mkdir()
    path.write_bytes(b"kernel")
    return KernelImage(
        image=path, config=path, release=f"6.12-{key}", base="6.12", arch="x86_64", key=key, patched=True, source=source
    )


def test_only_kernels_of_an_android_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = image(tmp_path, "package 6.12.38-1", "aaaaaaaa")
    android = image(tmp_path, "android 6.12.23", "bbbbbbbb")
    monkeypatch.setattr("lmk.kernel.choose.cache.all_images", lambda: [debian, android])
    assert parse_target("avd:Go", "bbbbbb").kernel == android.image
    assert parse_target("cuttlefish", str(android.image)).kernel == android.image
    own = tmp_path / "bzImage"
    own.write_bytes(b"kernel")
    assert parse_target("cuttlefish:2", str(own)).kernel == own
    for words, cause in (
        (("avd:Go", "aaaaaa"), "built from package 6.12.38-1: it lacks"),
        (("avd:Go", str(debian.image)), "it lacks"),
        (("avd:Go", "nothing"), "no such kernel or file"),
        (("qemu", "bbbbbb"), "--kernel with --target qemu"),
        (("cuttlefish:0", None), "no such kind of target"),
        (("avd:", None), "no such kind of target"),
    ):
        with pytest.raises(UserError, match=cause):
            parse_target(*words)


def test_ports_come_in_pairs() -> None:
    port = free_port()
    assert port % 2 == 0
    assert 5554 <= port <= 5584
