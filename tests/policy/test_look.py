"""An onlooker's view must be lmkd's own: the same texts, the same numbers as its decision compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmk.cli.main import main
from lmk.policy.lmkd.look import Looker
from lmk.policy.lmkd.params import load_params
from lmk.policy.lmkd.versions import TAGS, behaviour
from lmk.procfs.meminfo import Meminfo
from lmk.procfs.psi import Pressure, Stall
from lmk.procfs.vmstat import Vmstat
from lmk.procfs.zoneinfo import Zone, Zoneinfo
from lmk.record.decode import decision_of
from lmk.record.reader import RecordReader

MEMINFO = """\
MemTotal:        2048000 kB
MemFree:           60000 kB
Cached:           300000 kB
Buffers:            1000 kB
Active(anon):     200000 kB
Inactive(anon):   100000 kB
Active(file):     150000 kB
Inactive(file):   140000 kB
SwapTotal:       1000000 kB
SwapFree:          50000 kB
CmaFree:           10000 kB
"""
VMSTAT = """\
nr_inactive_file 35000
nr_active_file 37500
workingset_refault_file {refaults}
pgscan_kswapd 10
pgscan_direct 0
pgrefill 0
nr_free_pages 15000
"""
ZONEINFO = """\
Node 0, zone    DMA32
  per-node stats
      nr_inactive_file 35000
      nr_active_file 37500
      workingset_refault 0
      workingset_refault_file 0
  pages free     15000
        min      10000
        low      12500
        high     15000
        spanned  512000
        present  512000
        managed  500000
        protection: (0, 0, 0, 0)
      nr_free_pages 15000
      nr_free_cma  2500
  pagesets
    cpu: 0
              count: 0
"""
PSI = "some avg10=5.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=2.50 avg60=0.00 avg300=0.00 total=1\n"


FILES = ("/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/pressure/memory")


def texts(refaults: int = 1000) -> dict[str, str]:
    return {
        "/proc/meminfo": MEMINFO,
        "/proc/vmstat": VMSTAT.format(refaults=refaults),
        "/proc/zoneinfo": ZONEINFO,
        "/proc/pressure/memory": PSI,
    }


def looker(tag: str = "14Q2") -> Looker:
    release = behaviour(tag)
    return Looker(load_params({}, release), release)


def test_what_is_compared() -> None:
    seen = looker().look(10**9, texts())
    assert seen is not None
    assert (seen.free_pages, seen.min_pages, seen.low_pages, seen.high_pages) == (12_500, 10_000, 12_500, 15_000)
    assert seen.swap_low
    assert seen.full_stall_pct == pytest.approx(2.5)
    assert seen.thrashing_pct == 0


def test_thrashing_counts_from_look_to_look() -> None:
    onlooker = looker()
    assert onlooker.look(10**9, texts(1000)) is not None
    seen = onlooker.look(10**9 + 500_000_000, texts(1000 + 7250))
    assert seen is not None
    assert seen.thrashing_pct == 9  # 7250 refaults of 72501 file pages, truncated


@pytest.mark.parametrize("tag", TAGS)
def test_every_release_looks(tag: str) -> None:
    assert looker(tag).look(10**9, texts()) is not None


@pytest.mark.parametrize("missing", ["/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo"])
def test_a_file_that_is_missing_or_odd(missing: str) -> None:
    rest = {path: text for path, text in texts().items() if path != missing}
    assert looker().look(10**9, rest) is None
    odd = looker().look(10**9, {**rest, missing: "no such thing\n"})
    assert odd is None or missing != "/proc/zoneinfo"  # lmkd takes a counter that is not there as 0


def value(answer: dict[str, Any]) -> Meminfo | Vmstat | Zoneinfo | Pressure:
    """A simulated file's value as the record holds it."""
    fields = {name: item for name, item in answer.items() if name != "type"}
    if answer["type"] == "Zoneinfo":
        zones = [{name: item for name, item in zone.items() if name != "type"} for zone in fields["zones"]]
        return Zoneinfo(zones=tuple(Zone(**{**zone, "protection": tuple(zone["protection"])}) for zone in zones))
    if answer["type"] == "Pressure":
        rows = {name: row and {k: v for k, v in row.items() if k != "type"} for name, row in fields.items()}
        return Pressure(some=Stall(**rows["some"]), full=Stall(**rows["full"]) if rows["full"] else None)
    return Meminfo(**fields) if answer["type"] == "Meminfo" else Vmstat(**fields)


def test_it_sees_what_lmkd_saw(tmp_path: Path) -> None:
    """The files of recorded decisions, looked at by somebody else: memory, swap and watermarks are the same."""
    assert main(["sim", "phone-2gb", "app-switching", "--record", str(tmp_path), "--json"]) == 0
    with RecordReader(tmp_path) as record:
        release = behaviour(record.meta["android"])
        onlooker = Looker(load_params(record.meta["properties"], release), release)
        reads = [step for step in record.steps("ReadFile") if step.request["path"] in FILES]
        decisions = [(row.t_ns, decision_of(row.body)) for row in record.decisions()]
    seen_ns = [t_ns for t_ns, _ in decisions]
    compared, files = 0, dict[str, Meminfo | Vmstat | Zoneinfo | Pressure]()
    for t_ns, decision in decisions:
        while reads and reads[0].t_ns <= t_ns:
            step = reads.pop(0)
            assert isinstance(step.answer, dict)
            files[step.request["path"]] = value(step.answer)
        if seen_ns.count(t_ns) > 1 or not decision.evaluations:
            continue
        seen = onlooker.look(t_ns, files)
        assert seen is not None
        theirs = decision.evaluations[-1]
        for name in ("free_pages", "min_pages", "low_pages", "free_swap_pages", "swap_threshold_pages", "swap_low"):
            assert getattr(seen, name) == getattr(theirs, name), name
        compared += 1
    assert compared > 50
