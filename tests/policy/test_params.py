"""The property table: libcutils' parsing, overrides, clamps and defaults by release and kind of device."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.policy.lmkd.params import (
    INT32_MAX,
    INT32_MIN,
    PROPERTIES,
    PROPERTY_NAMES,
    LmkdParams,
    load_params,
    parse_property_bool,
    parse_property_int,
)
from lmk.policy.lmkd.versions import TAGS, behaviour, tag_index


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("100", 100), ("  -5", -5), ("+7", 7), ("0x10", 16), ("0X1f", 31), ("010", 8), ("08", 0), ("0x", 0)),
        *(("100ms", 100), ("1e3", 1), ("", None), ("ms", None), ("-", None), ("٣", None), (None, None)),
        *(("2147483647", INT32_MAX), ("2147483648", None), ("-2147483648", INT32_MIN), ("-2147483649", None)),
        *(("9" * 40, None), ("0x" + "f" * 30, None)),
    ],
)
def test_integers_as_libcutils_reads_them(text: str | None, number: int | None) -> None:
    assert parse_property_int(text, INT32_MIN, INT32_MAX) == number


def test_booleans_as_libcutils_reads_them() -> None:
    assert all(parse_property_bool(text) is True for text in ("1", "y", "yes", "on", "true"))
    assert all(parse_property_bool(text) is False for text in ("0", "n", "no", "off", "false"))
    assert all(parse_property_bool(text) is None for text in (None, "", "TRUE", "Y", "2", " true", "t"))


def test_every_row_has_a_field_and_every_field_a_row() -> None:
    assert {row.name for row in PROPERTIES} == {field.name for field in attrs.fields(LmkdParams)}
    assert len(PROPERTY_NAMES) == len(set(PROPERTY_NAMES))
    assert "ro.lmk.thrashing_limit" in PROPERTY_NAMES
    assert "persist.device_config.lmkd_native.thrashing_limit" in PROPERTY_NAMES
    assert "persist.device_config.lmkd_native.log_stats" not in PROPERTY_NAMES
    assert {"ro.config.low_ram", "ro.config.per_app_memcg", "sys.boot_completed"} <= set(PROPERTY_NAMES)


def test_overrides_exist_from_12l_on_and_fall_back_when_unusable() -> None:
    found = {"persist.device_config.lmkd_native.thrashing_limit": "40", "ro.lmk.thrashing_limit": "50"}
    for tag in TAGS:
        expected = 40 if tag_index(tag) >= tag_index("12L") else 50
        assert load_params(found, behaviour(tag)).thrashing_limit == expected
    found["persist.device_config.lmkd_native.thrashing_limit"] = "no number"
    assert load_params(found, behaviour("16")).thrashing_limit == 50
    found["ro.lmk.thrashing_limit"] = "9999999999"
    assert load_params(found, behaviour("16")).thrashing_limit == 100


def test_low_ram_defaults() -> None:
    normal, low = load_params({}, behaviour("14Q2")), load_params({"ro.config.low_ram": "true"}, behaviour("14Q2"))
    assert (normal.psi_partial_stall_ms, low.psi_partial_stall_ms) == (70, 200)
    assert (normal.thrashing_limit, low.thrashing_limit) == (100, 30)
    assert (normal.thrashing_limit_decay, low.thrashing_limit_decay) == (10, 50)
    assert (normal.thrashing_limit_critical, low.thrashing_limit_critical) == (300, 90)
    assert (normal.per_app_memcg, low.per_app_memcg) == (False, True)
    assert (normal.swap_free_low_percentage, low.swap_free_low_percentage) == (10, 10)
    minfree = {"ro.lmk.use_minfree_levels": "1"}
    assert load_params(minfree, behaviour("14Q2")).strategy == "minfree"
    assert load_params({**minfree, "ro.config.low_ram": "1"}, behaviour("14Q2")).strategy == "psi"
    assert load_params({"ro.lmk.use_psi": "no"}, behaviour("14Q2")).strategy == "vmpressure"


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("swap_free_low_percentage", "150", 100),
        ("swap_free_low_percentage", "-3", 0),
        ("thrashing_limit", "-3", 0),
        ("thrashing_limit_decay", "101", 100),
        ("thrashing_limit_critical", "-1", 0),
        ("swap_util_max", "1000", 100),
        ("lowmem_min_oom_score", "100", 201),
        ("lowmem_min_oom_score", "1001", 1001),
        ("pressure_after_kill_min_score", "-5", -5),
        ("kill_timeout_ms", "-1", -1),
        ("filecache_min_kb", "9000000000", 9000000000),
        ("direct_reclaim_threshold_ms", "4294967297", 1),
        ("swap_compression_ratio", "-2", -2),
    ],
)
def test_clamps(name: str, text: str, number: int) -> None:
    assert getattr(load_params({f"ro.lmk.{name}": text}, behaviour("16")), name) == number


def test_the_critical_limit_is_a_multiple_of_the_clamped_limit() -> None:
    for limit, expected in (("50", 150), ("-5", 0), ("2000000000", 1705032704)):
        assert load_params({"ro.lmk.thrashing_limit": limit}, behaviour("16")).thrashing_limit_critical == expected
    assert load_params({"ro.lmk.thrashing_limit": "50"}, behaviour("13.0")).thrashing_limit_critical == 100
    assert load_params({"ro.lmk.thrashing_limit": "50"}, behaviour("N1")).thrashing_limit_critical == 300


def test_a_property_that_a_release_does_not_have_changes_nothing() -> None:
    for row in PROPERTIES:
        for tag in TAGS:
            b = behaviour(tag)
            if not row.exists_in(b):
                value = "true" if row.kind == "bool" else "777"
                assert load_params({row.full_name: value}, b) == load_params({}, b), (row.name, tag)


@given(st.dictionaries(st.sampled_from(PROPERTY_NAMES), st.text(max_size=30)), st.sampled_from(TAGS))
def test_any_text_gives_values_in_range(found: dict[str, str], tag: str) -> None:
    params = load_params(found, behaviour(tag))
    for row in PROPERTIES:
        value = getattr(params, row.name)
        assert isinstance(value, bool if row.kind == "bool" else int)
        assert row.minimum is None or value >= row.minimum
        assert row.maximum is None or value <= row.maximum
