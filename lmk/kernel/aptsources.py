"""The machine's own apt sources, read and rewritten for another Debian suite. Pure text, no files.

Both forms are understood: one-line (``deb [options] URI SUITE COMPONENT...``) and deb822 (``Types: deb``). Mirrors are
whatever the machine already uses; this module only replaces the suite name and keeps keyrings and trust options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import attrs

#: Suite names that a machine may use in place of a codename.
_ALIASES = ("oldoldstable", "oldstable", "stable", "testing")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)$")
#: Options worth carrying over; Architectures and Languages are the caller's business.
_KEPT_OPTIONS = {
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "check-valid-until": "Check-Valid-Until",
    "allow-insecure": "Allow-Insecure",
}


@attrs.frozen(kw_only=True)
class AptSource:
    """One archive: a single URI and suite. ``options`` are deb822 fields such as Signed-By, values verbatim."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_flat(self) -> bool:
        """A flat repository (exact path, no components) is never a Debian suite."""
        return self.suite.endswith("/")


def parse_sources(text: str, *, deb822: bool) -> list[AptSource]:
    """All enabled binary-package archives in the text of one sources file; other lines are skipped."""
    return list(_parse_deb822(text) if deb822 else _parse_one_line(text))


def _parse_one_line(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match is None:
            continue
        options = []
        for word in (match["options"] or "").split():
            name, _, value = word.partition("=")
            if name.lower() in _KEPT_OPTIONS and value:
                options.append((_KEPT_OPTIONS[name.lower()], value.replace(",", " ")))
        yield AptSource(
            uri=match["uri"],
            suite=match["suite"],
            components=tuple(match["rest"].split()),
            options=tuple(options),
        )


def _parse_deb822(text: str) -> Iterator[AptSource]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").strip().lower() in ("no", "false", "0"):
            continue
        options = tuple((_KEPT_OPTIONS[name], value) for name, value in fields.items() if name in _KEPT_OPTIONS)
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptSource(
                    uri=uri,
                    suite=suite,
                    components=tuple(fields.get("components", "").split()),
                    options=options,
                )


def _fields(stanza: str) -> dict[str, str]:
    """Fields by lower-case name; continuation lines are kept as apt wants to see them again."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def machine_codename(sources: Iterable[AptSource], codenames: Iterable[str]) -> str | None:
    """The first of ``codenames`` (or an alias such as "stable") that the sources name as their main suite."""
    known = (*codenames, *_ALIASES)
    for source in sources:
        if source.suite in known:
            return source.suite
    return None


def for_suite(sources: Iterable[AptSource], codename: str, codenames: Iterable[str]) -> list[AptSource]:
    """The same archives with the suite's codename replaced; updates and security kept, duplicates dropped.

    Archives whose suite is no Debian codename or alias are left out.
    """
    names = "|".join(re.escape(n) for n in (*codenames, *_ALIASES))
    pattern = re.compile(rf"^(?:{names})(?P<pocket>|-updates|-security|/updates|-backports)$")
    found: dict[tuple[str, str], AptSource] = {}
    for source in sources:
        match = pattern.match(source.suite)
        if match is None or source.is_flat or not source.components:
            continue
        # "buster/updates" was the name of the security suite up to Debian 10.
        pocket = match["pocket"].replace("/updates", "-security")
        renamed = attrs.evolve(source, suite=codename + pocket, components=("main",))
        found.setdefault((renamed.uri.rstrip("/"), renamed.suite), renamed)
    return list(found.values())


def render_deb822(sources: Iterable[AptSource]) -> str:
    """Text of a ``.sources`` file."""
    stanzas = []
    for source in sources:
        lines = ["Types: deb", f"URIs: {source.uri}", f"Suites: {source.suite}"]
        lines.append(f"Components: {' '.join(source.components)}")
        lines += [f"{name}: {value}" for name, value in source.options]
        stanzas.append("\n".join(lines) + "\n")
    return "\n".join(stanzas)


def release_file_name(source: AptSource) -> str:
    """Name under which apt keeps this archive's InRelease in its lists directory (apt's URItoFileName)."""
    uri = f"{source.uri.rstrip('/')}/dists/{source.suite}/InRelease"
    path = uri.split("://", 1)[-1] if "://" in uri else uri.split(":", 1)[-1]
    path = path.rpartition("@")[2] if "@" in path.split("/", 1)[0] else path
    quoted = "".join(f"%{ord(c):02x}" if c in '\\|{}[]<>"^~_=!@#$%^&*' else c for c in path)
    return quoted.replace("/", "_")


def release_origin(text: str) -> str:
    """The ``Origin:`` field of a Release or InRelease file; "" where there is none."""
    match = re.search(r"^Origin:[ \t]*(.+?)\s*$", text, re.MULTILINE)
    return match[1] if match else ""
