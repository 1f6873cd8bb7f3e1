"""The page of a co-design study, its tables and its files, from a study made by arithmetic."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_study import BUDGETS, DEVICES, make_study

from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json, write_json
from dsonas_hw.measure.energy import NO_ENERGY
from dsonas_hw.report.codesign_cross import cross_table
from dsonas_hw.report.codesign_page import codesign_figures
from dsonas_hw.report.codesign_tables import answer_sentences, answer_table, cells_table
from dsonas_hw.report.numbers import THIN
from dsonas_hw.report.write import matplotlib_figures, write_figures, write_report
from dsonas_hw.study.codesign_analysis import answers, pareto_front
from dsonas_hw.study.codesign_result import load_result


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "study")


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return write_report(study).read_text()


class Cells(HTMLParser):
    """Texts of the cells of the first table of a class, row by row."""

    def __init__(self, of_class: str) -> None:
        super().__init__()
        self.of_class, self.rows, self.is_inside = of_class, list[list[str]](), False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table" and not self.rows:
            self.is_inside = dict(attrs).get("class") == self.of_class
        elif self.is_inside and tag == "tr":
            self.rows.append([])
        elif self.is_inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += f"{data} "


def test_the_cross_table_has_every_network_on_every_device(study: Path, html: str) -> None:
    result, cells = load_result(study), Cells("cross")
    cells.feed(html)
    head, *rows = cells.rows
    assert [text.strip() for text in head[3:6]] == [f"{name}, ms" for name in DEVICES]
    assert len(rows) == len(result.networks) == len(DEVICES) * len(BUDGETS)
    for row, network in zip(rows, result.networks, strict=True):
        assert row[0].strip() == network.name
        for text, device in zip(row[3:6], DEVICES, strict=True):
            cell = result.cell(network.name, device)
            assert cell is not None
            assert f"{cell.latency_ms:.3g}" in text
            assert f"{cell.latency_ms_low:#.3g}–{cell.latency_ms_high:#.3g}" in text
            assert ("measured" if device == "local" else "estimated") in text
            assert ("●" in text) == (network.name in pareto_front(result, device))


def test_what_is_estimated_is_said_first(html: str) -> None:
    assert html.index("ESTIMATED, NOT MEASURED") < html.index("<table")
    assert "1080ti, v100: not on this machine" in html


def test_why_no_energy_is_known_is_told_per_device(study: Path, tmp_path: Path) -> None:
    def words(path: Path) -> str:
        return write_report(path).read_text().partition("Energy is not known on")[2].partition("</div>")[0]

    assert "1080ti, v100: not on this machine" in words(study)
    assert "local: only of GPUs is it read" in words(study)
    path = shutil.copytree(study, tmp_path / "study")
    job, *others = sorted(path.glob("jobs/measure-local-*/result.json"))
    write_json(job, read_json(job) | {"remarks": [f"{NO_ENERGY}no permission", "the clock fell"]})
    assert "local: no permission" in words(path)
    assert "on local: the clock fell" in write_report(path).read_text()
    write_json(others[0], read_json(others[0]) | {"energy_mj": 1.234})
    assert "local:" not in words(path)
    assert "1.234" in write_report(path).read_text()
    for job in path.glob("jobs/derive-*/result.json"):
        derived = read_json(job)
        derived["predicted"]["v100"]["energy_mj"] = 5.678
        write_json(job, derived)
    assert "v100" not in words(path)
    assert f"~5.678{THIN}mJ" in write_report(path).read_text()


def test_every_device_has_its_front(study: Path, html: str) -> None:
    charts = codesign_figures(load_result(study))
    assert [chart.name for chart in charts] == [f"front-{name}" for name in DEVICES]
    for chart in charts:
        assert chart.caption in html
        assert {i for series in chart.series for i in series.ids} == set(range(6))


def test_every_network_is_drawn_without_a_script(html: str) -> None:
    for name in "ABCDEF":
        assert f'<details id="network-{name}">' in html
        assert f'href="#network-{name}"' in html


def test_all_is_escaped(study: Path, tmp_path: Path) -> None:
    path = shutil.copytree(study, tmp_path / "study")
    plan = read_json(path / "codesign.json")
    plan["devices"][0]["title"] = "<script>alert(1)</script>"
    plan["config"]["data"]["dataset"] = "<img src=x>"
    write_json(path / "codesign.json", plan)
    text = write_report(path).read_text()
    assert "<script>alert" not in text
    assert "<img" not in text


@pytest.mark.parametrize("until", ["plan", "derive", "train"])
def test_an_unfinished_study_has_a_page_too(tmp_path: Path, until: str) -> None:
    text = write_report(make_study(tmp_path / "study", until=until)).read_text()
    assert "This study is not complete" in text
    missing = {"plan": "pretrain-s0: not started", "derive": "train-", "train": "measure-local-"}[until]
    assert missing in text
    assert ("no network that is trained holds" in text) == (until != "train")


def test_carrying_is_judged_once_all_that_are_compared_are_trained(study: Path, tmp_path: Path) -> None:
    def cells(path: Path) -> set[str]:
        table = Cells("carried")
        table.feed(write_report(path).read_text())
        return {text.strip() for row in table.rows[1:] for text in row[1:]}

    assert "–" not in cells(study)
    path = shutil.copytree(study, tmp_path / "study")
    for job in path.glob("jobs/train-*"):
        (job / "result.json").unlink()
        assert "–" in cells(path) or "No network has been trained yet" in (path / "report.html").read_text()
    assert cells(path) == set()


def test_a_damaged_result_is_one_line(study: Path, tmp_path: Path) -> None:
    path = shutil.copytree(study, tmp_path / "study")
    job = next(path.glob("jobs/derive-*"))
    (job / "result.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=f"{re.escape(job.name)}/result.json is damaged"):
        write_report(path)


@pytest.mark.parametrize("network", ["../../../escaped", "/etc", "", None, 7, "0123456789abcdef/.."])
def test_a_network_s_name_leads_to_no_other_directory(network: object, study: Path, tmp_path: Path) -> None:
    path = shutil.copytree(study, tmp_path / "study")
    result = next(path.glob("jobs/derive-*/result.json"))
    write_json(result, {**read_json(result), "network": network})
    with pytest.raises(UserError, match="is damaged"):
        load_result(path)


def test_the_answers_are_a_row_per_device_and_budget_and_none_is_dominated(study: Path) -> None:
    result = load_result(study)
    rows = answer_table(result).to_records()
    assert [(r["device"], r["budget"]) for r in rows] == [(d, b) for d in DEVICES for b in BUDGETS]
    for row in rows:
        if row["network"] is not None:
            assert row["network"] in pareto_front(result, row["device"])


def test_the_summary_answers_in_a_sentence_a_device(study: Path, html: str) -> None:
    """What was not measured has `~` before every number of it, its interval, and how likely it is to hold."""
    result = load_result(study)
    told = re.findall("<li[^>]*>(.*?)</li>", html.partition('class="answers"')[2].partition("</ul>")[0])
    assert [re.sub(r"<[^>]+>", "", sentence) for sentence in told] == answer_sentences(result)
    for device, sentence in zip(DEVICES, answer_sentences(result), strict=True):
        assert sentence.startswith(f"For {device}: ")
        held = [a for a in answers(result) if a.device == device and a.network]
        networks = {a.network.name for a in held if a.network}
        assert set(re.findall("network ([A-Z]),", sentence)) == networks
        is_here = device == "local"
        assert sentence.count("~") == (0 if is_here else 3 * len(networks))
        assert sentence.count("measured" if is_here else "estimated") == len(networks)
        assert len(re.findall(r"with \d+ %", sentence)) == (0 if is_here else len(held))


def test_tables_agree(study: Path) -> None:
    result = load_result(study)
    wide, long = cross_table(result).to_records(), cells_table(result).to_records()
    assert len(wide) * len(DEVICES) == len(long)
    for row in wide:
        for device in DEVICES:
            (cell,) = (r for r in long if r["network"] == row["network"] and r["device"] == device)
            assert row[f"latency_ms_{device}"] == cell["latency_ms"]


def test_everything_is_there_as_files(tmp_path: Path) -> None:
    study, figures = make_study(tmp_path / "study", share=True, budgets=BUDGETS[:1]), tmp_path / "figures"
    files = {path.name for path in write_figures(study, figures)}
    tables = ("answers", "cross-table", "cells", "carried", "operations", "missing")
    assert {f"{name}.{kind}" for name in tables for kind in ("csv", "json")} <= files
    assert {f"front-{name}.{kind}" for name in DEVICES for kind in ("svg", "png", "csv", "json")} <= files
    assert {f"network-{n}{rest}" for n in "ABC" for rest in (".json", ".svg", ".png")} <= files
    assert {f"network-{n}-block-01.{kind}" for n in "ABC" for kind in ("svg", "png")} <= files
    assert files == {path.name for path in figures.iterdir()}
    with (figures / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency_ms"]) for row in rows] == [
        cell["latency_ms"] for cell in json.loads((figures / "cells.json").read_text())
    ]


def test_figures_are_matplotlib_objects(study: Path) -> None:
    from matplotlib.figure import Figure

    figures = matplotlib_figures(study)
    blocks = {f"network-{name}-block-0{number}" for name in "ABCDEF" for number in (1, 2)}
    assert set(figures) == blocks | {f"front-{name}" for name in DEVICES}
    assert all(isinstance(figure, Figure) for figure in figures.values())
