"""The simulator's busy modules as extension modules, compiled by mypyc, for the wheel, beside their sources.

A compiled day takes two fifths of an interpreted one. What runs is the same code, and tests/test_wheel.py compares the
records byte for byte. Constants there are ``Final`` (others are looked up by name at each use), and what busy code
calls or counts in is a class or an abstract class, no Protocol and not of attrs. A result is kept in
``cache_dir("mypyc")`` under a key of all that goes into it. Standard library only, until mypyc itself is called.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

#: What a day spends its time in. Where attrs makes the class (lmk.policy.api, lmk.record) there is nothing to win.
MODULES = (
    *("lmk/units.py", "lmk/config/app_adj.py", "lmk/engine/kills.py", "lmk/engine/loop.py", "lmk/engine/observer.py"),
    *(
        f"lmk/policy/lmkd/{name}.py"
        for name in ("daemon", "memory", "policy", "polling", "psi_rules", "psi_strategy", "thrashing", "waiting")
    ),
    *(
        f"lmk/sim/{name}.py"
        for name in (
            *("activity", "compactor", "cpus", "deaths", "kswapd", "lru", "lru_classic", "lru_gen", "lru_memcg"),
            *("machine", "memory", "page_list", "process", "procfs", "psi", "reaper", "region", "run", "runner"),
            *("storage", "target", "timing", "vmpressure", "workload", "zone", "zram"),
        )
    ),
)
#: -O3 takes half as long again to compile, and a run as long as with -O2.
_OPTIMIZATION = "2"
#: Of what an isolated build has not installed nothing is compiled.
_MYPY_FLAGS = ("--disable-error-code=import-untyped", "--disable-error-code=import-not-found")
_TIMEOUT_S = 1200.0
#: In the environment: leave it.
PURE = "LMK_PURE_PYTHON"


class CannotCompileError(Exception):
    """Why this machine builds no extension modules: one line."""


def build(root: Path, cache: Path) -> dict[Path, str]:
    """The extension modules of the checkout ``root``, each with its place in site-packages; from ``cache`` if nothing
    changed. Raises CannotCompileError."""
    compiler = _require_tools()
    sources = _with_imports(root, MODULES)
    result = cache / _key(root, sources, compiler)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.is_dir():
            _compile(root, sources, result)
    return {path: str(path.relative_to(result)) for path in sorted(result.rglob("*.so"))}


def _require_tools() -> str:
    """The C compiler's command. Raises CannotCompileError."""
    if os.environ.get(PURE, "0") not in ("", "0"):
        raise CannotCompileError(f"{PURE} is set")
    for name in ("mypyc", "setuptools"):
        if importlib.util.find_spec(name) is None:
            raise CannotCompileError(f"{name} is not installed")
    compiler = os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise CannotCompileError(f"there is no C compiler ({compiler})")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise CannotCompileError("Python.h is not installed (Debian: python3-dev)")
    return compiler


def _with_imports(root: Path, modules: tuple[str, ...]) -> list[str]:
    """The modules and all of lmk that they import, directly or not: what the types of the compiled code depend on."""
    found: set[str] = set()
    rest = list(modules)
    while rest:
        path = rest.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                packages = ["/".join((*parts[:length], "__init__.py")) for length in range(1, len(parts) + 1)]
                rest += [file for file in ("/".join(parts) + ".py", *packages) if (root / file).is_file()]
    return sorted(found)


def _key(root: Path, sources: list[str], compiler: str) -> str:
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(name) for name in ("mypy", "setuptools")]
    abi = (sysconfig.get_config_var("EXT_SUFFIX"), platform.libc_ver(), sysconfig.get_config_var("CFLAGS"))
    digest.update(repr((sys.version, abi, compiler, versions, MODULES)).encode())
    digest.update(Path(__file__).read_bytes())
    for source in sources:
        digest.update(f"\0{source}\0".encode() + (root / source).read_bytes())
    return digest.hexdigest()[:24]


def _compile(root: Path, sources: list[str], result: Path) -> None:
    """In a directory of its own: setuptools would read our pyproject.toml, and mypy its settings. Raises
    CannotCompileError."""
    with tempfile.TemporaryDirectory(dir=result.parent) as scratch:
        work = Path(scratch, "work")
        for source in sources:
            (work / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / source, work / source)
        built = Path(scratch, "built")
        argv = [sys.executable, str(Path(__file__).resolve()), "--into", str(built)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MYPY")}
        try:
            done = subprocess.run(argv, cwd=work, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise CannotCompileError(f"mypyc was not done in {_TIMEOUT_S:.0f} s") from None
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
            raise CannotCompileError(f"mypyc failed: {lines[0] if lines else f'exit code {done.returncode}'}")
        built.rename(result)


def _run_mypyc(into: Path) -> None:
    """Compile the modules below the working directory; setuptools calls the C compiler."""
    from mypyc.build import mypycify
    from setuptools import setup

    extensions = mypycify(
        [*_MYPY_FLAGS, *MODULES], opt_level=_OPTIMIZATION, debug_level="0", group_name="lmk", target_dir="c"
    )
    for extension in extensions:
        extension.extra_link_args = [*(extension.extra_link_args or ()), "-s"]
    script = ["--quiet", "build_ext", "--build-lib", str(into), "--build-temp", "objects"]
    setup(name="lmk", ext_modules=extensions, script_args=script)


def main() -> int:
    parser = argparse.ArgumentParser(description="compile in the working directory (the wheel's build hook calls it)")
    parser.add_argument("--into", type=Path, required=True)
    with contextlib.redirect_stdout(sys.stderr):
        _run_mypyc(parser.parse_args().into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
