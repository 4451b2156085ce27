"""The kernel's lines: Android's lowmemorykiller driver, the OOM killer, the OOM reaper.

Sources: drivers/staging/android/lowmemorykiller.c of 3.0 to 4.14 and Qualcomm's, mm/oom_kill.c of 2.6 to 6.12.
"""

from __future__ import annotations

from lmk.logs.wording import Wording, table

#: lowmemorykiller kills on one line; ``[[lowmemorykiller: ]]`` because logcat makes that word a tag.
LMK_KILLS: tuple[Wording, ...] = table(
    (
        ("L1", "kernel 2.6-3.4", "AOSP", "[[lowmemorykiller: ]]send sigkill to {pid} ({comm}), adj {old_adj}, "
         "size {pages}"),
        ("L1", "kernel 3.4-3.10", "AOSP", "[[lowmemorykiller: ]]send sigkill to {pid} ({comm}), score_adj "
         "{adj}, size {pages}"),
        ("L1", "kernel 3.4-3.10", "AOSP", "[[lowmemorykiller: ]]send sigkill to {pid} ({comm}), oom_score_adj "
         "{adj}, size {pages}"),
    )
)  # fmt: skip
#: The first line of the driver's later form; LMK_PARTS are the others, which other lines may get between.
LMK_HEADS = table(
    (
        ("L5", "kernel 4.4-4.14", "Qualcomm", "[[lowmemorykiller: ]]Killing '{comm}' ({pid}) (tgid {tgid}), adj {adj}"),
        ("L2", "kernel 3.10-4.14", "AOSP", "[[lowmemorykiller: ]]Killing '{comm}' ({pid}), adj {adj}"),
        ("L2", "kernel 3.10-4.14", "AOSP", "[[lowmemorykiller: ]]Killing '{comm}' ({pid}), score_adj {adj}"),
    )
)  # fmt: skip
LMK_PARTS = table(
    (
        ("to-free", "kernel 3.10-4.14", "AOSP", "to free {rss_kib}kB on behalf of '{who}' ({who_pid}) because"),
        ("cache", "kernel 4.4-4.14", "Qualcomm", "cache {cache_kib}kB is below limit {limit_kib}kB for oom "
         "score {min_adj}"),
        ("cache", "kernel 3.10-4.14", "AOSP", "cache {cache_kib}kB is below limit {limit_kib}kB for "
         "oom_score_adj {min_adj}"),
        ("free", "kernel 3.10-4.14", "AOSP", "Free memory is {above_reserved_kib}kB above reserved[[, "
         "free_cma={free_cma_kib}kB]]"),
        ("cma", "kernel 3.18-4.14", "Qualcomm", "Free CMA is {free_cma_kib}kB"),
        ("reserve", "kernel 3.18-4.14", "Qualcomm", "Total reserve is {reserve_kib}kB"),
        ("pages", "kernel 3.18-4.14", "Qualcomm", "Total free pages is {free_kib}kB"),
        ("file", "kernel 3.18-4.14", "Qualcomm", "Total file cache is {file_kib}kB"),
        ("zcache", "kernel 3.18", "Qualcomm", "Total zcache is {zcache_kib}kB"),
        ("gfp", "kernel 3.18-4.14", "Qualcomm", "GFP mask is {gfp}"),
    )
)  # fmt: skip
_RSS = " total-vm:{total_vm_kib}kB, anon-rss:{anon_kib}kB, file-rss:{file_kib}kB[[, shmem-rss:{shmem_kib}kB]]"
#: ``Killed process`` ends the message; the others announce it or add to it.
OOM_KILLS = table(
    (
        ("O3", "kernel 5.4-6.x", "Linux", "Out of memory: Killed process {pid} ({comm})" + _RSS
         + "[[, UID:{uid} pgtables:{pgtables_kib}kB oom_score_adj:{adj}]]"),
        ("O3", "kernel 5.4-6.x", "Linux", "Out of memory (oom_kill_allocating_task): Killed process {pid} "
         "({comm})" + _RSS
         + "[[, UID:{uid} pgtables:{pgtables_kib}kB oom_score_adj:{adj}]]"),
        ("O3m", "kernel 5.4-6.x", "Linux", "Memory cgroup out of memory: Killed process {pid} ({comm})" + _RSS
         + "[[, UID:{uid} pgtables:{pgtables_kib}kB oom_score_adj:{adj}]]"),
        ("O2", "kernel 4.19-5.3", "Linux", "Killed process {pid} ({comm}), UID {uid}," + _RSS),
        ("O2", "kernel 2.6-5.3", "Linux", "Killed process {pid} ({comm})" + _RSS),
        ("O2", "kernel 2.6", "Linux", "Killed process {pid} ({comm}) vsz:{total_vm_kib}kB, "
         "anon-rss:{anon_kib}kB, file-rss:{file_kib}kB"),
        ("O2", "kernel 4.x-6.x", "Linux", "Out of memory: Killed process {pid} ({comm})"),
        ("O2", "kernel 2.6-6.x", "Linux", "Killed process {pid} ({comm})"),
        ("O1", "kernel 2.6-5.3", "Linux", "Out of memory: Kill process {pid} ({comm}) score {score} or "
         "sacrifice child"),
        ("O1m", "kernel 2.6-5.3", "Linux", "Memory cgroup out of memory: Kill process {pid} ({comm}) score "
         "{score} or sacrifice child"),
        ("O4", "kernel 5.0-6.x", "Linux", "oom-kill:constraint={constraint},{rest}task={comm},pid={pid},uid={uid}"),
    )
)  # fmt: skip
#: Of these, what says who is going to be killed.
ANNOUNCEMENTS = frozenset({"O1", "O1m"})
REAPS = table(
    (
        ("R1", "kernel 4.6-6.x", "Linux", "oom_reaper: reaped process {pid} ({comm})[[, now anon-rss:{anon_kib}kB]]"
         "[[, file-rss:{file_kib}kB]][[, shmem-rss:{shmem_kib}kB]]"),
    )
)  # fmt: skip
OTHERS = table(
    (
        ("oom-header", "kernel 2.6-6.x", "Linux", "{comm} invoked oom-killer: gfp_mask={gfp}, {rest}"),
        ("page-failure", "kernel 2.6-6.x", "Linux", "{comm}: page allocation failure: order:{order}, mode:{gfp}{rest}"),
        ("oom-none", "kernel 2.6-6.x", "Linux", "Out of memory and no killable processes{rest}"),
        ("oom-reap-failed", "kernel 4.6-6.x", "Linux", "oom_reaper: unable to reap pid:{pid} ({comm}){rest}"),
        ("oom-cgroup", "kernel 2.6-5.x", "Linux", "Task in {memcg} killed as a result of limit of {rest}"),
        ("oom-cgroup", "kernel 4.19-6.x", "Linux", "Tasks in {memcg} are going to be killed due to "
         "memory.oom.group set"),
        ("lmk-convert", "kernel 3.4-4.14", "AOSP", "[[lowmemorykiller: ]]lowmem_shrink: convert oom_adj to "
         "oom_score_adj:{rest}"),
        ("lmk-convert", "kernel 3.4-4.14", "AOSP", "[[lowmemorykiller: ]]oom_adj {old_adj} => oom_score_adj {adj}"),
        ("lmk-debug", "kernel 2.6-4.14", "AOSP", "[[lowmemorykiller: ]]select '{comm}' ({pid}), {rest}"),
        ("lmk-debug", "kernel 2.6-3.4", "AOSP", "[[lowmemorykiller: ]]select {pid} ({comm}), {rest}"),
        ("lmk-debug", "kernel 2.6-4.14", "AOSP", "[[lowmemorykiller: ]]lowmem_{rest}"),
    )
)  # fmt: skip
