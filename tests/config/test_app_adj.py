"""oom_score_adj while a user opens and leaves apps, by example; the C twin is compared in tests/device."""

from __future__ import annotations

import pytest

from lmk.config.app_adj import AdjProcess, AdjState, Rest, Role, minfree_table

HOME, CHAT, MAPS, MUSIC, SYNC = range(5)
GIB = 1 << 30


def processes(*started: tuple[int, Role] | tuple[int, Role, Rest]) -> AdjState:
    state = AdjState()
    for id_, role, *rest in started:
        state = state.start(AdjProcess(id=id_, role=role, rest=rest[0] if rest else "cached"))
    return state


def phone() -> AdjState:
    return processes((HOME, "home"), (CHAT, "app"), (MAPS, "app")).launch(HOME)


def test_launch_switch_and_background() -> None:
    state = phone().launch(CHAT)
    assert dict(state.assign()) == {CHAT: 0, HOME: 600, MAPS: 900}
    state = state.launch(MAPS)
    assert dict(state.assign()) == {MAPS: 0, CHAT: 700, HOME: 600}
    state = state.leave(MAPS)
    assert dict(state.assign()) == {HOME: 0, MAPS: 700, CHAT: 900}
    state = state.launch(CHAT)
    assert dict(state.assign()) == {CHAT: 0, HOME: 600, MAPS: 700}


def test_home_is_never_the_previous_app() -> None:
    state = phone().launch(CHAT).leave(CHAT).launch(MAPS)
    assert dict(state.assign())[CHAT] == 700


def test_leaving_what_is_not_in_front_changes_nothing() -> None:
    state = phone().launch(CHAT)
    assert state.leave(MAPS) == state
    assert state.leave(HOME) == state
    assert state.launch(CHAT) == state
    assert state.launch(99) == state


def test_a_death_in_front_shows_home() -> None:
    state = phone().launch(CHAT).launch(MAPS).gone(MAPS)
    assert state.top == HOME
    assert dict(state.assign()) == {HOME: 0, CHAT: 700}
    assert phone().launch(CHAT).launch(MAPS).gone(CHAT).previous is None


def test_without_a_launcher_nobody_is_in_front() -> None:
    state = processes((CHAT, "app")).launch(CHAT).leave(CHAT)
    assert state.top is None
    assert dict(state.assign()) == {CHAT: 700}


def test_music_stays_perceptible_and_dialogs_visible() -> None:
    state = processes((MUSIC, "app", "perceptible"), (MAPS, "app", "visible"), (CHAT, "app")).launch(MUSIC)
    assert dict(state.assign())[MUSIC] == 0
    state = state.launch(CHAT)
    assert dict(state.assign()) == {CHAT: 0, MUSIC: 200, MAPS: 100}


@pytest.mark.parametrize(("services", "on_a_list"), [(1, 1), (2, 1), (3, 2), (6, 3), (9, 4)])
def test_old_services_drop_to_the_b_list(services: int, on_a_list: int) -> None:
    state = processes(*((i, "service") for i in range(services)))
    assert [adj for _, adj in state.assign()] == [500] * on_a_list + [800] * (services - on_a_list)


def test_cached_apps_step_by_ten_oldest_highest() -> None:
    state = processes(*((i, "app") for i in range(8)))
    assert [adj for _, adj in state.assign()] == [900, 910, 920, 930, 940, 950, 960, 970]
    empty = processes(*((i, "empty") for i in range(3)))
    assert [adj for _, adj in empty.assign()] == [905, 915, 925]


def test_many_cached_apps_share_slots_and_never_pass_999() -> None:
    for count in (11, 20, 21, 60, 96):
        values = [adj for _, adj in processes(*((i, "app") for i in range(count))).assign()]
        assert values == sorted(values)
        assert values[0] == 900
        assert values[-1] <= 999
        factor = -(-count // 10)
        assert values.count(900) == factor


def test_persistent_and_fixed_processes_keep_theirs() -> None:
    state = AdjState().start(AdjProcess(id=1, role="fixed", fixed_adj=-900))
    state = state.start(AdjProcess(id=2, role="persistent")).launch(2)
    assert dict(state.assign()) == {1: -900, 2: -800}


def test_minfree_as_activity_manager_computes_it() -> None:
    full = [(18432, 0), (23040, 100), (27648, 200), (32256, 250), (55296, 900), (80640, 950)]
    assert list(minfree_table(2 * GIB)) == full
    half = [10752, 13824, 16896, 20736, 33024, 46464]
    assert [pages for pages, _ in minfree_table(525 << 20, display_pixels=100)] == half
    low = [3072, 4608, 6144, 9216, 10752, 12288]
    assert [pages for pages, _ in minfree_table(256 << 20, display_pixels=100)] == low
    assert [pages for pages, _ in minfree_table(GIB, has_64bit_abi=False)][-1] == 184320 // 4
