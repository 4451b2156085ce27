"""Every policy by the word a user selects it with. Written out: what is listed is what exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lmk.policy.api import Policy
from lmk.policy.earlyoom import EarlyoomPolicy
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.none import NonePolicy
from lmk.policy.oomd import OomdPolicy
from lmk.policy.systemd_oomd import SystemdOomdPolicy

POLICIES = ("lmkd", "none")
#: lmkd's old strategies: the properties that select each. They need memory cgroup v1 (lmk.config.override.in_mode).
LMKD_MODES: Mapping[str, Mapping[str, str]] = {
    "lmkd-minfree": {"ro.lmk.use_new_strategy": "false", "ro.lmk.use_minfree_levels": "true"},
    "lmkd-vmpressure": {
        "ro.lmk.use_new_strategy": "false",
        "ro.lmk.use_minfree_levels": "false",
        "ro.lmk.use_psi": "false",
    },
}
#: For comparison, in the simulator alone: they ask for what the helper on a device does not answer.
SIM_POLICIES = (*POLICIES, *LMKD_MODES, "earlyoom", "oomd", "systemd-oomd")


def make_policy(name: str, android: str) -> Policy:
    """A fresh policy. ``android``: lmkd's release tag ("14Q2"). KeyError for a name not in ``SIM_POLICIES``."""
    makers: dict[str, Callable[[str], Policy]] = {
        "lmkd": LmkdPolicy,
        **dict.fromkeys(LMKD_MODES, LmkdPolicy),
        "none": NonePolicy,
        "earlyoom": lambda _: EarlyoomPolicy(),
        "oomd": lambda _: OomdPolicy(),
        "systemd-oomd": lambda _: SystemdOomdPolicy(),
    }
    return makers[name](android)
