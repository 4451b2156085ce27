"""Every kernel that is built boots as a device: adb answers, and the helper finds and uses what the patches add."""

from __future__ import annotations

import attrs
import pytest

from lmk.backends.qemu import QemuGuest
from lmk.config.device import load_device_config
from lmk.config.find import find_config
from lmk.device.helper import start_helper
from lmk.device.helper_messages import Killed, SettingsDone, Signalled
from lmk.device.helper_requests import Kill
from lmk.device.helper_types import CallState, KillFlag, ReapMethod, TableWhich
from lmk.errors import HostError
from lmk.guest.image import GuestImage, build_guest_image
from tests.conftest import Guests, emulator_required
from tests.device.test_helper_guest import SETTINGS, app
from tests.fakes.helper_peer import expect
from tests.kernel.guest import TARGETS, Target

pytestmark = pytest.mark.emulator
#: The default kernel boots in every other emulator test.
OTHERS = TARGETS[1:]


def image_for(arch: str) -> GuestImage:
    try:
        return build_guest_image(arch)
    except HostError as error:
        if emulator_required():
            raise
        pytest.skip(str(error))


@pytest.fixture(params=OTHERS, ids=str)
def device(request: pytest.FixtureRequest, guest_factory: Guests) -> tuple[Target, QemuGuest]:
    target: Target = request.param
    kernel = target.kernel()
    config = load_device_config(find_config("go-1gb"))
    choice = attrs.evolve(config.kernel, base=target.base, mglru=target.base != "5.10")
    config = attrs.evolve(config, arch=target.arch, kernel=choice)
    return target, guest_factory.boot(config, kernel=kernel, image=image_for(target.arch))


def test_boots_to_adb_and_reaps(device: tuple[Target, QemuGuest]) -> None:
    target, guest = device
    release, machine = guest.adb.check_shell("uname -rm").split()
    assert release.startswith(f"{target.base}.")
    assert machine == {"x86_64": "x86_64", "arm64": "aarch64"}[target.arch]
    with start_helper(guest.adb).connect() as stream:
        assert stream.hello.process_reap == CallState.PRESENT
        assert (stream.hello.process_mrelease == CallState.PRESENT) == (target.base != "5.10")
        stream.request(SETTINGS, SettingsDone)
        pid = app(stream, guest, 64, 900)
        (row,) = stream.table(TableWhich.REGISTERED)
        method = ReapMethod.PROCESS_REAP
        kill_id = stream.post(Kill(handle=row.handle, pid=pid, start_ticks=0, method=method, flags=KillFlag.MEASURE))
        signalled = stream.answer(kill_id)
        assert isinstance(signalled, Signalled) and signalled.error == 0
        told_id, story = expect(stream, Killed, 30)
        assert (told_id, story.method) == (kill_id, method)
        # 0 reaped; ESRCH: its exit was quicker.
        assert story.reap_error in (0, 3) and story.anon_kib_after < 1024
