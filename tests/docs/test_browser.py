"""The built manual in a real headless Chromium: it asks no other host, nothing sticks out, tables are tables.

`make docs` builds it; `make test-docs` comes here.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.report.browser import CHROMIUM, Browser

SITE = ROOT / "build" / "docs"
BUILT = sorted(page.relative_to(SITE).as_posix() for page in SITE.rglob("*.html"))
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; `make test-report` installs it"),
    pytest.mark.skipif(not BUILT, reason="the manual is not built; `make test-docs` does it"),
]
READY = "document.readyState === 'complete'"
NARROW = 390


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.mark.parametrize("page", BUILT)
def test_a_page_on_a_wide_and_on_a_narrow_screen(browser, page):
    for width in (1280, NARROW):
        browser.open(SITE / page, width=width, ready=READY)
        assert [url for url in browser.requests() if not url.startswith(("data:", "file:"))] == []
        assert browser.run("document.documentElement.scrollWidth") <= width
        if named := os.environ.get("REPORT_SCREENSHOTS"):
            Path(named).mkdir(parents=True, exist_ok=True)
            browser.screenshot(Path(named) / f"manual-{page.replace('/', '-').removesuffix('.html')}-{width}.png")
    # What was meant as a table or as code is one: no cell's bar and no backtick is left in the text.
    text = browser.run("[...document.querySelectorAll('article p, article li')].map(p => p.innerText).join('\\n')")
    assert not re.search(r"^\|.*\|$", text, re.MULTILINE)
    assert "`" not in text


def test_the_search_finds_a_setting():
    found = json.loads((SITE / "search" / "search_index.json").read_text())["docs"]
    assert any("train.reference_tolerance" in each["text"] for each in found)
