"""Fixtures for everyone: the --slow switch, and guests in QEMU for tests marked ``emulator``.

``guest`` is a booted go-1gb that tests share, so they must leave it usable; ``guest_factory`` boots one of its own
for a test that breaks or configures it. Only one guest runs at a time: on two cores a second one would disturb both.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmk.backends.qemu import QemuGuest
from lmk.config.device import DeviceConfig, load_device_config
from lmk.config.find import find_config
from lmk.errors import HostError
from lmk.guest.image import GuestImage, build_guest_image, find_guest_image
from lmk.kernel import cache as kernel_cache
from lmk.kernel.build import KernelImage, build_kernel, find_kernel

SHARED_CONFIG = "go-1gb"
#: Data, among it a project with tests of its own (tests/test_pytest_plugin.py runs them).
collect_ignore = ["data"]


def pytest_configure() -> None:
    """Ctrl-C must work whoever started us: a shell's background job, and all its children, would ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--slow`` also runs the tests that take minutes; ``--all-vectors`` replays all recordings, not a sample."""
    parser.addoption("--slow", action="store_true", help="run tests marked slow as well")
    parser.addoption("--all-vectors", action="store_true", help="replay all of ../shared/vectors")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless asked for."""
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="takes minutes: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def emulator_required() -> bool:
    """LMK_REQUIRE_EMULATOR=1: a missing kernel or image is built instead of skipping the test."""
    return os.environ.get("LMK_REQUIRE_EMULATOR") == "1"


def test_kernel(base: str = "6.12") -> KernelImage:
    """The kernel of a base to test with; skips the test when none is built."""
    found = find_kernel(base)
    if found is None and emulator_required():
        return build_kernel(base)
    if found is None:
        others = [i for i in kernel_cache.all_images() if i.base == base and i.patched and not i.debug]
        found = max(others, key=lambda image: image.image.stat().st_mtime, default=None)
    if found is None:
        pytest.skip(f"no {base} kernel is built (lmk kernel build --base {base}, or LMK_REQUIRE_EMULATOR=1)")
    return found


test_kernel.__test__ = False  # type: ignore[attr-defined]


def _image() -> GuestImage:
    try:
        found = find_guest_image()
        if found is None and not emulator_required():
            pytest.skip("no guest image is built (lmk emulator up builds one, or LMK_REQUIRE_EMULATOR=1)")
        return found or build_guest_image()
    except HostError as error:
        if emulator_required():
            raise
        pytest.skip(str(error))


class Guests:
    """Boots guests, at most one alive at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._current: QemuGuest | None = None
        self._shared = False

    def boot(self, config: str | DeviceConfig = SHARED_CONFIG, **options: Any) -> QemuGuest:
        """A guest of one's own; options go to ``QemuGuest.boot``. It is closed when the next one is wanted."""
        self.close()
        device = load_device_config(find_config(config)) if isinstance(config, str) else config
        kernel = options.pop("kernel", None) or test_kernel(device.kernel.base)
        self._count += 1
        run_dir = self._folder / str(self._count)
        image = options.pop("image", None) or _image()
        self._current = QemuGuest.boot(device, kernel, image, run_dir=run_dir, **options)
        self._shared = False
        return self._current

    def shared(self) -> QemuGuest:
        """The shared guest, booted anew if it is gone."""
        if self._current is None or not self._shared or not self._current.alive:
            self.boot()
            self._shared = True
        assert self._current is not None
        self._current.adb.recover(30)
        return self._current

    def close(self) -> None:
        """End the guest that runs."""
        if self._current is not None:
            self._current.close()
            self._current = None


@pytest.fixture(scope="session")
def guest_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    """``guest_factory.boot(config, **options)`` -> QemuGuest."""
    guests = Guests(tmp_path_factory.mktemp("guests"))
    yield guests
    guests.close()


@pytest.fixture
def guest(guest_factory: Guests) -> QemuGuest:
    """The shared guest."""
    return guest_factory.shared()
