"""The documentation's pages in a real browser, after ``make docs``."""

import pytest

from tests.helpers import REPOSITORY
from tests.reporting.browser import CHROMIUM, Browser

SITE = REPOSITORY / "build" / "site"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.skipif(not SITE.is_dir(), reason="needs make docs")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_window_and_show_their_pictures(tmp_path, width):
    browser, wrong = Browser(tmp_path), {}
    pages = sorted(SITE.rglob("*.html"))
    for page in pages:
        browser.open(page, width)
        shown = browser.run("document.documentElement.scrollWidth")
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        if shown > width or browser.run(broken):
            wrong[page.name] = shown, browser.run(broken)
    browser.close()
    assert len(pages) > 20
    assert wrong == {}
