"""What one log line (or the few lines of one message) says about a kill or a death."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from lmk.logs.stamp import Stamp

#: Kinds of reports, with the words people read for them.
KINDS: Mapping[str, str] = {
    "lmkd": "lmkd's kill lines",
    "killinfo": "killinfo events",
    "klmk": "kernel lowmemorykiller kills",
    "oom": "kernel OOM kills",
    "reap": "oom_reaper lines",
    "am_kill": "am_kill events",
    "am_died": "am_proc_died events",
    "am_text": "ActivityManager: Killing …",
    "phantom": "ActivityManager: Killing PhantomProcessRecord …",
    "died": "ActivityManager: … has died",
    "signal": "Zygote: exited due to signal",
}
#: Reports that somebody was killed for want of memory, and who did it.
KILLERS: Mapping[str, str] = {"lmkd": "lmkd", "killinfo": "lmkd", "klmk": "kernel_lmk", "oom": "kernel_oom"}


@attrs.frozen(kw_only=True)
class Report:
    """``shape`` names the wording (docs/import.md). ``file`` and ``line`` (from 1) say where it stands.

    Sizes are KiB. What the line does not say is None. ``extra`` has the fields that have no attribute.
    """

    kind: str
    shape: str
    file: int = 0
    line: int
    stamp: Stamp | None = None
    #: Which boot of the file a stamp since boot belongs to.
    boot: int = 0
    pid: int | None = None
    name: str | None = None
    uid: int | None = None
    adj: int | None = None
    min_adj: int | None = None
    rss_kib: int | None = None
    swap_kib: int | None = None
    reason: str | None = None
    reason_code: int | None = None
    extra: Mapping[str, int | float | str] = attrs.field(factory=dict)
    text: str = ""


@attrs.frozen(kw_only=True)
class UnknownLine:
    """A line that speaks of killing in words nobody has put into a table. ``why``: what made it suspicious."""

    file: int = 0
    line: int
    stamp: Stamp | None = None
    why: str
    text: str


_ATTRIBUTES = {field.name for field in attrs.fields(Report)} - {
    "kind",
    "shape",
    "file",
    "line",
    "stamp",
    "boot",
    "extra",
    "text",
}


def report_of(
    kind: str, shape: str, line: int, stamp: Stamp | None, text: str, fields: Mapping[str, int | float | str]
) -> Report:
    """Fields that are attributes of a report become such; the others are ``extra``."""
    own = {name: value for name, value in fields.items() if name in _ATTRIBUTES and value != ""}
    extra = {name: value for name, value in fields.items() if name not in _ATTRIBUTES}
    return Report(kind=kind, shape=shape, line=line, stamp=stamp, text=text, extra=extra, **own)  # type: ignore[arg-type]
