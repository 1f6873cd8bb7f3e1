"""Budgets are read as users write them, and what cannot be meant is refused with what to write instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsonas_hw.budget import (
    QUANTITIES,
    Budget,
    budget_levels,
    format_quantity,
    parse_budget,
    parse_budgets,
)
from dsonas_hw.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "quantity", "limit"),
    [
        ("mac=12M", "mac", 12e6),
        ("mac=200k", "mac", 200e3),
        ("mac=200K", "mac", 200e3),
        ("mac=1500000", "mac", 1.5e6),
        ("flops=600M", "flops", 600e6),
        ("flops=1.2G", "flops", 1.2e9),
        ("flops=6e8", "flops", 600e6),
        ("flops=2T", "flops", 2e12),
        ("params=3M", "params", 3e6),
        ("params=.5M", "params", 500e3),
        ("latency=5ms", "latency_ms", 5.0),
        ("latency=0.25 ms", "latency_ms", 0.25),
        ("latency=300us", "latency_ms", 0.3),
        ("latency=300\u00b5s", "latency_ms", 0.3),  # micro sign
        ("latency=300\u03bcs", "latency_ms", 0.3),  # Greek small mu, what a Greek keyboard gives
        ("latency=1s", "latency_ms", 1000.0),
        ("latency=70000ns", "latency_ms", 0.07),
        ("energy=20mJ", "energy_mj", 20.0),
        ("energy=0.02J", "energy_mj", 20.0),
        ("energy=50\u03bcJ", "energy_mj", 0.05),
        ("memory=8MB", "memory_bytes", 8e6),
        ("memory=8MiB", "memory_bytes", 8 * 2**20),
        ("memory=512kB", "memory_bytes", 512e3),
        ("memory=100B", "memory_bytes", 100.0),
        (" mac = 12M ", "mac", 12e6),
    ],
)
def test_units_and_suffixes(text: str, quantity: str, limit: float) -> None:
    budget = parse_budget(text)
    assert budget.quantity == quantity
    assert budget.limit == pytest.approx(limit)


@pytest.mark.parametrize("name", ["macs", "MACs", "MACS", "MAC"])
def test_macs_is_refused_and_both_meanings_are_shown(name: str) -> None:
    with pytest.raises(BudgetError, match=r"memory access cost.*mac=600M.*multiply-adds.*flops=600M"):
        parse_budget(f"{name}=600M")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency=5", r"no unit; write e\.g\. latency=5ms"),
        ("energy=20", r"no unit; write e\.g\. energy=20mJ"),
        ("memory=8", r"no unit; write e\.g\. memory=8MB"),
        ("latency=5M", "unknown unit 'M'"),
        ("latency=5min", "unknown unit 'min'"),
        ("mac=12ms", "unknown unit 'ms'"),
        ("mac=12m", "unknown unit 'm'"),
        ("mac=-5M", "'-5M' is not a positive number"),
        ("mac=nan", "not a positive number"),
        ("latency=infms", "not a positive number"),
        ("mac=0", "must be above zero"),
        ("mac=0.0M", "must be above zero"),
        ("latency=1e-400ms", "must be above zero"),
        ("mac=1e400", "must be above zero and finite"),
        ("mac=1e308M", "must be above zero and finite"),
        ("mac=12M3", "not a positive number"),
        ("mac=1_000", "unknown unit|not a positive number"),
        ("mac=١٢", "not a positive number"),  # Arabic digits
        ("mac", "has no limit"),
        ("mac=", "has no limit"),
        ("=12M", "unknown budget ''"),
        ("", "has no limit"),
        ("latencyms=5ms", "Did you mean latency"),
        ("flop=5M", "Did you mean flops"),
        ("speed=5", f"unknown budget 'speed'. Known: {', '.join(sorted(QUANTITIES))}"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(BudgetError, match=message) as refusal:
        parse_budget(text)
    assert "\n" not in str(refusal.value)


def test_repeated_options_and_comma_lists_are_the_same() -> None:
    together = parse_budgets(["mac=12M, latency=5ms,", "params=3M"])
    assert together == parse_budgets(["mac=12M", "latency=5ms", "params=3M"])
    assert [budget.name for budget in together] == ["mac", "latency", "params"]
    assert parse_budgets([]) == ()


def test_one_quantity_twice_is_refused() -> None:
    with pytest.raises(BudgetError, match="'mac' is given twice"):
        parse_budgets(["mac=12M,latency=5ms", "mac=13M"])


@pytest.mark.parametrize("text", ["", "  ", ","])
def test_an_empty_option_is_not_no_budget(text: str) -> None:
    # --budget "$LIMIT" with LIMIT unset must not search without a budget.
    with pytest.raises(BudgetError, match="has no limit"):
        parse_budgets([text])


@given(
    name=st.sampled_from(sorted(QUANTITIES)),
    limit=st.floats(1e-6, 1e18, allow_nan=False, allow_infinity=False),
)
def test_what_is_printed_can_be_read_back(name: str, limit: float) -> None:
    budget = Budget(name=name, limit=limit)
    assert parse_budget(str(budget)).limit == pytest.approx(limit, rel=6e-4)  # four digits


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    message = ""
    try:
        assert all(budget.limit > 0 for budget in parse_budgets([text]))
    except BudgetError as refusal:
        message = str(refusal)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("mac", 1_234_567, "1.235M"),
        ("mac", 999_960, "1M"),
        ("mac", 12, "12"),
        ("params", 3e6, "3M"),
        ("latency", 5.0, "5ms"),
        ("latency", 0.12345, "0.1235ms"),
        ("energy", 20.0, "20mJ"),
        ("memory", 8e6, "8MB"),
        ("memory", 2048, "2.048kB"),
    ],
)
def test_quantities_are_shown_with_their_unit(name: str, value: float, text: str) -> None:
    assert format_quantity(name, value) == text


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        (["latency=3ms,5ms,8ms"], ("latency=3ms", "latency=5ms", "latency=8ms")),
        (["latency=3ms", "latency=5ms"], ("latency=3ms", "latency=5ms")),
        (["latency=3ms,5ms", "mac=2M"], ("latency=3ms,mac=2M", "latency=5ms,mac=2M")),
        (["latency=3000us,mac=2M,3M"], ("latency=3ms,mac=2M", "latency=3ms,mac=3M")),
        (["mac=123456,7k"], ("mac=123456", "mac=7k")),  # not rounded to four digits
    ],
)
def test_a_list_of_limits_is_a_list_of_budgets(options: list[str], levels: tuple[str, ...]) -> None:
    assert budget_levels(options) == levels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "there is no budget"),
        ([","], "there is no budget"),
        (["3ms"], "no limit"),
        (["latency=3"], "no unit"),
        (["latency=3ms,3000us"], "given twice"),
        (["macs=3M"], "ambiguous"),
    ],
)
def test_bad_limits_are_refused(options: list[str], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        budget_levels(options)


def test_one_search_has_one_limit_of_a_quantity_and_a_finished_one_serves_several() -> None:
    with pytest.raises(BudgetError, match="dsonas-hw derive RUN --budget latency=3ms,5ms"):
        parse_budgets(["mac=2M", "latency=3ms", "5ms"])
