"""The labelling page in a real Chromium, by keyboard, as people use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cai import people
from cai.labels.events import effective
from cai.runs import RunFolder
from tests.labels.page import judged_run
from tests.labels.test_page import start

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium here (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const f = [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2];
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("button, label, legend, h1, h1 span, h2, p, summary, kbd, .text, b")) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const a = light(parse(getComputedStyle(node).color)), b = light(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent.trim().slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, progress, dialog, section, article")]
  .filter((n) => !(n.getAttribute("aria-label") || n.getAttribute("aria-labelledby") || n.textContent.trim()
    || (n.labels && n.labels.length))).map((n) => n.outerHTML.slice(0, 80))"""
KEPT = """(kind) => Object.keys(localStorage).filter((name) => name.split(":")[2] === kind)
  .map((name) => JSON.parse(localStorage.getItem(name)))"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged_run(tmp_path_factory.mktemp("browser"))


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture
def served(place: Path) -> Iterator[tuple[Path, str]]:
    process, link = start(place)
    yield place, link
    process.terminate()
    process.wait(60)
    assert process.stderr is not None
    process.stderr.close()


def opened(browser: Any, link: str, **more: Any) -> Any:
    context = browser.new_context(**more)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda line: page.faults.append(line.text) if line.type == "error" else None)
    page.goto(link)
    page.wait_for_selector("article")
    return page


def first_text(page: Any) -> str:
    return str(page.locator("article .text").first.inner_text())


def done(page: Any, number: int) -> None:
    page.locator("#count").filter(has_text=f"{number} of").wait_for()


def test_labelling_by_keyboard_alone(browser: Any, served: tuple[Path, str]) -> None:
    place, link = served
    page = opened(browser, link)
    assert "token" not in page.url
    assert "<script>" in first_text(page), "markup is shown as text"
    assert page.title() == "cai: which answer is better?"
    page.keyboard.press("a")
    assert page.locator("#answer-0.better").count() == 1
    page.keyboard.press("Enter")
    done(page, 1)
    page.keyboard.press("6")
    assert page.locator("#v0-right").is_checked()
    page.keyboard.press("n")
    page.keyboard.type("a note, with a and b")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    done(page, 2)
    before = first_text(page)
    page.reload()
    page.wait_for_selector("article")
    assert first_text(page) == before, "a reload shows the same item"
    page.keyboard.press("u")
    page.wait_for_selector("#s0-6:checked", state="attached")
    assert page.locator("#note").input_value() == "a note, with a and b"
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    done(page, 2)
    page.keyboard.press("Enter")
    page.wait_for_selector("#status.bad")
    page.keyboard.press("s")
    done(page, 3)
    page.keyboard.press("g")
    assert page.locator("dialog dt").count() == 1
    page.keyboard.press("Escape")
    assert page.faults == []
    page.context.close()
    verdicts = [label.verdict for label in effective(people.events_of(RunFolder(place)))]
    assert len(verdicts) == 2
    assert "both_bad" in verdicts


def test_a_second_tab_and_a_lost_network_lose_and_double_nothing(browser: Any, served: tuple[Path, str]) -> None:
    _, link = served
    page = opened(browser, link)
    other = page.context.new_page()
    other.goto(link.split("#")[0])
    other.wait_for_selector("article")
    assert first_text(other) == first_text(page)
    for tab, key in ((page, "a"), (other, "b")):
        tab.keyboard.press(key)
        tab.keyboard.press("Enter")
        done(tab, 1)
    page.context.set_offline(True)
    page.keyboard.press("t")
    page.keyboard.press("Enter")
    page.locator("#status").filter(has_text="No connection").wait_for()
    page.context.set_offline(False)
    done(page, 2)
    assert page.evaluate(KEPT, "queue") == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_on_desk_and_phone(browser: Any, served: tuple[Path, str], scheme: str) -> None:
    _, link = served
    page = opened(browser, link, color_scheme=scheme, viewport={"width": 1200, "height": 800})
    page.keyboard.press("a")
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("Tab")
    outline = page.evaluate(
        "() => { const n = document.activeElement; const s = getComputedStyle(n.closest('label') || n);"
        "return [s.outlineStyle, parseFloat(s.outlineWidth)]; }"
    )
    assert outline[0] != "none"
    assert outline[1] >= 2
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) == []
    sizes = page.evaluate("[...document.querySelectorAll('button, .choices label')].map((n) => n.offsetHeight)")
    assert min(size for size in sizes if size) >= 44
    page.context.close()


def edited(page: Any) -> None:
    page.keyboard.press("b")
    page.keyboard.press("e")
    assert page.locator("#edited-1").is_checked(), "the better answer is rewritten, from what it is"
    before = page.locator("#edit").input_value()
    assert before == page.locator("#answer-1 .text").inner_text()
    page.keyboard.type("Better: ")
    assert page.locator("#edit").input_value() == f"Better: {before}"
    page.keyboard.press("Escape")


def test_what_was_typed_survives_a_reload_and_a_change_of_answer_does_not_lose_it(
    browser: Any, served: tuple[Path, str]
) -> None:
    place, link = served
    page = opened(browser, link)
    edited(page)
    page.keyboard.press("n")
    page.keyboard.type("half a note")
    page.reload()
    page.wait_for_selector("article")
    assert page.locator("#note").input_value() == "half a note"
    text = page.locator("#edit").input_value()
    assert text.startswith("Better: ")
    assert page.locator("#v0-right").is_checked()
    page.locator("label[for=edited-0]").click()
    assert page.locator("#edit").input_value() == text
    page.locator("label[for=edited-1]").click()
    page.locator("#send").click()
    done(page, 1)
    assert page.evaluate(KEPT, "draft") == []
    assert page.faults == []
    page.context.close()
    (label,) = effective(people.events_of(RunFolder(place)))
    assert label.edit == text
    assert label.verdict == ("b" if label.shown_order == "ab" else "a")
    assert label.note == "half a note"


def test_two_people_in_one_browser_keep_their_verdicts_apart(browser: Any, place: Path) -> None:
    process, link = start(place, "--annotators", "ann,bea")
    assert process.stderr is not None
    beas = next(line for line in process.stderr if line.startswith("bea: ")).split(" ", 1)[1].strip()
    page = opened(browser, link)
    assert page.locator("#who").inner_text() == "ann"
    other = page.context.new_page()
    other.goto(beas)
    other.locator("#who").filter(has_text="bea").wait_for()
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.locator("#empty").filter(has_text="now used by bea").wait_for()
    assert len(page.evaluate(KEPT, "queue")) == 1
    other.keyboard.press("b")
    other.keyboard.press("Enter")
    done(other, 1)
    page.goto("about:blank")
    page.goto(link)  # ann's own link again: what she said is sent, as hers
    done(page, 1)
    assert page.evaluate(KEPT, "queue") == []
    page.context.close()
    process.terminate()
    process.wait(60)
    process.stderr.close()
    said = {
        label.annotator: (label.verdict, label.shown_order) for label in effective(people.events_of(RunFolder(place)))
    }
    assert said["ann"] == ("a" if said["ann"][1] == "ab" else "b", said["ann"][1])
    assert said["bea"] == ("b" if said["bea"][1] == "ab" else "a", said["bea"][1])


def test_a_verdict_that_is_refused_blocks_nothing_and_is_not_lost(browser: Any, served: tuple[Path, str]) -> None:
    _, link = served
    page = opened(browser, link)
    bad = {"id": "refused-verdict", "task": "gone", "ticket": "", "said": {"note": "a note that took an hour"}}
    page.keyboard.press("n")
    page.keyboard.type("x")  # a draft, from whose name the person's key is read
    key = page.evaluate("Object.keys(localStorage)[0].split(':')[1]")
    queued = json.dumps({**bad, "ticket": f"{key}.x"})
    page.evaluate(
        "([name, text]) => localStorage.setItem(name, text)", [f"cai-label:{key}:queue:0-0-{bad['id']}", queued]
    )
    page.reload()
    page.wait_for_selector("article")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    done(page, 1)
    assert page.evaluate(KEPT, "queue") == []
    page.locator("#refused").click()
    assert "a note that took an hour" in page.locator("dialog").inner_text()
    page.locator("dialog button", has_text="Throw them away").click()
    assert page.locator("#refused").is_hidden()
    # A server that fails on one verdict, every time, does not hold up the next item either.
    page.route("**/api/verdict", lambda route: route.fulfill(status=500, body="<html>oh</html>"))
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.locator("#status").filter(has_text="Not taken").wait_for()
    page.unroute("**/api/verdict")
    page.keyboard.press("Enter")
    done(page, 2)
    page.context.close()


def test_a_lost_reply_to_undo_takes_back_one(browser: Any, served: tuple[Path, str]) -> None:
    _, link = served
    page = opened(browser, link)
    for number in (1, 2):
        page.keyboard.press("a")
        page.keyboard.press("Enter")
        done(page, number)

    def lose(route: Any) -> None:
        route.fetch()  # the server has it
        route.abort()

    page.route("**/api/undo", lose)
    page.keyboard.press("u")
    page.locator("#status").filter(has_text="No connection").wait_for()
    page.unroute("**/api/undo")
    page.keyboard.press("u")
    page.locator("#status").filter(has_text="say it again").wait_for()
    done(page, 1)
    page.context.close()
