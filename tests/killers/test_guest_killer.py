"""One scenario with the real earlyoom in the guest, beside our policy fed with what it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.backends.qemu import QemuGuest
from lmk.errors import HostError
from lmk.guest.image import find_guest_image
from lmk.guest.killers import with_killers
from lmk.killers.cases import CASES
from lmk.killers.check import compare
from lmk.killers.guest import device_config, play, prepare
from lmk.killers.trace import parse_trace
from tests.conftest import emulator_required, test_kernel

pytestmark = pytest.mark.emulator


def test_earlyoom_and_our_policy_choose_alike(tmp_path: Path) -> None:
    kernel, image = test_kernel(), find_guest_image()
    if image is None:
        pytest.skip("no guest image is built (lmk emulator up builds one)")
    try:
        image = with_killers(image)
    except HostError as error:
        if emulator_required():
            raise
        pytest.skip(str(error))
    case = next(case for case in CASES if case.name == "equal")
    with QemuGuest.boot(device_config(), kernel, image, run_dir=tmp_path) as guest:
        prepare(guest.adb)
        verdict = compare("earlyoom", case, parse_trace(play(guest, "earlyoom", case)))
    assert verdict.real, "earlyoom killed nobody"
    assert verdict.agree, verdict
