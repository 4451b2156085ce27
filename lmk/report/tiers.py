"""The colours of oom_score_adj tiers: the same few groups in every view, terminal and browser alike."""

from __future__ import annotations

from lmk.policy.oom_adj import tier

#: Tier -> group of tiers that share a colour, most protected first.
GROUP_OF = {
    "native": "system",
    "system": "system",
    "persistent": "system",
    "foreground": "foreground",
    "perceptible-recent": "visible",
    "visible": "visible",
    "perceptible": "perceptible",
    "backup": "service",
    "heavy-weight": "service",
    "service": "service",
    "home": "service",
    "previous": "previous",
    "service-b": "previous",
    "cached": "cached",
}
GROUPS = ("system", "foreground", "visible", "perceptible", "service", "previous", "cached")
UNKNOWN = "unknown"

#: For rich: what a user would notice stands out, what is expendable recedes.
TERMINAL_STYLE = {
    "system": "magenta",
    "foreground": "bold red",
    "visible": "red",
    "perceptible": "yellow",
    "service": "green",
    "previous": "blue",
    "cached": "",
    UNKNOWN: "dim",
}


def tier_name(oom_score_adj: int | None) -> str:
    """The tier's name; "unknown" where the record does not say, or says nonsense."""
    if oom_score_adj is None or not -1000 <= oom_score_adj <= 1000:
        return UNKNOWN
    return tier(oom_score_adj)


def tier_group(oom_score_adj: int | None) -> str:
    """One of ``GROUPS``, or ``UNKNOWN``."""
    return GROUP_OF.get(tier_name(oom_score_adj), UNKNOWN)
