"""The only unit conversions. The kernel's "kB" is KiB; lmkd divides like C, toward zero.

Names end in their unit: ``_pages``, ``_kib``, ``_bytes``, ``_ns``, ``_us``, ``_ms``, ``_pct``.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024
GIB: Final = 1024 * 1024 * 1024
NS_PER_US: Final = 1_000
US_PER_MS: Final = 1_000
MS_PER_S: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000


def c_div(dividend: int, divisor: int) -> int:
    """C's integer division: the quotient truncated toward zero. Raises ZeroDivisionError."""
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def c_int32(value: int) -> int:
    """Narrow to a 32-bit signed integer as a C assignment does."""
    return (value + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000


def c_int64(value: int) -> int:
    """Narrow to a 64-bit signed integer as a C assignment does."""
    return (value + (1 << 63) & (1 << 64) - 1) - (1 << 63)
