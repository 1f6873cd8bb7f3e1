"""docs/estimator.md is of the constants that are shipped, and of the results that stand beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.estimator_page import PAGE, card_1080ti, page, shipped_table
from benchmarks.evaluate_estimator import NUM_CALIBRATION, RESULTS
from dsonas_hw.estimate.constants import constants_hash

STALE = "the constants are newer than the page: python -m benchmarks.evaluate_estimator, then estimator_page"


def test_the_page_is_of_the_shipped_constants() -> None:
    assert f"constants: {constants_hash()} " in PAGE.read_text(), STALE
    assert json.loads(RESULTS.read_text())["constants"] == constants_hash(), STALE


def test_every_table_of_the_page_comes_from_the_results() -> None:
    """The page as made here from the stored results, but for numbers that a processor rounds otherwise."""
    printed, computed = PAGE.read_text(), card_1080ti()
    for part in page("EXAMPLES").replace(computed, "EXAMPLES").split("EXAMPLES"):
        assert part in printed, "docs/estimator.md was edited by hand: python -m benchmarks.estimator_page"
    assert shipped_table() in printed


@pytest.mark.parametrize("count", NUM_CALIBRATION)
def test_a_calibration_is_never_worse_than_one_scale_factor(count: int) -> None:
    """On others' measurements of cards and sources left out of the fit: mean over the tables of a source."""
    after: dict[str, list[float]] = {}
    for row in json.loads(RESULTS.read_text())["tables"]:
        if f"after {count}" in row:
            after.setdefault(row["source"], []).append(row[f"after {count}"] - row[f"scale {count}"])
    assert len(after) >= 5
    assert {source: np.mean(worse) for source, worse in after.items() if np.mean(worse) > 0.1} == {}
