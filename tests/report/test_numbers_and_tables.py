"""How numbers and tables are written."""

from __future__ import annotations

import csv
import io
import json

import pytest

from dsonas_hw.report.numbers import (
    budget_words,
    cost_text,
    finite,
    percent,
    short,
    signed_percent,
    significant,
)
from dsonas_hw.report.table import Column, Table

THIN = "\u202f"


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        ("latency_ms", 4.8312, f"4.831{THIN}ms"),
        ("mac", 11_900_000, f"11.9{THIN}M"),
        ("memory_bytes", 61_440, f"61.44{THIN}kB"),
        ("params", 12, "12"),
        ("energy_mj", 20, f"20{THIN}mJ"),
        ("latency_ms", 1e-5, f"1e-05{THIN}ms"),
        ("latency_ms", None, "–"),
    ],
)
def test_costs_carry_their_unit(quantity: str, value: float | None, text: str) -> None:
    assert cost_text(quantity, value) == text


def test_shares() -> None:
    assert percent(0.9731) == f"97.3{THIN}%"
    assert percent(None) == "–"
    assert signed_percent(-0.021) == f"−2.1{THIN}%"
    assert signed_percent(0.0) == f"0{THIN}%"
    assert signed_percent(0.021) == f"+2.1{THIN}%"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1500, "1.5k"), (2e6, "2M"), (3e-4, "3e-4"), (12, "12")]
)
def test_axis_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf"), 10**400, [1]])
def test_what_is_not_a_number_is_not_known(value: object) -> None:
    assert finite(value) is None


TABLE = Table(
    name="t",
    caption="Cap <tion>",
    columns=(
        Column(key="name", heading="Name", numeric=False),
        Column(key="latency_ms", heading="Latency", text=lambda v: cost_text("latency_ms", v)),
    ),
    rows=(("a<b>", 1.5), ('x,"y"', None)),
)


def test_table_as_csv_and_records() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))
    assert rows == [["name", "latency_ms"], ["a<b>", "1.5"], ['x,"y"', ""]]
    assert json.loads(json.dumps(TABLE.to_records()))[1] == {"name": 'x,"y"', "latency_ms": None}


def test_table_as_html_is_escaped_and_has_headers() -> None:
    html = str(TABLE._repr_html_())
    assert "<caption>Cap &lt;tion&gt;</caption>" in html
    assert '<th scope="row">a&lt;b&gt;</th>' in html
    assert '<th scope="col" class="num">Latency</th>' in html
    assert f'<td class="num">1.5{THIN}ms</td>' in html


def test_table_as_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = TABLE.to_pandas()
    assert list(frame.columns) == ["name", "latency_ms"]
    assert frame.latency_ms.isna().tolist() == [False, True]


def test_digits_line_up_and_budgets_are_words() -> None:
    assert [significant(v) for v in (0.13, 0.08996, 12.0, 1234.0, None)] == [
        "0.130", "0.0900", "12.0", "1.23e+03", "–",
    ]  # fmt: skip
    assert (
        budget_words("latency=3ms,mac=2M") == "latency ≤\u00a03\u202fms, memory access (mac) ≤\u00a02\u202fM"
    )
