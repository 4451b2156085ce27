"""Build hook: a wheel carries the device programs, stripped and static, under lmk/_data/prebuilt/ARCH/NAME, and the
simulator's busy modules compiled, beside their sources.

An editable installation gets none of it: there the programs are built when first needed, from the sources at hand, and
the modules are interpreted. Without a C compiler, or with LMK_PURE_PYTHON=1, a wheel has no compiled modules either.
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
        sys.path[:0] = [self.root, str(Path(self.root, "tools"))]
        try:
            import compile_sim

            from lmk.device import native
            from lmk.resources import cache_dir
        finally:
            del sys.path[:2]
        for arch in native.PREBUILT_ARCHES:
            for name in native.PROGRAMS:
                binary: Path = native.build(name, arch)
                build_data["force_include"][str(binary)] = f"lmk/_data/prebuilt/{arch}/{name}"
        try:
            extensions = compile_sim.build(Path(self.root), cache_dir("mypyc"))
        except compile_sim.CannotCompileError as error:
            self.app.display_warning(f"{error}: a pure Python wheel, in which lmk sim takes 1.7 times as long")
            return
        build_data["force_include"].update({str(path): place for path, place in extensions.items()})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
