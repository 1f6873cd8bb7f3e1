"""The page: self-contained, honest about what was measured, safe against what a run directory holds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import CONFUSION, make_run

from dsonas_hw.files import read_json, write_json
from dsonas_hw.report.explorer import Explorer, Shown
from dsonas_hw.report.figures_path import path_figures
from dsonas_hw.report.numbers import cost_text
from dsonas_hw.report.page import render
from dsonas_hw.report.run_classes import class_table, confusion_table
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.report.run_tables import prediction_table
from dsonas_hw.report.write import write_report
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.table.rows import CheckRow, ErrorSummary, TableHeader
from dsonas_hw.table.table import save_table, table_path
from dsonas_hw.target import Target

VOID = {"meta", "input", "br", "link", "img", "hr"}
SECTIONS = ["verdict", "architecture", "path", "search", "prediction", "retraining", "environment"]


class Elements(HTMLParser):
    """Collects elements and checks that they nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def html_of(run: RunDirectory) -> str:
    path = write_report(run.path)
    assert path == run.path / "report.html"
    return path.read_text(encoding="utf-8")


def test_page_is_well_formed_and_loads_nothing(share_run: RunDirectory) -> None:
    html = html_of(share_run)
    page = Elements(html)
    loading = {"src", "srcset", "data", "action", "poster", "background"}
    for tag, attributes in page.found:
        assert not loading & set(attributes), (tag, attributes)
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#")
    assert "url(" not in html
    assert "@import" not in html
    assert [a["id"] for tag, a in page.found if tag == "section"] == SECTIONS


def test_the_policy_admits_exactly_the_page_s_own_script(share_run: RunDirectory) -> None:
    html = html_of(share_run)
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_ids_are_unique(full_run: RunDirectory) -> None:
    ids = [a["id"] for _, a in Elements(html_of(full_run)).found if "id" in a]
    assert len(ids) == len(set(ids))


def test_measured_run_says_so(share_run: RunDirectory) -> None:
    words = Elements(html_of(share_run)).words
    assert "Every budget holds, measured on local" in words
    assert "ESTIMATED" not in words
    assert "not complete" not in words


def test_estimates_are_loud(full_run: RunDirectory) -> None:
    page = Elements(html_of(full_run))
    assert "ESTIMATED, NOT VALIDATED" in page.words
    assert "By the estimate, the latency budget holds with 55 %" in page.words
    assert "measured on local ✓" not in page.words
    assert any(a.get("class") == "warning" for _, a in page.found)


def test_the_expected_error_of_an_estimate_is_told(full_run: RunDirectory) -> None:
    validation = read_json(full_run.validation_path)
    disclaimer = "ESTIMATED, NOT MEASURED: latencies of 1080ti may be off by ±34%"
    try:
        write_json(full_run.validation_path, validation | {"disclaimer": disclaimer})
        words = Elements(html_of(full_run)).words
    finally:
        write_json(full_run.validation_path, validation)
    assert "is estimated. Latencies of 1080ti may be off by ±34%. Run dsonas-hw validate" in words


def test_a_prediction_from_an_estimate_says_so_before_any_validation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", stages=(1,), until="derive")
    assert "ESTIMATED" not in Elements(html_of(run)).words
    stored = read_json(run.architecture_path)
    disclaimer = "ESTIMATED, NOT MEASURED: latencies of 1080ti may be off by ±34%"
    stored["derived"] |= {"source": "estimated", "disclaimer": disclaimer}
    stored["derived"]["predicted"]["latency_ms"] = 1.5
    stored["derived"]["limits"]["latency"] = 2.0
    write_json(run.architecture_path, stored)
    page = Elements(html_of(run))
    assert any(a.get("class") == "warning" for _, a in page.found)
    assert "ESTIMATED, NOT MEASURED" in page.words
    assert "off by ±34%." in page.words
    assert "latency, estimated" in page.words
    assert [b.source for b in [load_run_data(run).derivation] if b] == ["estimated"]


def test_how_likely_an_estimate_is_to_hold_is_told_before_any_validation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", stages=(1,), until="derive")
    stored = read_json(run.architecture_path)
    stored["derived"] |= {"source": "estimated", "probability": {"latency": 0.42}}
    write_json(run.architecture_path, stored)
    assert "holds with 42 %" in Elements(html_of(run)).words


def test_the_chosen_network_stands_at_its_final_cost(small_run: RunDirectory) -> None:
    """Whatever its cost was at the width of the search: where the budget holds, on the left of its line."""
    data = load_run_data(small_run)
    for chart in path_figures(data):
        (chosen,) = (series for series in chart.series if series.name == "chosen")
        budget = next(b for b in data.budget_results if f"path-{b.quantity.replace('_', '-')}" == chart.name)
        assert chosen.x == (budget.measured,)
        assert budget.verdict == "holds"
        assert chosen.x[0] <= chart.marks[0].value == budget.limit


def test_every_class_has_its_accuracy_and_its_row_of_the_confusion(small_run: RunDirectory) -> None:
    words = Elements(html_of(small_run)).words
    confusion = load_run_data(small_run).confusion
    assert confusion is not None
    classes, table = class_table(confusion), confusion_table(confusion)
    assert classes.rows == (("cat", 10, 0.9, "dog (1)"), ("dog", 10, 0.7, "cat (3)"), ("<b>", 10, 1.0, ""))
    assert [tuple(row.values())[1:] for row in table.to_records()] == list(CONFUSION)
    assert all(part in words for part in (classes.caption, table.caption, "cat (3)", "<b>"))
    (small_run.path / "confusion.csv").write_text("true class,a\na,x\n")
    assert "confusion.csv is damaged" in Elements(html_of(small_run)).words


def test_a_missed_budget_is_named(tmp_path: Path) -> None:
    words = Elements(html_of(make_run(tmp_path / "run", stages=(1,), verdict="missed"))).words
    assert "The memory access (mac) budget is missed" in words
    assert "Every budget holds" not in words


def test_an_undecided_budget_is_neither_held_nor_missed(tmp_path: Path) -> None:
    words = Elements(html_of(make_run(tmp_path / "run", stages=(1,), latency_verdict="undecided"))).words
    assert "The latency budget is undecided" in words
    assert "The limit lies within the interval" in words
    assert "Every budget holds" not in words
    assert "is missed" not in words


def test_percentiles_intervals_and_the_quiet_value_are_shown(small_run: RunDirectory) -> None:
    latency = read_json(small_run.validation_path)["latency"]
    words = Elements(html_of(small_run)).words
    shown = [latency[f"p{n}_ms"] for n in (50, 95, 99)] + [latency["quiet_ms"]]
    shown += [latency["p50_ms_low"], latency["p50_ms_high"], latency["p95_ms_low"], latency["p95_ms_high"]]
    for value in shown:
        assert " ".join(cost_text("latency_ms", value).split()) in words  # of the words' white space, too
    assert "p50, the median" in words
    assert "undisturbed (low quantile)" in words


def test_a_prediction_is_compared_with_the_quiet_value_and_the_budget_with_the_median(
    small_run: RunDirectory,
) -> None:
    """The synthetic median is 3.1 % above the prediction, and the quiet value 3 % below the median."""
    data = load_run_data(small_run)
    budget = next(b for b in data.budget_results if b.name == "latency")
    assert budget.measured == pytest.approx(1.031 * (budget.predicted or 0))
    assert budget.relative_error == pytest.approx(1 / (1.031 * 0.97) - 1)
    table = prediction_table(data)
    assert table is not None
    (row,) = [row for row in table.to_records() if "latency" in row["cost"]]
    assert row["cost"] == "latency, undisturbed"
    assert row["relative_error"] == pytest.approx(budget.relative_error)


@pytest.mark.parametrize("until", ["config", "search", "derive", "retrain"])
def test_an_unfinished_run_has_a_page(tmp_path: Path, until: str) -> None:
    page = Elements(html_of(make_run(tmp_path / "run", stages=(1,), until=until)))
    assert "Not validated yet" in page.words
    assert "This run is not complete" in page.words


def test_a_run_without_budgets(small_run: RunDirectory) -> None:
    data = {"budgets": [], "holds": True, "device": "local", "runtime": "ort-cpu", "source": "measured"}
    write_json(small_run.validation_path, data)
    assert "No budget was set" in Elements(html_of(small_run)).words


def test_masks_are_the_edges_of_the_path(full_run: RunDirectory) -> None:
    data = load_run_data(full_run)
    assert data.space is not None
    raw = re.search(r'id="path-data">(.*?)</script>', html_of(full_run), flags=re.S)
    assert raw is not None
    embedded = json.loads(raw[1])
    assert [tuple(edge) for edge in embedded["edges"]] == list(data.space.edges)
    for point in embedded["points"]:
        for mask, block in zip(point["blocks"], data.path[point["id"]].blocks, strict=True):
            assert int(mask, 16).bit_count() == block.num_edges
    start = data.path[embedded["points"][embedded["start"]]["id"]]
    assert start is data.chosen


HOSTILE = "</script></pre><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_nothing_that_a_run_holds_becomes_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<img src=x onerror=alert(1)>", stages=(1,))
    validation = read_json(run.validation_path)
    validation |= {"device": HOSTILE, "runtime": HOSTILE, "source": HOSTILE}
    write_json(run.validation_path, validation)
    text = run.config_path.read_text()
    text = text.replace("dataset: cifar10", f'dataset: "folder:{HOSTILE}"').replace(
        "torch:", f'"{HOSTILE}": "{HOSTILE}"\n  torch:'
    )
    run.config_path.write_text(text)
    page = Elements(html_of(run))
    assert HOSTILE in page.words
    assert sum(tag == "script" for tag, _ in page.found) == 2
    assert not any(tag == "img" or any(name.startswith("on") for name in a) for tag, a in page.found)


def save_profile(directory: Path, **settings: str) -> None:
    """A checked table of the runs' target."""
    header = TableHeader(
        target=Target(runtime="ort-cpu"), fingerprint="0123abcd",
        source="measured", created="2026-01-02T03:04:05+00:00", settings=settings,
    )  # fmt: skip
    error = ErrorSummary(mape=0.022, share_within_10=1.0, kendall_tau=0.98)
    worse = ErrorSummary(mape=1.38, share_within_10=0.0, kendall_tau=0.7)
    check = CheckRow(
        space="cifar10", num_networks=40, error=error, interval_coverage=0.925,
        baselines={"isolated timings, summed": worse},
    )  # fmt: skip
    path = table_path(directory, header.target)
    save_table(path, header, [check])


def test_the_profile_s_check_is_shown(share_run: RunDirectory, tmp_path: Path) -> None:
    save_profile(tmp_path, device_title="Some CPU")
    words = Elements(
        write_report(share_run.path, profiles_directory=tmp_path).read_text(encoding="utf-8")
    ).words
    for expected in ("2.2 %", "100.0 %", "0.98", "92.5 %", "0123abcd", "isolated timings, summed", "138.0 %"):
        assert expected in words, expected


def test_another_machine_s_profile_is_not_this_run_s(share_run: RunDirectory, tmp_path: Path) -> None:
    save_profile(tmp_path, device_title="Another CPU")
    assert "0123abcd" not in write_report(share_run.path, profiles_directory=tmp_path).read_text(
        encoding="utf-8"
    )


def test_a_damaged_profile_is_left_out(share_run: RunDirectory, tmp_path: Path) -> None:
    save_profile(tmp_path)
    next(tmp_path.rglob("*.jsonl")).write_text("{}\n")
    assert write_report(share_run.path, profiles_directory=tmp_path).exists()


def test_an_energy_that_was_only_predicted_is_not_called_measured(small_run: RunDirectory) -> None:
    raw = read_json(small_run.validation_path)
    raw["budgets"].append(
        {"name": "energy", "limit": 20.0, "predicted": 9.0, "measured": None, "verdict": "holds"}
    )
    write_json(small_run.validation_path, raw)
    words = Elements(html_of(small_run)).words
    assert "ESTIMATED, NOT VALIDATED" in words
    assert "Every budget holds, measured" not in words


def test_results_of_another_architecture_are_not_shown(small_run: RunDirectory) -> None:
    raw = read_json(small_run.architecture_path)
    write_json(small_run.architecture_path, {**raw, "width": raw["width"] + 4})
    data = load_run_data(small_run)
    assert data.validation is None
    assert data.test_accuracy is None
    assert data.stage("retrain") == ()
    words = Elements(html_of(small_run)).words
    assert "another architecture" in words
    assert "Not validated yet" in words


def test_warnings_of_the_measurement_are_shown(small_run: RunDirectory) -> None:
    write_json(
        small_run.validation_path, {**read_json(small_run.validation_path), "warnings": ["noisy: lock <it>"]}
    )
    assert "noisy: lock <it>" in Elements(html_of(small_run)).words


def test_embedded_data_cannot_end_its_element(small_run: RunDirectory) -> None:
    data = load_run_data(small_run)
    assert data.space is not None
    shown = [Shown(id=0, text=HOSTILE, blocks=data.path[0].blocks[:1])]
    html = str(render(Explorer(label="Walk", space=data.space, shown=shown, start=0)))
    element = html.partition('id="path-data">')[2]
    assert element.count("<") == element.count("</script>") + element.count("</div>") == 2
    assert json.loads(element.partition("</script>")[0])["points"][0]["text"] == HOSTILE


def test_a_text_is_escaped_and_its_commands_stay_on_one_line() -> None:
    assert render("for a < b: `derive RUN`, `run`") == (
        "<p>for a &lt; b: <code>derive RUN</code>, <code>run</code></p>"
    )
