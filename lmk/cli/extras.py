"""Parts of lmk that need more than its own dependencies: said in one line, before anything runs."""

from __future__ import annotations

from importlib.util import find_spec

from lmk.errors import UserError


def need_extra(extra: str, *modules: str) -> None:
    """Raises UserError if a module of an optional dependency group is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed", f"pip install 'lmk[{extra}]'")
