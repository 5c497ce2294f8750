"""The page in a real headless Chromium: no complaint, no request, readable in both schemes and on a narrow screen."""

import os
from pathlib import Path

import pytest

from nemo_sspo.commands.report import draw_run
from nemo_sspo.report import theme
from nemo_sspo.report.compare_page import compare_page
from nemo_sspo.report.facts.comparison import compare
from nemo_sspo.report.render import write_page
from tests import processor_time
from tests.report.browser import CHROMIUM, Browser
from tests.report.large_run import large_run
from tests.report.made_run import HOSTILE, half_finished_run, record

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; `make test-report` installs it")

SECONDS = 3.0
"""Within which a page must be open: the least processor time of the page's thread, since the machine may be busy."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    """Where pictures go: REPORT_SCREENSHOTS, or the tests' temporary directory."""
    named = os.environ.get("REPORT_SCREENSHOTS")
    directory = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    first, second = half_finished_run(runs, "one"), half_finished_run(runs, "two")
    compared = write_page(compare_page(compare([record(first), record(second)])), runs / "compare.html")
    return {"report": draw_run(record(first).layout), "compare": compared}


@pytest.mark.parametrize("page", ["report", "compare"])
@pytest.mark.parametrize(
    ("look", "width", "dark"), [("light", 1280, False), ("dark", 1280, True), ("narrow", 390, False)]
)
def test_the_page_is_drawn_without_a_complaint(browser, pages, screenshots, page, look, width, dark):
    browser.open(pages[page], width=width, dark=dark)
    browser.draw_everything()
    browser.screenshot(screenshots / f"{page}-{look}.png")
    assert browser.complaints() == []
    outside = [url for url in browser.requests() if not url.startswith("data:")]
    assert outside == [pages[page].resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width  # nothing sticks out
    colours = theme.DARK if dark else theme.LIGHT
    assert browser.run("getComputedStyle(document.body).color") == rgb(colours["ink"])
    assert browser.run("getComputedStyle(document.body).backgroundColor") == rgb(colours["page"])
    # Figures follow the scheme: text in the scheme's ink, lines in its colours, nothing in the other's.
    inks = browser.run("[...new Set([...document.querySelectorAll('.xtick text')].map(t => t.style.fill))].join()")
    assert inks == rgb(colours["ink"])
    lines = browser.run("[...new Set([...document.querySelectorAll('path.js-line')].map(p => p.style.stroke))]")
    bars = browser.run("[...new Set([...document.querySelectorAll('.errorbar path')].map(p => p.style.stroke))]")
    assert bars
    assert set(bars) <= {rgb(colour) for colour in colours.values()}
    other = theme.LIGHT if dark else theme.DARK
    assert set(lines) & {rgb(colours[f"series{n}"]) for n in range(1, 7)}
    assert not set(lines) & {rgb(other[f"series{n}"]) for n in range(1, 7)}


@pytest.mark.parametrize("dark", [False, True])
def test_the_heat_map_is_readable(browser, pages, dark):
    """Its cells are an image: what it was drawn with is looked at."""
    browser.open(pages["report"], dark=dark)
    browser.draw_everything()
    colours = theme.DARK if dark else theme.LIGHT
    whole = "document.querySelector('#plot-win-matrix')._fullData[0]"
    trace = browser.run(f"(({{colorscale, textfont}}) => ({{colorscale, textfont}}))({whole})")
    assert [colour for _, colour in trace["colorscale"]] == [colours[name] for name in ("low", "middle", "high")]
    assert trace["textfont"]["color"] == colours["ink"]


def test_figures_follow_a_change_of_the_scheme(browser, pages):
    browser.open(pages["report"])
    browser.draw_everything()
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait("[...document.querySelectorAll('.canvas')].every(canvas => canvas.dataset.drawn === 'dark')")
    ink = f"'{rgb(theme.DARK['ink'])}'"
    browser.wait(f"[...document.querySelectorAll('.xtick text')].every(text => text.style.fill === {ink})")
    assert browser.complaints() == []


def test_hostile_text_is_shown_as_text(browser, pages):
    browser.open(pages["report"])
    search(browser, "bad answer 3 ")
    assert browser.run("document.querySelectorAll('.prompt').length") == 1
    assert HOSTILE in browser.run("document.querySelector('.prompt').textContent")
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert browser.complaints() == []


def test_prompts_can_be_searched_filtered_sorted_and_paged(browser, pages):
    browser.open(pages["report"])
    assert browser.run("document.querySelector('.position').textContent") == "1 to 5 of 24"
    browser.run("document.querySelector('[name=on]').click()")
    assert browser.run("document.querySelector('.position').textContent") == "6 to 10 of 24"
    search(browser, "GOOD ANSWER 1")  # 1, 10 and 11, in either case
    assert browser.run("document.querySelector('.position').textContent") == "1 to 3 of 3"
    assert browser.run("document.querySelector('[name=on]').disabled")
    search(browser, "")
    choose(browser, "kind", "dropped")
    assert browser.run("document.querySelector('.found').textContent") == "1 found."
    assert "no pair: tie" in browser.run("document.querySelector('.prompt').textContent")
    choose(browser, "kind", "")
    choose(browser, "order", "similarity")
    assert "similarity 1.000" in browser.run("document.querySelector('.prompt').textContent")
    choose(browser, "iteration", "2")
    choose(browser, "order", "")
    assert "pairs are not built yet" in browser.run("document.querySelector('.prompt').textContent")


def test_everything_can_be_reached_by_keyboard(browser, pages):
    browser.open(pages["report"])
    for _ in range(3):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.run("document.activeElement.matches('nav a')")
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_numbers_stand_behind_every_plot(browser, pages):
    browser.open(pages["report"])
    without = "[...document.querySelectorAll('figure')].filter(f => !f.querySelector('details tbody td')).length"
    assert browser.run("document.querySelectorAll('figure').length") > 25
    assert browser.run(without) == 0


def test_a_run_of_20_000_prompts_opens_in_time(browser, tmp_path):
    settings = large_run(tmp_path, prompts=20_000)
    page = draw_run(record(settings).layout)
    assert page.stat().st_size < 12e6

    def opening() -> float:
        browser.open(page)
        return browser.processor_seconds()

    spent = processor_time.least(opening)
    browser.draw_everything()
    assert spent < SECONDS
    print(f"open after {spent:.2f} s of processor time, {browser.run('document.documentElement.dataset.ready')} ms")
    assert browser.run("document.querySelectorAll('.prompt').length") == 5
    assert browser.complaints() == []


def search(browser, text):
    set_value(browser, "text", text)


def choose(browser, name, value):
    set_value(browser, name, value)


def set_value(browser, name, value):
    browser.run(
        f"(() => {{ const field = document.querySelector('#browser form').elements[{name!r}]; field.value = {value!r}; "
        "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
