"""Every real log of ../shared/corpus: what its manifest counts is what is found, and nothing is dropped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from lmk.logs.contents import capture_body
from lmk.logs.files import find_logs
from lmk.logs.scan import FileScan, scan_lines

CORPUS = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "corpus"
pytestmark = pytest.mark.shared

#: What the manifest counts; other kinds are ours alone.
COUNTED = {"lmkd", "klmk", "killinfo", "am_kill", "am_died", "am_text", "died", "reap"}
#: The only lines that stay unknown: prose, and second halves of records whose beginning is not in the file.
UNKNOWN = {
    "lmkd/samsung-a25_a14_foreground-reclaim.log": ["killed by Android Low Memory Killer"],
    "snippets/kernel-lmk_embedded_mtd-list.txt": ["cache 16240kB is below limit"],
    "snippets/mi-tv-stick_aquaman_a9_lmkd_killing.txt": ["to free 53468kB because system is under medium"],
}


def files() -> list[str]:
    """Paths relative to the corpus; empty where it is absent."""
    return [str(path.relative_to(CORPUS)) for path in sorted(CORPUS.glob("*/*")) if path.is_file()]


@cache
def scan(name: str) -> FileScan:
    (log,) = find_logs(CORPUS / name)
    return scan_lines(log.lines(), name)


@cache
def manifest() -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    folder = ""
    for line in (CORPUS / "MANIFEST.md").read_text().splitlines():
        if heading := re.match(r"## .*\(`(\w+)/`\)", line):
            folder = heading[1]
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 9 and cells[1] not in ("file", "---"):
            records = {} if cells[5] == "-" else dict(part.rsplit(" ", 1) for part in cells[5].split(", "))
            counts[f"{folder}/{cells[1]}"] = {kind: int(count) for kind, count in records.items()}
    return counts


@pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/corpus is not here")
class TestCorpus:
    """One test per file and question."""

    @pytest.mark.parametrize("name", [name for name in files() if not name.startswith("snippets/")])
    def test_counts_are_the_manifests(self, name: str) -> None:
        found = {kind: count for kind, count in scan(name).counts().items() if kind in COUNTED}
        expected = manifest()[name]
        # The manifest counts killinfo where it counts anything of the kind: nowhere but in the snippets.
        assert {kind: n for kind, n in found.items() if kind != "killinfo"} == expected

    @pytest.mark.parametrize("name", files())
    def test_only_known_lines_are_unknown(self, name: str) -> None:
        texts = [line.text for line in scan(name).unknown]
        expected = UNKNOWN.get(name, [])
        assert len(texts) == len(expected)
        assert all(words in text for words, text in zip(expected, texts, strict=True))

    @pytest.mark.parametrize("name", files())
    def test_every_kill_names_its_victim(self, name: str) -> None:
        for report in scan(name).reports:
            if report.kind in ("lmkd", "klmk", "oom", "reap"):
                assert report.pid and report.name, report
            if report.kind == "lmkd":
                assert report.uid is not None and report.adj is not None and report.rss_kib is not None, report
                assert report.shape != "K?", report

    @pytest.mark.parametrize("name", files())
    def test_captures_can_be_read(self, name: str) -> None:
        bodies = [(capture.kind, capture_body(capture)) for capture in scan(name).captures]
        for kind, body in bodies:
            assert kind == "getprop" or (body is not None and len(body) > 2), kind

    def test_shapes_of_the_kills(self) -> None:
        shapes = {(r.kind, r.shape) for name in files() for r in scan(name).reports if r.kind in ("lmkd", "klmk")}
        assert shapes == {
            *(("lmkd", shape) for shape in ("K1", "K2", "K3", "K5", "K6", "K7", "K8")),
            *(("klmk", shape) for shape in ("L1", "L2")),
        }
