"""``python -m lmk``: the same as the ``lmk`` command."""

from lmk.cli.main import entry_point

entry_point()
