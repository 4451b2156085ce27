"""The policy that repeats another run's kills."""

from __future__ import annotations

from lmk.policy.api import Kill, Killed, ListProcesses, ReadFile, ReadProcess, Request, Wait, Wakeup
from lmk.policy.scheduled import Schedule, ScheduledKill, ScheduledPolicy
from lmk.units import NS_PER_MS

NAMES = {10: "com.example.chat", 11: "com.example.maps", 12: "com.example.chat"}


def repeat(*kills: ScheduledKill) -> ScheduledPolicy:
    return ScheduledPolicy(Schedule(kills=kills))


def play(policy: ScheduledPolicy, until_ms: int, looks: list[int] | None = None) -> list[tuple[int, int]]:
    """(ms, pid) of every kill on a device that always has the same processes."""
    now_ns, killed = 0, []
    request: Request = policy.start(now_ns)
    while now_ns < until_ms * NS_PER_MS:
        answer: object = None
        if isinstance(request, Wait):
            if request.timeout_ms is None:
                break
            now_ns += request.timeout_ms * NS_PER_MS
            answer = Wakeup(())
        elif isinstance(request, ReadFile):
            assert looks is not None
            looks.append(now_ns // NS_PER_MS)
            answer = ""
        elif isinstance(request, ListProcesses):
            answer = tuple(NAMES)
        elif isinstance(request, ReadProcess):
            answer = NAMES[request.pid] + "\0"
        elif isinstance(request, Kill):
            killed.append((now_ns // NS_PER_MS, request.pid or 0))
            answer = Killed(0, queued=True)
        request = policy.step(answer, now_ns)
    return killed


def test_kills_come_at_their_time_and_to_the_youngest_of_that_name() -> None:
    policy = repeat(
        ScheduledKill(t_ms=500.0, name="com.example.maps"), ScheduledKill(t_ms=200.4, name="com.example.chat")
    )
    policy.begin(100 * NS_PER_MS)
    killed = play(policy, 5000)
    assert [pid for _, pid in killed] == [12, 11]
    assert 300 <= killed[0][0] <= 302 and 600 <= killed[1][0] <= 601


def test_nobody_of_that_name_is_counted() -> None:
    policy = repeat(ScheduledKill(t_ms=1.0, name="com.example.gone"))
    policy.begin(0)
    assert play(policy, 5000) == [] and policy.missed == 1


def test_nothing_happens_before_the_scenario_begins() -> None:
    assert play(repeat(ScheduledKill(t_ms=0.0, name="com.example.chat")), 1000) == []


def test_the_device_is_looked_at_as_often() -> None:
    looks: list[int] = []
    policy = ScheduledPolicy(Schedule(kills=(ScheduledKill(t_ms=250.0, name="com.example.maps"),), looks_ms=(100, 240)))
    policy.begin(0)
    assert [pid for _, pid in play(policy, 5000, looks)] == [11]
    assert looks == [100, 240]
