"""The loader's benchmark reads what it made."""

from __future__ import annotations

import json

import pytest

from benchmarks import loader


@pytest.mark.parametrize("workers", [0, 1])
def test_it_counts_the_images_after_the_first_batch(workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert loader.main(["--images", "14", "--batch-size", "4", "--workers", str(workers), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_images"] == 8  # three whole batches, without the first
    assert found["images_per_s"] == found["images_per_s_per_worker"] > 0
    assert 30_000 < found["bytes_per_image"] < 300_000
