"""The page in a real browser: quiet console, no requests, and hovering shows architectures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from dsonas_hw.files import read_json, read_json_lines
from dsonas_hw.report.run_data import RunData
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.report.write import write_report
from dsonas_hw.run_directory import RunDirectory

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield instance
        instance.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    """Opens reports; at the end, nothing may have been said on the console or asked of a network."""
    contexts, problems, requests = [], [], []

    def open_run(run: RunDirectory, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(write_report(run.path).as_uri())
        return page

    yield open_run
    for context in contexts:
        context.close()
    assert problems == []
    assert all(url.startswith("file:") for url in requests)
    assert len(requests) == len(contexts)


def shown_edges(page: Page, block: int) -> set[int]:
    """Edges visible in one drawing of the explorer."""
    return set(
        page.locator("[data-explorer] svg.drawing")
        .nth(block)
        .evaluate(
            "svg => [...svg.querySelectorAll('[data-edge]:not(.off)')].map(e => Number(e.dataset.edge))"
        )
    )


def expected_edges(data: RunData, point: int, block: int) -> set[int]:
    assert data.space is not None
    alive = data.path[point].blocks[block]
    edges = {(s, n) for n in alive.nodes for s in alive.inputs[n - 1]}
    edges |= {(n, data.space.num_nodes + 1) for n in alive.output}
    return {data.space.edges.index(edge) for edge in edges}


def test_hovering_a_point_draws_its_architecture(open_page: Any, full_run: RunDirectory) -> None:
    page, data = open_page(full_run), load_run_data(full_run)
    dots = page.locator("#path svg.chart").first.locator("[data-point]")
    for position in (0, 7, dots.count() - 3):
        dot = dots.nth(position)
        number = int(dot.get_attribute("data-point"))
        dot.hover(force=True)
        words = page.locator("[data-explorer] output").inner_text()
        assert words.startswith(f"Step {data.path[number].step},")
        for block in range(3):
            assert shown_edges(page, block) == expected_edges(data, number, block)


def test_the_slider_walks_the_path_by_keyboard(open_page: Any, share_run: RunDirectory) -> None:
    page = open_page(share_run)
    slider = page.get_by_label("Walk along the path")
    before = page.locator("[data-explorer] output").inner_text()
    assert "The chosen one, in the end 16 channels wide" in before
    slider.focus()
    page.keyboard.press("Home")
    first = page.locator("[data-explorer] output").inner_text()
    page.keyboard.press("ArrowRight")
    assert len({before, first, page.locator("[data-explorer] output").inner_text()}) == 3


def test_points_are_reached_by_keyboard(open_page: Any, share_run: RunDirectory) -> None:
    page = open_page(share_run)
    chart = page.locator("#path svg.chart").first
    assert chart.locator("[data-point][tabindex='0']").count() == 1
    chart.locator("[data-point][tabindex='0']").focus()
    before = page.locator("[data-explorer] output").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-explorer] output").inner_text() != before
    assert chart.locator("[data-point][tabindex='0']").count() == 1


def test_an_unscored_choice_leaves_a_way_in(open_page: Any, small_run: RunDirectory) -> None:
    step = read_json(small_run.architecture_path)["derived"]["step"]
    path = small_run.log_path("path.jsonl")
    rows = [row if row["step"] != step else {**row, "accuracy": None} for row in read_json_lines(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = open_page(small_run)
    assert "not scored" in page.locator("[data-explorer] output").inner_text()
    page.locator("#path svg.chart").first.locator("[data-point][tabindex='0']").focus()
    assert "not scored" not in page.locator("[data-explorer] output").inner_text()


def test_without_a_script_everything_is_readable(open_page: Any, share_run: RunDirectory) -> None:
    page = open_page(share_run, java_script_enabled=False)
    assert page.get_by_role("heading", name="Every budget holds, measured on local").is_visible()
    assert page.locator("#architecture svg.drawing").is_visible()
    assert page.locator("#path svg.chart").first.is_visible()
    assert not page.locator("[data-explorer]").is_visible()
    page.get_by_text("Best architectures as a table").click()
    assert page.locator("#path table").is_visible()


@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_sticks_out_sideways(open_page: Any, full_run: RunDirectory, width: int) -> None:
    page = open_page(full_run, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_the_page(open_page: Any, share_run: RunDirectory, scheme: str) -> None:
    page = open_page(share_run, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst


#: The lowest WCAG contrast of any text outside drawings against the nearest background.
CONTRAST = """() => {
  const rgb = text => text.match(/[0-9.]+/g).map(n => text.startsWith('color') ? 255 * n : Number(n));
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 99 };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || element.closest('.drawing, script, style, title, .skip')) continue;
    const style = getComputedStyle(element);
    const paint = rgb(element.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(paint), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text, paint: String(paint) };
  }
  return worst;
}"""
