"""The page in a real browser, at the widths of a phone and of a desktop, light and dark."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest
import synthetic_records as synthetic

from metalearn_benchmarks.plotting.style import COLOURS, DARK_COLOURS, TEXT_COLOUR
from metalearn_benchmarks.report.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = {"phone": (360, 740), "desktop": (1280, 900)}
NEVER_READABLE = 3.0
"""WCAG's least contrast for what is not text; text has 4.5."""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    cells = [synthetic.cell(name, seed) for name in ("maml", "turtle", "lstm-enhanced") for seed in (0, 1)]
    shallow = {"method": "turtle", "options": {"hidden": [20]}}
    cells += [synthetic.cell("turtle,hidden=[20]", seed, **shallow) for seed in (0, 1)]
    found = synthetic.read(folder / "in", cells)
    images = [
        synthetic.cell(name, 0, experiment="images", setting="cub-5-way-1-shot", family="cub")
        for name in ("maml", "turtle")
    ]
    found += synthetic.read(folder / "images", images, level=0.5, accuracy=True)
    notes = [f"sine/sine-5-shot/maml/{seed}: written by a newer version <2>" for seed in range(7)]
    return write_report(found, folder / "out", unfinished=1, skipped=notes)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `testing`)")
    if CHROMIUM is None:
        pytest.skip("needs chromium on the PATH")
    with playwright.sync_playwright() as started:
        # a container's root has no sandbox to be had
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(params=itertools.product(WIDTHS, ("light", "dark")), ids="-".join)
def view(request, browser, page_file):
    """The page, with the addresses that it asked for and what its console said."""
    name, scheme = request.param
    width, height = WIDTHS[name]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    asked, told = [], []
    page.on("request", lambda found: asked.append(found.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(page_file.as_uri())
    yield page, asked, told
    context.close()


def test_it_fits_and_asks_nobody(view, page_file):
    page, asked, told = view
    assert asked == [page_file.as_uri()]
    assert told == []
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    width, inside = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inside
    # nothing hangs over its edge but what scrolls inside a box of its own
    over = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') && !e.closest('svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert over == []


def test_every_figure_is_there_to_see_and_has_a_name(view):
    page, *_ = view
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    figures = page.locator("figure svg")
    assert figures.count() == 2 * (2 + 5 + 2) + 3 + 3  # two settings, Figures 3.2 to 3.4, the map
    for box, label in page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => [s.getBoundingClientRect().toJSON(),"
        " s.getAttribute('role') === 'img' && s.getAttribute('aria-label')])"
    ):
        assert box["width"] > 250
        assert box["height"] > 100
        assert label


def test_a_methods_name_opens_its_protocol(view):
    page, *_ = view
    link = page.locator("tbody th a").first
    target = page.locator(link.get_attribute("href"))
    assert not target.is_visible()
    link.click()
    target.wait_for(state="visible", timeout=2_000)
    assert "SHA-256 of result.json" in target.inner_text()
    notes = page.locator(".note details")
    assert not notes.locator("li").first.is_visible()
    notes.locator("summary").click()
    assert "newer version <2>" in notes.locator("li").first.inner_text()


def test_text_stands_out_from_its_ground(view):
    page, *_ = view
    pairs = page.evaluate(
        """['p', 'a', 'figcaption', 'small', 'summary', 'th', '.facts th', 'svg text', 'article p', '.note p']
        .map(name => {
            const element = document.querySelector(name), style = getComputedStyle(element)
            return [name, element.closest('svg') ? style.fill : style.color,
                    getComputedStyle(document.body).backgroundColor]
        })"""
    )
    for name, ink, ground in pairs:
        assert contrast(*map(from_css, (ink, ground))) >= 4.5, name


def from_css(text):
    return [int(part) for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def from_hex(text):
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def contrast(one, other):
    """WCAG's ratio of two colours."""

    def luminance(colour):
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("colours", "ground"), [(COLOURS, "#ffffff"), (DARK_COLOURS, "#16181b")])
def test_lines_stand_out_from_their_page(colours, ground):
    assert len(set(colours)) == 8
    for colour in colours:
        assert contrast(from_hex(colour), from_hex(ground)) >= NEVER_READABLE, colour


def test_words_of_a_picture_stand_out_from_white():
    assert contrast(from_hex(TEXT_COLOUR), from_hex("#ffffff")) >= 4.5


def test_print_is_dark_on_white_and_hides_what_is_closed(browser, page_file):
    page = browser.new_page(color_scheme="dark")
    page.goto(page_file.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert from_css(ground) == [255, 255, 255]
    assert not page.locator("nav").is_visible()
    assert not page.locator("section details").first.is_visible()
    assert page.locator("section table").first.is_visible()
    page.close()
