"""Contradictions are errors, knobs without effect are warnings; each is one exact line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config.check import VENDOR_KNOBS
from lmk.config.device import load_device_config
from lmk.config.effective import effective_knobs
from lmk.config.find import shipped_configs
from lmk.config.report import check_file
from lmk.policy.lmkd.params import PERSIST_PREFIX, PROPERTIES, PROPERTY_NAMES, load_params
from lmk.policy.lmkd.versions import TAGS, behaviour
from tests.config.helpers import VALID, errors_of, write

NO_SWAP = VALID.replace("zram: {size: 1GiB, algorithm: lz4}\n", "description: no swap\n")
V1 = "kernel: {base: 5.10, memcg: v1}\n"


def properties(*lines: str) -> str:
    """A `properties:` block; its first property stands on line 8 of VALID plus it."""
    return "properties:\n" + "".join(f"  {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (NO_SWAP + properties("ro.lmk.swap_free_low_percentage: 20"),
         "8: properties.ro.lmk.swap_free_low_percentage: a limit on free swap on a device without swap; "
         "add `zram:`, or remove it"),
        (NO_SWAP + properties("ro.lmk.swap_util_max: 90"),
         "8: properties.ro.lmk.swap_util_max: a limit on used swap on a device without swap; "
         "add `zram:`, or remove it"),
        (VALID + properties("ro.lmk.psi_complete_stall_ms: 1500"),
         "8: properties.ro.lmk.psi_complete_stall_ms: a stall of 1500 ms does not fit into the PSI window of "
         "1000 ms; the kernel refuses the trigger and lmkd cannot use PSI; write 0 (off) to 1000"),
        (VALID + properties("persist.device_config.lmkd_native.psi_partial_stall_ms: -1"),
         "8: properties.persist.device_config.lmkd_native.psi_partial_stall_ms: a stall of -1 ms does not fit "
         "into the PSI window of 1000 ms; the kernel refuses the trigger and lmkd cannot use PSI; "
         "write 0 (off) to 1000"),
        (VALID.replace("14", "N1") + properties("ro.lmk.psi_window_size_ms: 20000"),
         "8: properties.ro.lmk.psi_window_size_ms: a PSI window of 20000 ms, and Linux 6.12 takes 1 to 10000"),
        (VALID.replace("14", "N1") + "kernel: {base: '6.1'}\n" + properties(
            "ro.lmk.psi_window_size_ms: 400", "ro.lmk.psi_complete_stall_ms: 300"),
         "9: properties.ro.lmk.psi_window_size_ms: a PSI window of 400 ms, and Linux 6.1 takes 500 to 10000"),
        (VALID + properties("ro.lmk.use_minfree_levels: true"),
         "8: properties.ro.lmk.use_minfree_levels: lmkd runs the minfree strategy here, which needs memory cgroups "
         "v1, and kernel.memcg is v2; write `kernel: {memcg: v1}`, or ro.lmk.use_new_strategy: true"),
        (VALID + properties("ro.lmk.use_psi: false"),
         "8: properties.ro.lmk.use_psi: lmkd runs the vmpressure strategy here, which needs memory cgroups v1, "
         "and kernel.memcg is v2; write `kernel: {memcg: v1}`, or ro.lmk.use_new_strategy: true"),
        (VALID + properties("ro.lmk.swap_free_low_percentage: 150"),
         "8: properties.ro.lmk.swap_free_low_percentage: found 150, allowed is 0 to 100; "
         "lmkd silently uses 100; write that"),
        (VALID + properties("ro.lmk.thrashing_limit: -5"),
         "8: properties.ro.lmk.thrashing_limit: found -5, allowed is at least 0; lmkd silently uses 0; write that"),
        (VALID + properties("ro.lmk.thrashing_limit: many"),
         "8: properties.ro.lmk.thrashing_limit: found 'many', which lmkd takes for unset: "
         "expected a whole number (int32)"),
        (VALID + properties("ro.lmk.thrashing_limit: 4294967296"),
         "8: properties.ro.lmk.thrashing_limit: found '4294967296', which lmkd takes for unset: "
         "expected a whole number (int32)"),
        (VALID + properties("ro.lmk.kill_timeout_ms: 100ms"),
         "8: properties.ro.lmk.kill_timeout_ms: found '100ms', expected a plain number, in ms; "
         "lmkd reads 100; write that"),
        (VALID + properties("ro.lmk.thrashing_limit: 30%"),
         "8: properties.ro.lmk.thrashing_limit: found '30%', expected a plain number, in %; lmkd reads 30; write that"),
        (VALID + properties("ro.lmk.swap_compression_ratio: 1.5"),
         "8: properties.ro.lmk.swap_compression_ratio: found '1.5', expected a plain number; lmkd reads 1; write that"),
        (VALID + properties("ro.lmk.thrashing_limit: 1e2"),
         "8: properties.ro.lmk.thrashing_limit: found '1e2', expected a plain number, in %; lmkd reads 1; write that"),
        (VALID + properties("ro.lmk.thrashing_limit: 080"),
         "8: properties.ro.lmk.thrashing_limit: found '080', expected a plain number, in %; lmkd reads 0; write that"),
        (VALID + properties("ro.lmk.kill_heaviest_task: True"),
         "8: properties.ro.lmk.kill_heaviest_task: found 'True', which lmkd takes for unset: "
         "expected true or false; write true"),
        (VALID + properties("ro.config.low_ram: maybe"),
         "8: properties.ro.config.low_ram: found 'maybe', which lmkd takes for unset: expected true or false"),
        (VALID + properties("ro.lmk.trashing_limit: 30"),
         "8: properties.ro.lmk.trashing_limit: unknown property of lmkd; did you mean ro.lmk.thrashing_limit?"),
        (VALID + properties("persist.device_config.lmkd_native.swap_free_low_percent: 5"),
         "8: properties.persist.device_config.lmkd_native.swap_free_low_percent: unknown property of lmkd; "
         "did you mean persist.device_config.lmkd_native.swap_free_low_percentage?"),
        (VALID + properties("ro.lmk.filecache_min_kb: 2097152"),
         "8: properties.ro.lmk.filecache_min_kb: found 2097152 kB, which is all of the memory or more"),
        (VALID + "vm: {min_free_kbytes: 1200000}\n",
         "7: vm.min_free_kbytes: keeps 1228800kB free, more than half of the memory"),
        (VALID + "system:\n  unreclaimable: 2GiB\n",
         "7: system: the base load of 2GiB does not leave any of 2GiB of memory; "
         "lower anon or unreclaimable, or raise memory"),
        (VALID + "kernel: {base: 5.10, mglru: true}\n",
         "7: kernel.mglru: Linux 5.10 has no multi-generational LRU; write false, or leave it out"),
        (VALID + "kernel: {base: 5.10}\nvm: {watermark_scale_factor: 2000}\n",
         "8: vm.watermark_scale_factor: found 2000, Linux 5.10 takes at most 1000"),
    ],
)  # fmt: skip
def test_each_contradiction_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = write(tmp_path, text.replace("algorithm: lzN1", "algorithm: lz4"))
    assert errors_of(load_device_config, path) == [f"c.yaml:{line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (VALID + properties("ro.lmk.upgrade_pressure: 40"),
         "8: properties.ro.lmk.upgrade_pressure: has no effect: only the vmpressure strategy reads it, "
         "and this device runs psi"),
        (VALID + V1 + properties("ro.lmk.use_minfree_levels: true", "ro.lmk.thrashing_limit: 30"),
         "10: properties.ro.lmk.thrashing_limit: has no effect: only the psi strategy reads it, "
         "and this device runs minfree"),
        (VALID + properties("ro.lmk.lowmem_min_oom_score: 800"),
         "8: properties.ro.lmk.lowmem_min_oom_score: lmkd reads it from Android 15.0 on, this is 14Q2; "
         "it has no effect"),
        (VALID.replace(": 14", ": 12") + properties("persist.device_config.lmkd_native.thrashing_limit: 30"),
         "8: properties.persist.device_config.lmkd_native.thrashing_limit: lmkd reads overrides from Android 12L "
         "on, this is 12; it has no effect"),
        (VALID + properties("persist.device_config.lmkd_native.log_stats: true"),
         "8: properties.persist.device_config.lmkd_native.log_stats: lmkd reads only ro.lmk.log_stats; "
         "it has no effect"),
        (VALID + properties("ro.lmk.debug: true", "persist.device_config.lmkd_native.debug: false"),
         "8: properties.ro.lmk.debug: overridden by persist.device_config.lmkd_native.debug"),
        (VALID + properties("ro.lmk.enhance_batch_kill: true"),
         "8: properties.ro.lmk.enhance_batch_kill: a knob of Qualcomm's lmkd, which AOSP's does not read"),
        (VALID + properties("ro.lmk.our_own_idea: 1"),
         "8: properties.ro.lmk.our_own_idea: not a property of AOSP's lmkd; it has no effect"),
        (VALID + properties("ro.slmk.enable: 1"),
         "8: properties.ro.slmk.enable: a property of Samsung's own killer, which AOSP's lmkd does not read"),
        (VALID + properties("ro.lmk.thrashing_limit: 0100"),
         "8: properties.ro.lmk.thrashing_limit: 0100 is octal for lmkd: 64"),
        (VALID + properties("ro.lmk.thrashing_limit_critical: 50"),
         "8: properties.ro.lmk.thrashing_limit_critical: below thrashing_limit (100): "
         "every thrashing kill may take a perceptible app"),
        (VALID + properties("ro.lmk.psi_partial_stall_ms: 0", "ro.lmk.psi_complete_stall_ms: 0"),
         "7: properties: both PSI stalls are 0: lmkd registers no trigger and never wakes up"),
        (NO_SWAP + "vm: {swappiness: 100}\n", "7: vm.swappiness: has no effect on a device without swap"),
        (VALID.replace("1GiB", "150%"), "6: zram.size: more swap than memory"),
        (VALID.replace("2GiB", "4GiB") + properties("ro.config.low_ram: true"),
         "8: properties.ro.config.low_ram: a low-RAM device with 4GiB"),
        (VALID + "vm: {min_free_kbytes: 131072}\n",
         "7: vm.min_free_kbytes: keeps 128MiB free, over 5 % of the memory"),
        (VALID + properties("ro.build.version.sdk: 30"),
         "8: properties.ro.build.version.sdk: found 30, and `android:` stands for 14Q2 (34)"),
    ],
)  # fmt: skip
def test_each_warning_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = write(tmp_path, text)
    load_device_config(path)
    report = check_file(path)
    assert report.kind == "device"
    assert [str(warning).replace(f"{tmp_path}/", "") for warning in report.warnings] == [f"c.yaml:{line}"]


@pytest.mark.parametrize("path", shipped_configs().values(), ids=shipped_configs())
def test_shipped_configs_have_no_errors(path: Path) -> None:
    report = check_file(path)
    assert not report.errors
    # Stock trees carry knobs that do nothing; nothing else is tolerated.
    for warning in report.warnings:
        assert warning.field.startswith("properties."), str(warning)


def test_no_vendor_knob_is_one_of_aosps() -> None:
    assert not set(VENDOR_KNOBS) & {row.name for row in PROPERTIES}


VALUES = st.one_of(
    st.integers(-(2**33), 2**33).map(str),
    st.sampled_from(["true", "false", "on", "0x10", "010", "100ms", "", "junk", "TRUE"]),
)


@given(st.dictionaries(st.sampled_from(PROPERTY_NAMES), VALUES, max_size=12), st.sampled_from(TAGS))
def test_effective_knobs_agree_with_the_daemon(own: dict[str, str], tag: str) -> None:
    """The explanation of who won leads to the very value the policy computes."""
    params = load_params(own, behaviour(tag))
    for knob in effective_knobs(own, tag).knobs:
        assert knob.value == getattr(params, knob.row.name)
        if knob.won == "persist.device_config":
            assert own[PERSIST_PREFIX + knob.row.name] == knob.text
        elif knob.won == "default":
            assert knob.value == knob.default or knob.row.name in ("swap_compression_ratio",)
        if knob.clamped_from is not None:
            assert knob.clamped_from != knob.value
