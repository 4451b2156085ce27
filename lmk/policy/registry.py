"""Every policy by the word a user selects it with. Written out: what is listed is what exists."""

from __future__ import annotations

from collections.abc import Callable

from lmk.policy.api import Policy
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.none import NonePolicy

POLICIES = ("lmkd", "none")


def make_policy(name: str, android: str) -> Policy:
    """A fresh policy. ``android``: lmkd's release tag ("14Q2"). KeyError for a name that is not in ``POLICIES``."""
    makers: dict[str, Callable[[str], Policy]] = {"lmkd": LmkdPolicy, "none": NonePolicy}
    return makers[name](android)
