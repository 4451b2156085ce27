"""The documentation: pages of verbs are the parsers' own, links lead somewhere, and every command shown is real.

Every command line in README and docs is given to the real parser; those that need no emulator and end within seconds
are run as written, in an empty state directory with one simulated run in it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmk.cli.main import VERBS, build_parser, main
from lmk.cli.pages import stale

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_COMMAND = re.compile(rf"^\s*(?:\$ )?(?:tools/)?lmk (?P<rest>(?:{'|'.join(VERBS)})\b(?!  ).*)$")
#: A synopsis, not a command to type: optional parts, alternatives, "and so on".
_SYNOPSIS = re.compile(r"[\[\]|…]")
#: What stands for something of the reader's own.
_PLACEHOLDER = re.compile(r"\b(?:[A-Z]{2,}(?:-[A-Z])?|OWNER|\w+\.(?:yaml|bundle|prop|zip|sqlite|txt)|devices/\S+)\b")
#: Verbs that boot, touch a device, search for minutes or write into the checkout.
_NOT_HERE = {"run", "emulator", "calibrate", "validate", "tune", "sweep", "ci", "doctor", "record"}


def commands(page: Path) -> Iterator[str]:
    # A line that ends in a backslash goes on in the next one.
    for line in page.read_text().replace("\\\n", " ").splitlines():
        found = _COMMAND.match(line)
        if found is not None and not line.startswith(" " * 8):
            yield re.split(r"\s{2,}#|\s+#\s", found["rest"])[0].strip()


ALL = [(page, command) for page in PAGES for command in commands(page)]
TYPED = [(page, command) for page, command in ALL if not _SYNOPSIS.search(command)]
RUNNABLE = [
    command
    for command in dict.fromkeys(command for _, command in TYPED)
    if command.split()[0] not in _NOT_HERE
    and "--target" not in command
    and not _PLACEHOLDER.search(re.sub(r"RUN(-[A-Z])?", "last", command))
]


def test_there_are_commands_to_check() -> None:
    assert len(TYPED) > 20
    assert len(RUNNABLE) > 5


def test_the_pages_of_the_verbs_are_the_parsers_own() -> None:
    assert stale(ROOT / "docs" / "verbs") == [], "run tools/verb-pages"


@pytest.mark.parametrize(("page", "command"), TYPED, ids=lambda value: getattr(value, "name", value))
def test_a_command_shown_is_one_that_lmk_takes(page: Path, command: str) -> None:
    build_parser().parse_args(shlex.split(command))


@pytest.mark.parametrize(("page", "command"), [x for x in ALL if x not in TYPED], ids=lambda v: getattr(v, "name", v))
def test_a_synopsis_names_options_that_exist(page: Path, command: str) -> None:
    words = command.split()
    known = (ROOT / "docs" / "verbs" / f"{words[0]}.md").read_text()
    for option in re.findall(r"--[a-z-]+", command):
        assert option in known, f"{page.name}: lmk {words[0]} has no {option}"


INLINE = [
    (page, " ".join(text.split()))
    for page in PAGES
    for text in re.findall(rf"`lmk ((?:{'|'.join(VERBS)})\b[^`]*)`", page.read_text())
]


@pytest.mark.parametrize(("page", "command"), INLINE, ids=lambda value: getattr(value, "name", value))
def test_a_command_in_passing_exists_with_its_options(page: Path, command: str) -> None:
    words = command.split()
    known = (ROOT / "docs" / "verbs" / f"{words[0]}.md").read_text()
    if words[0] in ("config", "emulator", "kernel") and len(words) > 1:
        assert f"## lmk {words[0]} {words[1]}\n" in known, f"{page.name}: no lmk {words[0]} {words[1]}"
    for option in re.findall(r"--[a-z-]+", command):
        assert f"{option}`" in known or f"{option} " in known, f"{page.name}: lmk {words[0]} has no {option}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMK_STATE", str(folder / "state"))
        patch.chdir(folder)
        assert main(["sim", "phone-2gb", "app-switching"]) == 0
        yield folder


@pytest.mark.parametrize("command", RUNNABLE)
def test_a_command_shown_works(workplace: Path, command: str) -> None:
    words = [re.sub(r"^RUN(-[A-Z])?$", "last", word) for word in shlex.split(command)]
    assert main(words) in (0, 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
