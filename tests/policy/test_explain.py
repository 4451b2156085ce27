"""Explanations say what the rules did, and suggested changes flip the outcome while one unit less does not."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.policy.decision import Decision, Evaluation
from lmk.policy.explain import CONDITIONS, FIRED, NOT_KNOWN, RULE_REASONS, exists_in, explain
from lmk.policy.explain_old import vmpressure_outcome
from lmk.policy.lmkd.memory import free_swap_pages
from lmk.policy.lmkd.params import PROPERTY_BY_NAME, LmkdParams
from lmk.policy.lmkd.psi_rules import RULES, evaluate
from lmk.policy.lmkd.versions import TAGS, behaviour
from lmk.policy.lmkd.watermark import Watermarks
from lmk.policy.whatif import decision_outcome, outcome_with, smallest_changes, with_property

percent = st.integers(0, 400)
pages = st.integers(0, 200_000)


@st.composite
def parameters(draw: st.DrawFn) -> LmkdParams:
    limit = draw(st.integers(0, 300))
    return LmkdParams(
        swap_free_low_percentage=draw(st.integers(0, 100)),
        thrashing_limit=limit,
        thrashing_limit_decay=draw(st.integers(0, 100)),
        thrashing_limit_critical=draw(st.one_of(st.just(limit * 3), st.just(limit * 2), percent)),
        swap_util_max=draw(st.integers(0, 100)),
        filecache_min_kb=draw(st.integers(0, 1_000_000)),
        stall_limit_critical=draw(st.integers(0, 101)),
        direct_reclaim_threshold_ms=draw(st.integers(0, 500)),
        swap_compression_ratio=draw(st.integers(0, 5)),
        lowmem_min_oom_score=draw(st.integers(201, 1001)),
        pressure_after_kill_min_score=draw(st.integers(0, 1000)),
    )


@st.composite
def decisions(draw: st.DrawFn, tag: str) -> tuple[Decision, LmkdParams]:
    """A decision as the policy would have made it from random numbers."""
    b, p = behaviour(tag), draw(parameters())
    low, high = sorted((draw(pages), draw(pages)))
    marks = Watermarks(low // 2, low, high)
    free, swap_total, swap_free, easy = draw(pages), draw(pages), draw(pages), draw(pages)
    free_swap = free_swap_pages(swap_free, easy, p, b)
    threshold = swap_total * p.swap_free_low_percentage // 100
    stall = draw(st.sampled_from([0.0, 10.5, 40.0, 99.99]))
    running = p.thrashing_limit
    for _ in range(draw(st.integers(0, 3))):
        running = running * (100 - p.thrashing_limit_decay) // 100
    checked = draw(st.booleans())
    e = Evaluation(
        level=draw(st.integers(0, 2)),
        by_event=draw(st.booleans()),
        after_kill=draw(st.booleans()),
        free_pages=free,
        min_pages=marks.min,
        low_pages=marks.low,
        high_pages=marks.high,
        watermark=marks.lowest_breached(free),
        swap_total_pages=swap_total,
        swap_free_pages=swap_free,
        easy_pages=easy,
        free_swap_pages=free_swap,
        swap_threshold_pages=threshold,
        swap_low=p.swap_free_low_percentage != 0 and free_swap < threshold,
        anon_pages=draw(pages),
        shmem_pages=draw(pages),
        file_lru_kib=draw(st.integers(0, 1_000_000)),
        reclaim=draw(st.integers(0, 2)),
        direct_reclaim_ms=draw(st.integers(0, 1000)),
        thrashing_pct=draw(percent),
        thrashing_limit_pct=running,
        full_stall_pct=stall,
        critical_stall=b.critical_stall and stall > p.stall_limit_critical,
        checked_filecache=checked,
        check_filecache=checked,
    )
    evaluate(e, p, b)
    adj = draw(st.sampled_from([0, 200, 250, 700, 900, 999]))
    min_adj = 0 if e.critical_stall else e.min_adj
    killed = e.reason >= 0 and adj >= min_adj
    decision = Decision(
        strategy="psi",
        level=e.level,
        by_event=e.by_event,
        evaluations=(e,),
        reason=e.reason,
        reason_text=e.reason_text,
        min_adj=min_adj if e.reason >= 0 else 0,
        killed_pids=(4711,) if killed else (),
        killed_adjs=(adj,) if killed else (),
    )
    return decision, p


tags = st.sampled_from([tag for tag in TAGS if tag not in ("11.0",)])


@settings(max_examples=300, deadline=None)
@given(data=st.data(), tag=tags)
def test_a_rule_fires_exactly_when_its_conditions_hold(data: st.DataObject, tag: str) -> None:
    decision, p = data.draw(decisions(tag))
    b = behaviour(tag)
    before = attrs.evolve(decision.evaluations[0], reason=-1, check_filecache=decision.evaluations[0].checked_filecache)
    for rule in RULES:
        conditions = CONDITIONS[rule.__name__](before, p, b)
        assert rule(attrs.evolve(before), p, b) == all(condition.holds for condition in conditions), rule.__name__


@settings(max_examples=300, deadline=None)
@given(data=st.data(), tag=tags)
def test_the_report_names_the_rule_that_fired(data: st.DataObject, tag: str) -> None:
    decision, p = data.draw(decisions(tag))
    explanation = explain(decision, p, behaviour(tag))
    fired = [rule for rule in explanation.rules if rule.outcome == FIRED]
    if decision.reason == -1:
        assert not fired
    else:
        assert len(fired) == 1
        names = {rule.__name__: number for rule, number in zip(RULES, RULE_REASONS, strict=True)}
        assert names[fired[0].rule] == decision.reason
    for rule in explanation.rules:
        assert (rule.outcome == NOT_KNOWN) == (not exists_in(rule.rule, behaviour(tag)))
    assert all(explanation.lines())


@settings(max_examples=400, deadline=None)
@given(data=st.data(), tag=tags)
def test_a_suggested_change_flips_the_outcome_and_one_unit_less_does_not(data: st.DataObject, tag: str) -> None:
    decision, p = data.draw(decisions(tag))
    b = behaviour(tag)
    victim = decision.killed_adjs[0] if decision.killed_adjs else None

    def killed(params: LmkdParams) -> bool:
        outcome = decision_outcome(decision, p, params, b)
        assert outcome is not None
        return outcome.kills(victim)

    for change in smallest_changes(decision, p, b):
        row = PROPERTY_BY_NAME[change.name]
        assert change.old == getattr(p, change.name) != change.new
        assert row.minimum is None or change.new >= row.minimum
        assert row.maximum is None or change.new <= row.maximum
        assert killed(with_property(p, change.name, change.new, b)) != killed(p), change
        towards = change.new + (1 if change.new < change.old else -1)
        assert killed(with_property(p, change.name, towards, b)) == killed(p), change


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tag=tags)
def test_no_nearer_value_would_do(data: st.DataObject, tag: str) -> None:
    decision, p = data.draw(decisions(tag))
    b = behaviour(tag)
    victim = decision.killed_adjs[0] if decision.killed_adjs else None
    before = outcome_with(decision.evaluations, p, p, b).kills(victim)
    found = {change.name: change for change in smallest_changes(decision, p, b)}
    for name in ("swap_free_low_percentage", "thrashing_limit", "thrashing_limit_critical", "swap_util_max"):
        row = PROPERTY_BY_NAME[name]
        old = getattr(p, name)
        if not row.exists_in(b):
            assert name not in found
            continue
        reach = abs(found[name].new - old) if name in found else 500
        for value in range(max(old - reach + 1, 0), min(old + reach, row.maximum or 10**6)):
            outcome = outcome_with(decision.evaluations, p, with_property(p, name, value, b), b)
            assert outcome.kills(victim) == before, (name, value)


def test_the_words_name_the_property_and_both_values() -> None:
    b, p = behaviour("14Q2"), LmkdParams()
    e = Evaluation(
        level=1,
        by_event=False,
        after_kill=False,
        free_pages=11000,
        min_pages=10000,
        low_pages=12500,
        high_pages=15000,
        watermark=1,
        swap_total_pages=500_000,
        swap_free_pages=250_000,
        easy_pages=150_000,
        free_swap_pages=150_000,
        swap_threshold_pages=50_000,
        thrashing_pct=95,
        thrashing_limit_pct=100,
    )
    evaluate(e, p, b)
    decision = Decision(
        strategy="psi",
        level=1,
        by_event=False,
        evaluations=(e,),
        reason=e.reason,
        reason_text=e.reason_text,
        min_adj=e.min_adj,
        killed_pids=(1001,),
        killed_adjs=(950,),
    )
    text = "\n".join(explain(decision, p, b).lines())
    assert "pid 1001 (oom_score_adj 950) was killed: LOW_MEM (low watermark is breached)" in text
    assert "no  thrashing 95 % > running limit 100 % (5 % too low)" in text
    assert "yes free memory 44000 kB < low watermark 50000 kB (6000 kB below)" in text
    assert explain(decision, p, b).changes == ()


def test_early_ends_are_explained() -> None:
    for why in ("pending kill", "lower event", "no reclaim", "unreadable"):
        decision = Decision(strategy="psi", level=1, by_event=True, ended_early=why)
        assert explain(decision, LmkdParams(), behaviour("16")).summary.startswith("nothing was decided")


@settings(max_examples=300, deadline=None)
@given(
    numbers=st.fixed_dictionaries(
        {
            "free_pages": pages,
            "low_max_pages": st.integers(-1, 200_000),
            "event_level": st.integers(0, 2),
            "swap_total_pages": pages,
            "swap_free_pages": pages,
            "easy_pages": pages,
            "memory_share_pct": percent,
        }
    ),
    p=st.builds(
        LmkdParams,
        low=st.sampled_from([900, 1001]),
        medium=st.sampled_from([800, 1001]),
        critical=st.sampled_from([0, 500]),
        critical_upgrade=st.booleans(),
        upgrade_pressure=st.integers(0, 150),
        downgrade_pressure=st.integers(0, 150),
        swap_free_low_percentage=st.integers(0, 100),
        low_ram=st.booleans(),
    ),
    adj=st.none() | st.sampled_from([0, 800, 950]),
)
def test_vmpressure_suggestions(numbers: dict[str, int], p: LmkdParams, adj: int | None) -> None:
    b = behaviour("14Q2")
    found = vmpressure_outcome(numbers, p, b)
    killed = found.fires and adj is not None and adj >= found.min_adj
    decision = Decision(
        strategy="vmpressure",
        level=1,
        by_event=True,
        values=numbers,
        min_adj=found.min_adj,
        killed_pids=(1,) if killed else (),
        killed_adjs=(adj,) if killed and adj is not None else (),
    )
    victim = adj if killed else None
    for change in smallest_changes(decision, p, b):
        step = 1 if change.new < change.old else -1
        outcomes = [
            decision_outcome(decision, p, with_property(p, change.name, value, b), b)
            for value in (change.old, change.new, change.new + step)
        ]
        kills = [outcome is not None and outcome.kills(victim) for outcome in outcomes]
        assert kills[0] != kills[1] and kills[0] == kills[2], change
    assert explain(decision, p, b).rules[0].conditions


def test_minfree_levels_in_words() -> None:
    values: dict[str, int | str] = {
        "free_pages": 5000,
        "file_pages": 60000,
        "targets": "18432:0 80640:950",
        "minfree_pages": 80640,
    }
    decision = Decision(strategy="minfree", level=1, by_event=True, values=values, min_adj=950, killed_pids=(7,))
    explanation = explain(decision, LmkdParams(), behaviour("14Q2"))
    assert explanation.summary.startswith("pid 7 was killed by minfree levels down to oom_score_adj 950")
    assert [condition.holds for condition in explanation.rules[0].conditions] == [False, True]
    assert "file cache 60000 < 18432 pages (oom_score_adj 0)" in explanation.rules[0].conditions[0].text
    assert explanation.changes == ()
