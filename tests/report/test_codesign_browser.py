"""A study's page in a real browser: hover, sort, filter, keyboard; a quiet console and no requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from synthetic_study import DEVICES, make_study
from test_browser import CONTRAST, browser  # noqa: F401  the fixture

from dsonas_hw.report.write import write_report
from dsonas_hw.study.codesign_result import CodesignResult, load_result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_study(tmp_path_factory.mktemp("studies") / "study")
    write_report(path)
    return path


@pytest.fixture
def open_page(browser: Browser, study: Path) -> Iterator[Any]:  # noqa: F811
    """Opens the report; at the end, nothing may have been said on the console or asked of a network."""
    contexts, problems, requests = [], [], []

    def open_study(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((study / "report.html").as_uri())
        return page

    yield open_study
    for context in contexts:
        context.close()
    assert problems == []
    assert all(url.startswith("file:") for url in requests)
    assert len(requests) == len(contexts)


def column(page: Page, number: int) -> list[str]:
    """The sorted values of a column of the cross table, top to bottom."""
    return page.locator("table.cross tbody tr").evaluate_all(
        "(rows, n) => rows.map(row => row.cells[n].dataset.value ?? row.cells[n].textContent)", number
    )


def shown_edges(page: Page, block: int) -> set[int]:
    drawing = page.locator("[data-explorer] svg.drawing").nth(block)
    return set(
        drawing.evaluate(
            "svg => [...svg.querySelectorAll('[data-edge]:not(.off)')].map(e => Number(e.dataset.edge))"
        )
    )


def expected_edges(result: CodesignResult, number: int, block: int) -> set[int]:
    architecture = result.networks[number].architecture
    alive, space = architecture.blocks[block], architecture.space
    edges = {(s, n) for n in alive.nodes for s in alive.inputs[n - 1]}
    edges |= {(n, space.num_nodes + 1) for n in alive.output}
    return {space.edges.index(edge) for edge in edges}


def test_hovering_a_point_draws_its_network(open_page: Any, study: Path) -> None:
    page, result = open_page(), load_result(study)
    chart = page.locator(".fronts svg.chart").nth(1)
    for number in (0, 3, 5):
        chart.locator(f'[data-point="{number}"]').last.hover(force=True)
        words = page.locator("[data-explorer] output").inner_text()
        assert words.startswith(f"Network {result.networks[number].name}:")
        for block in range(2):
            assert shown_edges(page, block) == expected_edges(result, number, block)
        # The same network is marked on every device, and in the table.
        assert page.locator(".fronts .halo:not([hidden])").count() == len(DEVICES)
        assert page.locator("table.cross tr.selected th").inner_text() == result.networks[number].name


def test_points_are_reached_by_keyboard(open_page: Any) -> None:
    page = open_page()
    page.locator(".fronts svg.chart").first.locator("[data-point][tabindex='0']").focus()
    before = page.locator("[data-explorer] output").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-explorer] output").inner_text() != before


def test_pointing_at_a_row_draws_its_network(open_page: Any) -> None:
    page = open_page()
    page.locator("table.cross tbody tr").nth(4).hover()
    assert page.locator("[data-explorer] output").inner_text().startswith("Network E:")
    page.locator("table.cross tbody tr").nth(2).locator("a").focus()
    assert page.locator("[data-explorer] output").inner_text().startswith("Network C:")


def test_sorting_by_any_column(open_page: Any) -> None:
    page = open_page()
    assert column(page, 0) == ["0", "1", "2", "3", "4", "5"]
    for name, number in (("v100, ms", 4), ("Accuracy", 2), ("mac", 6)):
        button = page.locator("table.cross").get_by_role("button", name=name)
        head = page.locator("table.cross thead th").nth(number)
        button.click()
        assert head.get_attribute("aria-sort") == "ascending"
        values = [float(value) for value in column(page, number)]
        assert values == sorted(values)
        button.focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert [float(value) for value in column(page, number)] == sorted(values, reverse=True)
        assert page.locator("table.cross th[aria-sort]").count() == 1


def test_filtering_by_device(open_page: Any) -> None:
    page = open_page()
    page.get_by_label("v100", exact=True).uncheck()
    assert not page.locator("table.cross thead th", has_text="v100").is_visible()
    assert page.locator("table.cross tbody tr:visible").count() == 4  # those found for the other two
    assert page.locator(".fronts svg.chart:visible").count() == 2
    assert page.locator("table.cross tbody td:visible[data-device='v100']").count() == 0
    page.get_by_label("v100", exact=True).check()
    assert page.locator("table.cross tbody tr:visible").count() == 6


def test_a_link_unfolds_the_network(open_page: Any) -> None:
    page = open_page()
    drawing = page.locator("#network-B svg.drawing").first
    assert not drawing.is_visible()
    page.locator("table.cross a[href='#network-B']").click()
    drawing.wait_for(state="visible")


def test_without_a_script_everything_is_readable(open_page: Any) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator("table.cross tbody tr").count() == 6
    assert page.locator(".fronts svg.chart").count() == 3
    for hidden in ("[data-explorer]", "[data-filter]"):
        assert not page.locator(hidden).is_visible()
    page.locator("#network-C summary").click()
    assert page.locator("#network-C svg.drawing").first.is_visible()


@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_sticks_out_sideways(open_page: Any, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_the_page(open_page: Any, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst


def test_printed_on_paper_everything_folded_is_there_and_tools_are_not(open_page: Any) -> None:
    page = open_page(color_scheme="dark")
    assert page.pdf().startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == 0  # unfolded before printing
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST)["ratio"] >= 4.5
    for tool in ("[data-explorer]", "[data-filter]", "nav"):
        assert not page.locator(tool).is_visible()
    assert page.locator("#network-C svg.drawing").first.is_visible()
