"""The machine's apt sources, in both forms, turned into those of another Debian suite."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmk.kernel.aptsources import (
    AptSource,
    for_suite,
    machine_codename,
    parse_sources,
    release_file_name,
    release_origin,
    render_deb822,
)
from lmk.kernel.bases import DEBIAN_CODENAMES

DEB822 = """\
# the installer wrote this
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main non-free-firmware # the main one
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] https://mirror.example/debian-security bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb http://flat.example/repo ./
"""


def suites(sources: list[AptSource]) -> list[tuple[str, str]]:
    return [(source.uri, source.suite) for source in sources]


def test_deb822_gives_every_enabled_archive() -> None:
    sources = parse_sources(DEB822, deb822=True)
    assert suites(sources) == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://mirror.example/debian-security", "bookworm-security"),
    ]
    assert sources[0].components == ("main", "contrib")
    assert dict(sources[0].options)["Signed-By"] == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert "mQINBF" in dict(sources[2].options)["Signed-By"]


def test_one_line_form() -> None:
    sources = parse_sources(ONE_LINE, deb822=False)
    assert ("http://mirror.example/debian", "bookworm") in suites(sources)
    assert sources[0].components == ("main", "non-free-firmware")
    assert not any("commented" in source.uri for source in sources)
    secure = next(source for source in sources if source.suite == "bookworm-security")
    assert dict(secure.options) == {"Signed-By": "/usr/share/keyrings/k.gpg"}


def test_suite_is_replaced_and_pockets_are_kept() -> None:
    machine = parse_sources(DEB822, deb822=True)
    assert suites(for_suite(machine, "trixie", DEBIAN_CODENAMES)) == [
        ("http://mirror.example/debian", "trixie"),
        ("http://mirror.example/debian", "trixie-updates"),
        ("http://mirror.example/debian-security", "trixie-security"),
    ]


def test_archives_that_are_no_debian_suite_are_left_out() -> None:
    text = "\n".join(
        [
            "deb http://mirror.example/debian stable main",
            "deb http://tools.example/apt tools-bookworm main",
            "deb http://node.example/node_20.x nodistro main",
            "deb http://flat.example/repo ./",
            "deb http://old.example/debian-security buster/updates main",
        ]
    )
    machine = parse_sources(text, deb822=False)
    assert suites(for_suite(machine, "trixie", DEBIAN_CODENAMES)) == [
        ("http://mirror.example/debian", "trixie"),
        ("http://old.example/debian-security", "trixie-security"),
    ]
    assert machine_codename(machine, DEBIAN_CODENAMES) == "stable"


def test_the_same_archive_named_twice_comes_once() -> None:
    machine = parse_sources(
        "deb http://m.example/debian bookworm main\ndeb http://m.example/debian/ bookworm contrib\n", deb822=False
    )
    assert len(for_suite(machine, "trixie", DEBIAN_CODENAMES)) == 1


def test_rendering_is_read_back_the_same() -> None:
    machine = for_suite(parse_sources(DEB822, deb822=True), "trixie", DEBIAN_CODENAMES)
    assert parse_sources(render_deb822(machine), deb822=True) == machine


WORD = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)


@given(host=WORD, suite=WORD, components=st.lists(WORD, min_size=1, max_size=3))
def test_render_and_parse_agree(host: str, suite: str, components: list[str]) -> None:
    source = AptSource(uri=f"http://{host}/debian", suite=suite, components=tuple(components))
    assert parse_sources(render_deb822([source]), deb822=True) == [source]


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    for deb822 in (True, False):
        for_suite(parse_sources(text, deb822=deb822), "trixie", DEBIAN_CODENAMES)


def test_release_file_is_named_as_apt_does() -> None:
    source = AptSource(uri="http://deb.example/my_debian/", suite="bookworm", components=("main",))
    assert release_file_name(source) == "deb.example_my%5fdebian_dists_bookworm_InRelease"


def test_origin_of_a_release_file() -> None:
    text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nLabel: Debian\n"
    assert release_origin(text) == "Debian"
    assert release_origin("Origin: Debian Backports\n") == "Debian Backports"
    assert release_origin("Label: x\n") == ""
