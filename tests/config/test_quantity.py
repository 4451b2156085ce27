"""Sizes, times, rates and shares: exact, round trips, and errors that say what was meant."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.config import quantity
from lmk.config.quantity import ByteRate, InvalidValue

AMOUNTS = st.integers(min_value=0, max_value=2**60)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("2GiB", 2 * 1024**3),
        ("2 GiB", 2 * 1024**3),
        ("350MB", 350_000_000),
        ("1.5GiB", 1536 * 1024**2),
        ("8192kB", 8_192_000),
        ("64KiB", 65536),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert quantity.parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "span_ms"),
    [("700ms", 700), ("5s", 5000), ("1.5s", 1500), ("2min", 120_000), ("1h", 3_600_000), ("1000us", 1)],
)
def test_times(text: str, span_ms: int) -> None:
    assert quantity.parse_duration_ms(text) == span_ms


def test_rates() -> None:
    growth = quantity.parse_rate("2MiB/min")
    assert growth == ByteRate(amount_bytes=2 * 1024**2, per_ms=60_000)
    assert growth.bytes_in(30_000) == 1024**2
    assert growth.bytes_per_s == 34952
    assert quantity.parse_rate("250MB/s").bytes_per_s == 250_000_000


def test_shares() -> None:
    assert quantity.parse_percent("75%") == 75
    assert quantity.parse_percent("12.5%") == Fraction(25, 2)
    assert quantity.parse_bytes_or_percent("75%", 2 * 1024**3) == 1536 * 1024**2
    assert quantity.parse_bytes_or_percent("1GiB", 2 * 1024**3) == 1024**3


@given(AMOUNTS)
def test_size_round_trip(size_bytes: int) -> None:
    assert quantity.parse_bytes(quantity.format_bytes(size_bytes)) == size_bytes


@given(AMOUNTS)
def test_time_round_trip(span_ms: int) -> None:
    assert quantity.parse_duration_ms(quantity.format_duration_ms(span_ms)) == span_ms


@given(AMOUNTS, st.sampled_from(quantity.PER_UNITS))
def test_rate_round_trip(amount_bytes: int, per: str) -> None:
    rate = ByteRate(amount_bytes=amount_bytes, per_ms=quantity.TIME_UNITS[per] // 10**6)
    assert quantity.parse_rate(quantity.format_rate(rate)) == rate


@given(st.decimals(min_value=0, max_value=10**9, places=3), st.sampled_from(sorted(quantity.SIZE_UNITS)))
def test_fractions_are_exact_or_refused(number: object, unit: str) -> None:
    exact = Fraction(str(number)) * quantity.SIZE_UNITS[unit]
    if exact.denominator == 1:
        assert quantity.parse_bytes(f"{number}{unit}") == exact
    else:
        with pytest.raises(InvalidValue, match="not a whole number of bytes"):
            quantity.parse_bytes(f"{number}{unit}")


@given(st.text(max_size=60))
def test_garbage_is_refused_in_words(text: str) -> None:
    for parse in (quantity.parse_bytes, quantity.parse_duration_ms, quantity.parse_rate, quantity.parse_percent):
        try:
            parse(text)
        except InvalidValue as invalid:
            assert invalid.cause


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2048", "found '2048' without a unit, expected a size such as 2GiB or 350MB"),
        ("2gib", "found '2gib', 'gib' is no unit; did you mean 2GiB?"),
        ("1.5G", "found '1.5G', 'G' is no unit; did you mean 1.5GiB?"),
        ("2KB", "found '2KB', 'KB' is no unit; did you mean 2kB?"),
        ("700ms", "found '700ms', which is a time, expected a size in B, kB, KiB, MB, MiB, GB, GiB, TB, TiB"),
        ("75%", "found '75%', which is a share, expected a size in B, kB, KiB, MB, MiB, GB, GiB, TB, TiB"),
        ("2MB/s", "found '2MB/s', which is a rate, expected a size in B, kB, KiB, MB, MiB, GB, GiB, TB, TiB"),
        ("-1MiB", "found '-1MiB', a size cannot be negative"),
        ("0.3B", "found '0.3B', which is not a whole number of bytes"),
        ("2 apples", "found '2 apples', 'apples' is no unit of a size; "
         "allowed: B, kB, KiB, MB, MiB, GB, GiB, TB, TiB"),
        ("lots", "found 'lots', expected a size such as 2GiB or 350MB"),
    ],
)  # fmt: skip
def test_size_errors(text: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        quantity.parse_bytes(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5sec", "found '5sec', 'sec' is no unit; did you mean 5s?"),
        ("2GiB", "found '2GiB', which is a size, expected a time in ns, us, µs, ms, s, min, h"),
        ("0.5us", "found '0.5us', which is not a whole number of milliseconds"),
        ("-5s", "found '-5s', a time cannot be negative"),
    ],
)
def test_time_errors(text: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        quantity.parse_duration_ms(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2MiB", "found '2MiB', expected a size per time such as 250MB/s or 2MiB/min"),
        ("2MiB/minute", "found '2MiB/minute', a rate is per s, min, h; did you mean 2MiB/min?"),
        ("2MiB/ms", "found '2MiB/ms', a rate is per s, min, h; did you mean 2MiB/s?"),
    ],
)
def test_rate_errors(text: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        quantity.parse_rate(text)
    assert str(caught.value) == message
