"""Odd kernel text never raises out of the policy, at any release and in any strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmk.policy import api
from lmk.policy.lmkd.versions import TAGS, VENDORS
from lmk.replay.run import lmkd_policy
from tests.policy.cases_later import old_device
from tests.policy.small_world import Device

KERNEL_FILES = (
    *("/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/pressure/memory", "/proc/pressure/io"),
    *("/proc/pressure/cpu", "/dev/memcg/memory.usage_in_bytes", "/dev/memcg/memory.memsw.usage_in_bytes"),
    "/sys/kernel/mm/lru_gen/enabled",
)
numbers = st.one_of(st.integers(), st.just("9" * 30), st.just("-1"), st.just("0x7f"), st.just("")).map(str)
fragments = st.one_of(
    st.sampled_from(
        [
            *("MemFree:", "SwapTotal:", "nr_inactive_file", "pgscan_direct", "workingset_refault_file", "pgrefill"),
            *("Node 0, zone   Normal", "Node 1, zone DMA", "  per-node stats", "  pagesets", "        min"),
            *("        present", "        protection: (", "some avg10=", "full avg10=", "total=", "Tgid:", "VmRSS:"),
            *("VmSwap:", "\n", "\n\n", " ", "\t", "\0", ")", ",", "kB", "é", "\udc80"),
        ]
    ),
    numbers,
    st.text(max_size=4),
)
garbage = st.lists(fragments, max_size=30).map("".join)
contents = st.one_of(garbage, st.none(), st.sampled_from([2, 5, 13]))
tags = st.sampled_from([*TAGS, *VENDORS])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tag=tags,
    old=st.booleans(),
    minfree=st.booleans(),
    files=st.dictionaries(st.sampled_from(KERNEL_FILES), contents, min_size=1, max_size=6),
    process=st.dictionaries(st.sampled_from(["status", "cmdline", "stat"]), garbage, max_size=3),
    statm=st.none() | garbage,
)
def test_any_text_is_survived(
    tag: str,
    old: bool,
    minfree: bool,
    files: dict[str, str | int | None],
    process: dict[str, str],
    statm: str | None,
) -> None:
    device = old_device({"ro.lmk.use_minfree_levels": str(minfree).lower()}) if old else Device()

    def read(request: api.ReadProcess, answer: Callable[[Any], object]) -> object:
        return process.get(request.file) if request.file in process else answer(request)

    def sizes(request: api.ReadSizes, answer: Callable[[Any], object]) -> object:
        return answer(request) if statm is None else [statm for _ in request.pids]

    device.overrides = {api.ReadProcess: read, api.ReadSizes: sizes}
    device.event(50, level=2, k=True, files=files).event(150, level=2, d=True).event(400, level=1, k=True, R=5)
    run = device.run(tag, lmkd_policy, 1500)
    assert run.ended == "done"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tag=tags, mi=st.dictionaries(st.sampled_from(["MemFree", "SwapFree", "SwapTotal", "CmaFree"]), st.integers()))
def test_any_number_is_survived(tag: str, mi: dict[str, int]) -> None:
    for from_text in (False, True):
        device = Device().event(150, level=1, k=True, mi=mi)
        assert device.run(tag, lmkd_policy, 300, from_text=from_text).ended == "done"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tag=tags, mi=st.dictionaries(st.sampled_from(["MemFree", "SwapFree", "Active(anon)"]), st.integers(0, 1 << 70)))
def test_huge_numbers_read_the_same_as_text_and_as_values(tag: str, mi: dict[str, int]) -> None:
    first, second = (
        Device().event(150, level=1, k=True, mi=mi).run(tag, lmkd_policy, 300, from_text=from_text)
        for from_text in (False, True)
    )
    assert [call.effects for call in first.calls] == [call.effects for call in second.calls]
