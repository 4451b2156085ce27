"""The tolerant parsers: what kernels print, and anything else without raising."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmk.procfs.meminfo import parse_meminfo
from lmk.procfs.psi import parse_pressure
from lmk.procfs.vmstat import parse_vmstat
from lmk.procfs.zoneinfo import parse_zoneinfo

ZONEINFO = """Node 0, zone    DMA32
  per-node stats
      nr_inactive_anon 11
      nr_inactive_file 22
  pages free     4000
        boost    0
        min      1000
        low      1500
        high     2000
        spanned  9000
        present  8000
        managed  7000
        cma      0
        protection: (0, 2000, 2000)
      nr_free_pages 4000
      nr_free_cma  7
  pagesets
    cpu: 0
              count: 5
              high:  378
  node_unreclaimable:  0
Node 0, zone   Normal
  pages free     0
        min      0
        low      0
        high     0
        spanned  0
        present  0
        managed  0
        protection: (0, 0, 0)
"""


def test_meminfo() -> None:
    info = parse_meminfo("MemTotal:  100 kB\nActive(anon):  7 kB\nHugePages_Total:       3\nodd\nBad: kB\n")
    assert info.kib == {"MemTotal": 100, "Active(anon)": 7, "HugePages_Total": 3}
    assert info.get("MemTotal") == 100
    assert info.get("MemFree") is None


def test_vmstat() -> None:
    stat = parse_vmstat("nr_free_pages 12\nnr_dirty -1\nodd\nthree words here\nname x\n")
    assert stat.counters == {"nr_free_pages": 12, "nr_dirty": -1}
    assert stat.get("workingset_refault") is None


def test_pressure() -> None:
    text = "some avg10=1.50 avg60=2.00 avg300=3.25 total=77\nfull avg10=0.50 avg60=0.10 avg300=0.00 total=5\n"
    pressure = parse_pressure(text)
    assert pressure is not None and pressure.full is not None
    assert (pressure.some.avg10_pct, pressure.some.total_us, pressure.full.avg10_pct) == (1.5, 77, 0.5)
    cpu = parse_pressure(text.splitlines()[0])
    assert cpu is not None and cpu.full is None
    assert parse_pressure("full avg10=0.50 avg60=0.10 avg300=0.00 total=5\n") is None
    assert parse_pressure("") is None


def test_zoneinfo() -> None:
    dma32, normal = parse_zoneinfo(ZONEINFO).zones
    assert (dma32.node, dma32.name, dma32.protection) == (0, "DMA32", (0, 2000, 2000))
    assert dma32.node_stats == {"nr_inactive_anon": 11, "nr_inactive_file": 22}
    assert dma32.fields["min"] == 1000 and dma32.fields["high"] == 2000 and dma32.fields["nr_free_cma"] == 7
    assert "count:" not in dma32.fields
    assert normal.fields["present"] == 0 and normal.node_stats is None


def test_negative_numbers_in_zoneinfo() -> None:
    """Linux prints per-cpu drift as it is; a zone's number may be negative for a moment."""
    (zone,) = parse_zoneinfo(
        ZONEINFO.split("Node 0, zone   Normal")[0].replace("nr_free_cma  7", "nr_free_cma  -7")
    ).zones
    assert zone.fields["nr_free_cma"] == -7


@given(st.text())
def test_noise_never_raises(text: str) -> None:
    parse_meminfo(text)
    parse_vmstat(text)
    parse_pressure(text)
    parse_zoneinfo(text)


@given(st.lists(st.sampled_from(ZONEINFO.split("\n"))).map("\n".join))
def test_shuffled_lines_never_raise(text: str) -> None:
    parse_zoneinfo(text)
    parse_meminfo(text)
