"""Text lines of ActivityManager, Zygote and libprocessgroup about processes that end."""

from __future__ import annotations

from lmk.logs.wording import table

ZYGOTE_TAGS = frozenset({"Zygote", "Zygote32", "Zygote64", "zygote", "zygote64", "WebViewZygoteInit"})

#: Whoever ActivityManager kills by itself: none of these is lmkd's kill.
KILLINGS = table(
    (
        ("A1", "4.2-16", "AOSP", "Killing {pid}:{name}/{owner} (adj {adj}): {reason}"),
        ("A2", "14-16", "Motorola", "Killing {pid}:{name}/{owner} (adj {adj}, setSvc {set_service}): {reason}"),
        ("A3", "4.x-16", "other", "Killing {pid}:{name}/{owner} (adj {adj}{rest}"),
        ("A4", "4.0-4.1", "AOSP", "Killing proc {pid}:{name}/{owner}: {reason}"),
        ("A4", "2.3-4.1", "AOSP", "Killing {pid}:{name}/{owner}: {reason}"),
        ("A5", "4.x-16", "AOSP", "Killing ProcessRecord{rest}"),
        ("A5", "2.3-16", "AOSP", "Killing process {rest}"),
    )
)  # fmt: skip
#: Processes that an app has forked: Android 12 and later keep few of them.
PHANTOM_KILLINGS = table(
    (
        ("P1", "12-16", "AOSP", "Killing PhantomProcessRecord {{hash} {pid}:{parent}:{name}/{owner}}: {reason}"),
        ("P1", "12-16", "AOSP", "Killing PhantomProcessRecord {rest}"),
    )
)  # fmt: skip
DEATHS = table(
    (
        ("D2", "16", "AOSP", "Process {name} (pid {pid}) has died: {label} {plus} {state}[[ ({pss},{rss})]]"),
        ("D2", "8-15", "AOSP, Samsung", "Process {name} (pid {pid}) has died: {label}{plus} {state}[[ ({pss},{rss})]]"),
        ("D2", "9", "Amazon", "Process {name} (pid {pid}) has died: {label}{plus}{state}"),
        ("D3", "4.x", "other", "Process {name} (pid {pid}), (curAdj {adj}) has died{rest}"),
        ("D1", "2.3-16", "AOSP", "Process {name} (pid {pid}) has died{rest}"),
        ("D4", "4.x-16", "AOSP", "Process {name} (pid {pid}) early provider death{rest}"),
    )
)  # fmt: skip
SIGNALS = table(
    (
        ("Z1", "5-16", "AOSP", "Process {pid} exited due to signal {signal}{rest}"),
        ("Z1", "2.3-16", "AOSP", "Process {pid} terminated by signal ({signal}){rest}"),
    )
)  # fmt: skip
#: Lines of the same tags that only sound like the ones above.
OTHERS = table(
    (
        ("group", "5-16", "AOSP, in the kernel's log", "{who}: Successfully killed process cgroup uid {uid} pid "
         "{pid} in {ms}ms"),
        ("group", "5-16", "AOSP", "Successfully killed process cgroup uid {uid} pid {pid} in {ms}ms"),
        ("group", "5-16", "AOSP", "Killing process group {rest}"),
        ("phantom", "12-16", "AOSP", "Process PhantomProcessRecord {rest}"),
        ("restart", "4.x-16", "AOSP", "Scheduling restart of crashed service {rest}"),
    )
)  # fmt: skip


def adj_of_label(label: str, plus: str) -> int | None:
    """``cch+25`` is adj 925; a bare label says only the bucket, so None."""
    digits = plus.lstrip("+ ").strip()
    return 900 + int(digits) if label == "cch" and digits.isdecimal() and int(digits) <= 100 else None
