"""What a cell's runs are made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmk.ci.execute import jitter_of


@given(replicas=st.integers(1, 64), learned=st.integers(1, 1024), repeats=st.integers(1, 200))
def test_no_run_is_judged_by_itself(replicas: int, learned: int, repeats: int) -> None:
    ours = [jitter_of(repeat, of, replicas, learning=False) for repeat in range(repeats) for of in range(1, replicas)]
    baseline = {jitter_of(1, replica, learned, learning=True) for replica in range(1, learned)}
    assert len(set(ours)) == len(ours)
    assert not baseline.intersection(ours)
    assert 0 not in ours
    assert jitter_of(3, 0, replicas, learning=False) == jitter_of(1, 0, learned, learning=True) == 0
