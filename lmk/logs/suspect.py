"""Which lines are looked at, and which of those speak of killing although no table knows them."""

from __future__ import annotations

import re

from lmk.logs.envelope import KERNEL, LogLine
from lmk.logs.lmkd_lines import TAGS

#: A line without any of this is passed over, before anything is parsed.
INTEREST = re.compile(
    r"[Kk]ill|KILL|Reclaim|[Tt]erminat|lowmem|lmkd|oom|OOM|[Oo]ut of memory|died|exited due|am_|sacrific"
    r"|\[?(?:10195355|300[1245]\d)\]?|^==|^------|^\[ "
    r"|Mem|RAM|PSS|Pss|RSS|K: |kB|nr_|avg10|zone|\]: \[|Proc #|PERS #|^\s+#\s*\d+: |ProcessRecord\{|ApplicationExitInfo"
    r"|adj|^ *[a-z_]+ -?\d+$|^\s+\w+ +-?\d+$|Uptime|^\w+,|Swap|Tuning|Page block"
)
#: An excerpt in prose: a quotation mark, a list's bullet, a log viewer's column in front of the tag.
EMBEDDED = re.compile(
    r"(?:^|[\s>|*`\"'/])(?P<tag>lowmemorykiller|lmkd|ActivityManager|Zygote|am_kill|am_proc_died|killinfo)\s*"
    r"(?:\(\s*\d+\))?\s*: ?(?P<text>\S.*)$"
)
_KILL_WORD = re.compile(r"\b(?:kill(?:s|ed|ing)?|reclaim\w*|sigkill|terminat\w+|sacrific\w+)\b", re.IGNORECASE)
_KERNEL = re.compile(
    r"lowmemorykiller\b.*\bkill|send sigkill|oom[-_ ]?kill|out of memory\b.*\bkill|\bkilled process|sacrifice child"
    r"|oom_reaper",
    re.IGNORECASE,
)
_PROSE = re.compile(r"\b(?:lowmemorykiller|lmkd|low memory killer|oom[- ]killer)\b", re.IGNORECASE)
_AM = re.compile(r"\s*Killing\b|\bhas died")
_OPENING = re.compile(r"\b(?:Kill(?:ed|ing)?|Reclaim(?:ing)?) '[^']*(?:'|$)")
_EVENT = re.compile(r"\b(?:am_kill|am_proc_died|killinfo)|send sigkill|\bKilled process")
_EVENTS = ("am_kill", "am_proc_died", "killinfo")


def suspicion(line: LogLine) -> str:
    """Why a line that no table knows may be about a kill; "" if it is not."""
    tag, text = line.tag or "", line.text
    if tag in _EVENTS:
        return f"a malformed {tag} event"
    if line.origin == KERNEL:
        return "the kernel speaks of killing" if _KERNEL.search(text) or _tail(text) else ""
    if tag in TAGS:
        return "lmkd speaks of killing" if _KILL_WORD.search(text) or _tail(text) else ""
    if tag == "ActivityManager":
        return "ActivityManager speaks of a death" if _AM.search(text) else ""
    if _OPENING.search(text):
        return "a kill line under another tag"
    if _EVENT.search(f"{tag} {text}"):
        return "text that names an event of killing"
    if not tag and (_KERNEL.search(text) or _tail(text) or (_PROSE.search(text) and _KILL_WORD.search(text))):
        return "text that speaks of killing"
    return ""


_TAIL = re.compile(r"\s*to free \d+ ?[kK][bB]\b|\s*cache -?\d+kB is below limit")


def _tail(text: str) -> bool:
    """The second half of a kill whose beginning the log has lost."""
    return _TAIL.match(text) is not None
