"""Settings replaced for one run: they take effect, or there is an error that says why they would not."""

from __future__ import annotations

import attrs
import pytest

from lmk.config.device import load_device_config
from lmk.config.effective import effective_knobs
from lmk.config.find import find_config
from lmk.config.override import override, parse_overrides
from lmk.errors import UserError

PHONE = load_device_config(find_config("phone-2gb"))


def test_properties_and_sysctls_take_effect() -> None:
    changed = override(PHONE, parse_overrides(["thrashing_limit=1", "vm.swappiness=150", "ro.config.low_ram=false"]))
    knob = effective_knobs(changed.properties, changed.android).find("thrashing_limit")
    assert knob is not None
    assert (knob.value, changed.vm["swappiness"], changed.low_ram) == (1, 150, False)
    assert {**changed.vm, "swappiness": 0} == {**PHONE.vm, "swappiness": 0}
    assert changed.name == PHONE.name


def test_a_kernel_without_mglru_runs_without_it() -> None:
    changed = override(PHONE, {"kernel.base": "5.10"})
    assert (changed.kernel.base, changed.kernel.mglru) == ("5.10", False)


def test_nothing_to_set_is_the_same_config() -> None:
    assert override(PHONE, {}) is PHONE


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("thrashing_limit", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
        ("ro.lmk.thrashing_limt=3", "did you mean ro.lmk.thrashing_limit?"),
        ("vm.swapiness=3", "did you mean swappiness?"),
        ("vm.swappiness=201", "0 to 200"),
        ("vm.swappiness=high", "0 to 200"),
        ("thrashing_limit=many", "fall back to its default"),
        ("swap_free_low_percentage=101", "clamp"),
        ("nonsense=1", "no such setting"),
        ("kernel.base=4.19", "no such base"),
        ("zram.size=much", "zram.size=much"),
        ("zram.size=0%", "no swap at all"),
    ],
)
def test_what_would_have_no_effect_is_an_error(pair: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        override(PHONE, parse_overrides([pair]))
    assert words in str(caught.value)


def test_zram_has_another_size() -> None:
    assert PHONE.zram is not None
    for text in ("512MiB", "25%"):
        changed = override(PHONE, parse_overrides([f"zram.size={text}"]))
        assert changed.zram == attrs.evolve(PHONE.zram, size_bytes=512 << 20)
    bare = attrs.evolve(PHONE, zram=None)
    with pytest.raises(UserError, match="has no zram"):
        override(bare, {"zram.size": "25%"})


def test_a_setting_that_another_one_hides_is_an_error() -> None:
    shadowed = override(PHONE, {"persist.device_config.lmkd_native.thrashing_limit": "50"})
    with pytest.raises(UserError, match=r"wins over it.*persist\.device_config\.lmkd_native\.thrashing_limit"):
        override(shadowed, parse_overrides(["ro.lmk.thrashing_limit=3"]))


def test_a_setting_this_release_does_not_read_is_an_error() -> None:
    old = load_device_config(find_config("galaxy-s9"))
    assert effective_knobs(old.properties, old.android).find("direct_reclaim_threshold_ms") is None
    with pytest.raises(UserError, match="does not read it"):
        override(old, parse_overrides(["direct_reclaim_threshold_ms=10"]))
