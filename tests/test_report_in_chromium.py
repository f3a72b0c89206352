"""The page in a browser, if there is one: no message in the console, every image shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_runs import EVIL, label_free, supervised

from fastreid_cc.report import build_page

pytest.importorskip("matplotlib")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

LOOK = """() => ({
  images: document.images.length,
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  small: [...document.querySelectorAll('svg text')].filter(
    t => t.getBoundingClientRect().height < 8).length,
  ran: Boolean(window.ran),
})"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_offline_without_a_message(tmp_path: Path, width: int) -> None:
    first = label_free(tmp_path)
    first.name = EVIL.replace("alert(1)", "window.ran=1").replace("alert('x')", "window.ran=1")
    page_file = tmp_path / "report.html"
    page_file.write_text(build_page([first, supervised(tmp_path)]), "utf-8")
    messages: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("requestfailed", lambda request: messages.append(request.url))
        page.goto(page_file.as_uri())
        found = page.evaluate(LOOK)
        page.click("details[name=zoom] > summary")
        enlarged = page.locator("details[open] img").first.bounding_box()
        browser.close()
    assert messages == []
    assert found.pop("images") > 50
    assert enlarged is not None and enlarged["height"] > 300
    assert found == {"broken": 0, "wide": 0, "small": 0, "ran": False}
