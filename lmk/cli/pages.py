"""One Markdown page per verb, made from the parsers themselves: what a page says is what the command takes.

``python -m lmk.cli.pages DIR [--check]``, or ``tools/verb-pages`` in a checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lmk.cli.main import VERBS, build_parser

_NOTE = "<!-- made by tools/verb-pages; change the parser instead -->"


def pages() -> dict[str, str]:
    """File name to text, in the order of ``lmk --help``; ``README.md`` lists the others."""
    verbs = _subparsers(build_parser())
    assert verbs is not None
    helps = {choice.dest: choice.help or "" for choice in verbs._choices_actions}
    found = {f"{name}.md": _page(name, helps.get(name, ""), verbs.choices[name]) for name in VERBS}
    rows = [f"| [{name}]({name}.md) | {_cell(helps.get(name, ''))} |" for name in VERBS]
    index = ["# lmk's verbs", "", "| verb | |", "|---|---|", *rows, "", *_EXIT_CODES, "", _NOTE, ""]
    return {"README.md": "\n".join(index), **found}


_EXIT_CODES = (
    "Exit codes: 0 good; 1 an expectation failed; 2 the user's error, before any device had answered; 3 the target",
    "or the machine failed after that. With `--json` exactly one object is printed ([json.md](../json.md)).",
)


def _page(name: str, summary: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"# lmk {name}", "", f"{summary[:1].upper()}{summary[1:]}.", "", *_body(parser)]
    return "\n".join([*lines, _NOTE, ""])


def _body(parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = _subparsers(parser)
    if actions is None:
        yield from _arguments(parser)
        return
    helps = {choice.dest: choice.help or "" for choice in actions._choices_actions}
    for name, child in actions.choices.items():
        yield from (f"## {child.prog}", "")
        if helps.get(name):
            yield from (f"{helps[name][:1].upper()}{helps[name][1:]}.", "")
        yield from _arguments(child)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    own = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    places = [action for action in own if not action.option_strings]
    yield f"    {' '.join([parser.prog, *map(_placed, places), *(['[OPTIONS]'] if len(places) < len(own) else [])])}"
    yield ""
    shown = [action for action in own if action.help is not argparse.SUPPRESS]
    if shown:
        yield from ("| argument | |", "|---|---|")
        yield from (f"| `{_spelled(action)}` | {_cell(_help(parser, action))} |" for action in shown)
        yield ""


def _placed(action: argparse.Action) -> str:
    name = _value(action)
    match action.nargs:
        case "?":
            return f"[{name}]"
        case "*":
            return f"[{name} ...]"
        case "+":
            return f"{name} [{name} ...]"
    return name


def _spelled(action: argparse.Action) -> str:
    if not action.option_strings:
        return _placed(action)
    takes_value = action.nargs != 0
    return f"{', '.join(action.option_strings)}{' ' + _value(action) if takes_value else ''}".replace("|", "\\|")


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return (action.help or "").replace("%(prog)s", parser.prog).replace("%%", "%")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _subparsers(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def stale(folder: Path) -> list[str]:
    """Names of pages that are missing, outdated or of no verb."""
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main(argv: list[str]) -> int:
    """Write or check the pages of a directory; 1 if a check finds any of them stale."""
    folder = Path(argv[0])
    if "--check" in argv:
        names = stale(folder)
        print(f"stale: {', '.join(names)}" if names else "every page is as the parsers say")
        return 1 if names else 0
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        path.unlink()
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
