"""Build hook: a wheel carries the device programs, stripped and static, under lmk/_data/prebuilt/ARCH/NAME.

An editable installation gets none of it: there the programs are built when first needed, from the sources at hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Named in pyproject.toml, [tool.hatch.build.targets.wheel.hooks.custom]."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile (or take from the cache) and add to the wheel's files."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        try:
            from lmk.device import native
        finally:
            sys.path.remove(self.root)
        for arch in native.PREBUILT_ARCHES:
            for name in native.PROGRAMS:
                binary: Path = native.build(name, arch)
                build_data["force_include"][str(binary)] = f"lmk/_data/prebuilt/{arch}/{name}"
