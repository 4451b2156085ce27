"""The HTML report in a real browser (Debian's chromium, headless): what a person does with it, and that it is quiet."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed (the dev extra has it)")

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from lmk.cli.main import main
from lmk.record.reader import RecordReader
from lmk.record.writer import RecordWriter
from lmk.report.explain import explain_kill, explained_lines
from tests.report.records import simulated_record, small_record

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return simulated_record(folder / "lmkd"), simulated_record(folder / "earlyoom", "--policy", "earlyoom")


def open_report(browser: Browser, page_file: Path, *runs: Path, width: int = 1280, scheme: str = "light") -> Page:
    """The page, ready, in a fresh profile; its console and its requests are collected on ``page.said``."""
    assert main(["report", *map(str, runs), "--html", str(page_file)]) == 0
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(30_000)
    said: list[str] = []

    def on_request(request: Request) -> None:
        if request.url != page_file.as_uri():
            said.append(f"request {request.url}")

    def on_console(message: ConsoleMessage) -> None:
        said.append(f"{message.type} {message.text}")

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: said.append(f"error {error}"))
    page.said = said  # type: ignore[attr-defined]
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    return page


def quiet(page: Page) -> None:
    assert page.said == []  # type: ignore[attr-defined]
    page.close()


def test_click_a_kill_and_read_why(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0])
    page.locator(".strip button").nth(4).click()
    with RecordReader(runs[0]) as record:
        lines = explained_lines(explain_kill(record, 5))
        name = record.kills()[4].name
    inspector = page.locator("#inspector")
    text = " ".join(inspector.inner_text().split())
    assert name is not None
    assert name in text
    # Every line of lmk explain from the summary on is there, word for word; its marks are drawn.
    for line in lines[2:]:
        words = re.sub(r"^ *(yes |no {2}|or: )?", "", line)
        is_rule = re.fullmatch("[A-Z_]+: .*", words) and line.startswith("  ")
        for part in words.split(": ") if is_rule else [words]:
            assert part in text, line
    assert inspector.locator(".rule.fired").count() == 2  # first, and again in lmkd's order
    assert page.locator("tr.on button").inner_text() == "5"
    quiet(page)


def test_keyboard_alone(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0])
    page.locator("#zoom-all").focus()
    page.keyboard.press("Tab")
    heading = page.locator("#inspector h3")
    when = page.locator("#inspector .when")
    assert "kill 1 at" in when.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "kill 3 at" in when.inner_text()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    with RecordReader(runs[0]) as record:
        kills = record.kills()
    assert f"kill {len(kills) - 1} at" in when.inner_text()
    assert heading.inner_text() == kills[-2].name
    page.keyboard.press("Escape")
    assert heading.inner_text() == "Why did it die?"
    quiet(page)


def test_hover_shows_and_leaves_no_trace(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0])
    page.locator(".strip button").nth(2).hover()
    assert "kill 3 at" in page.locator("#inspector .when").inner_text()
    page.mouse.move(5, 5)
    assert page.locator("#inspector h3").inner_text() == "Why did it die?"
    quiet(page)


def test_zoom_and_values_under_the_pointer(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0])
    free = page.locator("#panel-memory .values b").nth(3)
    over = page.locator("#panel-memory .u-over")
    over.hover()
    assert free.inner_text() not in ("", "–")
    box = over.bounding_box()
    assert box is not None
    visible = "[...document.querySelectorAll('.strip button')].filter(b => b.style.visibility === '').length"
    before = page.evaluate(visible)
    page.mouse.move(box["x"] + 50, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 60, steps=4)
    page.mouse.up()
    assert 0 < page.evaluate(visible) < before
    page.locator("#zoom-all").click()
    assert page.evaluate(visible) == before
    quiet(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(
    browser: Browser, runs: tuple[Path, Path], tmp_path: Path, scheme: str
) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0], scheme=scheme)
    shade = "getComputedStyle(document.body).backgroundColor"
    as_system = page.evaluate(shade)
    button = page.locator("#theme")
    button.click()
    light = page.evaluate(shade)
    button.click()
    dark = page.evaluate(shade)
    assert light != dark
    assert as_system == (light if scheme == "light" else dark)
    quiet(page)


def test_two_runs_over_each_other(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", *runs)
    assert page.locator(".strip").count() == 2
    assert page.locator("#panel-available .values span").count() == 2
    assert "policy" in page.locator("tr.differs").first.inner_text()
    page.locator('.kills button[data-run="1"]').first.click()
    assert "earlyoom" in page.locator("#inspector .when").inner_text()
    quiet(page)


def test_a_phone(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0], width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sheet = page.locator("#inspector")
    assert not sheet.is_visible()
    page.locator(".strip button").first.click()
    assert sheet.is_visible()
    sheet.locator(".sheet-close").click()
    assert not sheet.is_visible()
    quiet(page)


def test_nothing_moves_once_it_is_drawn(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = open_report(browser, tmp_path / "report.html", runs[0])
    places = (
        "[...document.querySelectorAll('.panel, section, footer')].map(n => n.getBoundingClientRect().top + scrollY)"
    )
    before = page.evaluate(places)
    page.locator(".strip button").nth(3).click()
    page.locator("#panel-psi .u-over").hover()
    assert page.evaluate(places) == before
    quiet(page)


def test_records_with_little_in_them(browser: Browser, tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "empty"):
        pass
    page = open_report(browser, tmp_path / "empty.html", tmp_path / "empty")
    assert "No kills" in page.locator("#inspector").inner_text()
    assert "no samples" in page.locator("#panels").inner_text()
    quiet(page)
    page = open_report(browser, tmp_path / "two.html", tmp_path / "empty", small_record(tmp_path / "small"))
    assert page.locator('.strip[data-run="0"] .none').count() == 1
    page.locator('.strip[data-run="1"] button').nth(1).click()
    assert "kernel's OOM killer" in page.locator("#inspector").inner_text()
    quiet(page)
