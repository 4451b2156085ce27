"""Where lmk's own data and its caches are: packaged data, the checkout, the user's cache and state.

Data files live at the top of the checkout (``android-kernel-patch``, ``device-configs``,
``tools/lmk-helper``) and inside a wheel under ``lmk/_data``; callers ask by name and never care which.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
#: A run's record is a few MB; containers give /dev/shm 64.
_SCRATCH_BYTES = 64 << 20


def data_dir(name: str) -> Path:
    """Directory of shipped data, e.g. ``data_dir("device-configs")``; raises FileNotFoundError."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        candidate = root / name
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"lmk's own data directory {name!r} is missing: broken installation")


def scenarios_dir() -> Path:
    """Shipped scenarios (package data in both forms of installation)."""
    return _PACKAGE / "scenarios"


def sweeps_dir() -> Path:
    """Shipped lists of settings for ``lmk sweep`` (package data likewise)."""
    return _PACKAGE / "sweeps"


def cache_dir(*parts: str) -> Path:
    """``$LMK_CACHE`` or ``$XDG_CACHE_HOME/lmk`` (default ~/.cache/lmk) joined with parts; created.

    Everything in it can be rebuilt.
    """
    base = os.environ.get("LMK_CACHE")
    root = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmk"
    path = root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_dir(*parts: str) -> Path:
    """``$XDG_STATE_HOME/lmk`` (default ~/.local/state/lmk): run records, registered emulators; created."""
    base = os.environ.get("LMK_STATE")
    root = Path(base) if base else Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lmk"
    path = root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def scratch_parent() -> Path | None:
    """Where files that nobody keeps go: a file system in memory with room for a record on each CPU, if there is one.
    SQLite waits for the disk at each commit, and so would every worker that simulates for figures alone. None: wherever
    tempfile puts them."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK | os.X_OK):
        return None
    space = os.statvfs(memory)
    return memory if space.f_bavail * space.f_frsize >= _SCRATCH_BYTES * (os.cpu_count() or 1) else None
