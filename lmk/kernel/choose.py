"""``--kernel`` for the Android Emulator and Cuttlefish: which kernels an Android system image can live with."""

from __future__ import annotations

from pathlib import Path

from lmk.errors import UserError
from lmk.kernel import cache
from lmk.kernel.cache import KernelImage
from lmk.kernel.source import ANDROID

_KEY_CHARS_MIN = 6


def android_kernel(text: str) -> Path:
    """The image that ``--kernel`` names: a key, release or path of `lmk kernel list`, or a file of the user's own.

    UserError for one that lmk built from another source than an Android common tree: such a kernel boots lmk's guest,
    but lacks what an Android system image wants.
    """
    image = _built(text)
    if image is not None:
        if not image.source.startswith(f"{ANDROID} "):
            raise UserError(
                f"--kernel {text}: built from {image.source}: it lacks what an Android image wants (gki_defconfig)",
                "lmk kernel build --source TREE, TREE being an Android common kernel",
            )
        if image.debug:
            raise UserError(f"--kernel {text}: a debug kernel", "build it without --debug")
        return image.image
    path = Path(text)
    if not path.is_file():
        raise UserError(f"--kernel {text}: no such kernel or file", "see `lmk kernel list`, or give a bzImage or Image")
    return path.resolve()


def _built(text: str) -> KernelImage | None:
    for image in cache.all_images():
        by_key = len(text) >= _KEY_CHARS_MIN and image.key.startswith(text)
        if by_key or text == image.release or Path(text).resolve() == image.image.resolve():
            return image
    return None
