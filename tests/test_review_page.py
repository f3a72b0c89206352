"""The page of questions: whole, harmless whatever files are called, and what its script saves."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from report_runs import EVIL, Page, clustered

pytest.importorskip("jinja2")
from fastreid_cc.labeling.questions import choose_questions
from fastreid_cc.report.review import build_review

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
BEFORE = [("old.png", 'a "quoted", one.png', "yes")]


def review(folder: Path, *, evil: bool = False):
    images = clustered(folder)
    name = EVIL + "\n" if evil else ""
    names = [f"{name}{Path(path).name}" for path in images.paths]
    questions = choose_questions(images.features, images.labels, 7)
    page = build_review(
        questions,
        paths=images.paths,
        names=names,
        labels=images.labels,
        answered=BEFORE,
        title=f"run {name}",
    )
    return page, [(names[asked.first], names[asked.second]) for asked in questions]


def test_the_page_shows_every_pair_and_only_its_own_script_may_run(tmp_path):
    text, pairs = review(tmp_path, evil=True)
    page = Page(text)
    assert page.faults == []
    assert list(zip(*map(page.attributes, ("data-first", "data-second")), strict=True)) == pairs
    assert [tag for tag, _ in page.tags].count("input") == 3 * len(pairs) == 21
    assert json.loads(page.attributes("data-answered")[0]) == [list(row) for row in BEFORE]
    assert all(source.startswith("data:image/jpeg") for source in page.attributes("src"))
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.attributes("content")[0]
    assert "line 3" in page.text and "line 9" in page.text  # below the header and an earlier answer


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_saved_table_holds_earlier_answers_and_new_ones(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    text, pairs = review(tmp_path, evil=True)
    (tmp_path / "review.html").write_text(text, "utf-8")
    messages = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        narrow = {"width": 390, "height": 800}
        page = browser.new_context(viewport=narrow, offline=True).new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto((tmp_path / "review.html").as_uri())
        page.locator("article").nth(0).get_by_text("Same", exact=True).click()
        page.locator("article").nth(2).get_by_text("Different").click()
        assert page.locator("output").inner_text() == "2 of 7 answered"
        with page.expect_download() as saved:
            page.get_by_role("button").click()
        assert saved.value.suggested_filename == "answers.csv"
        table = Path(saved.value.path()).read_text("utf-8")
        wide = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        browser.close()
    said = dict.fromkeys(range(len(pairs)), "") | {0: "yes", 2: "no"}
    rows = [(*pair, said[at]) for at, pair in enumerate(pairs)]
    expected = [("first", "second", "same"), *BEFORE, *rows]
    found = [tuple(row) for row in csv.reader(io.StringIO(table, newline=""))]
    assert found == expected and wide == 0 and messages == []
