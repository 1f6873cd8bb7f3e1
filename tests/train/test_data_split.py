"""Splits and subsets: disjoint, complete, balanced, the same every time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dsonas_hw.errors import DataError
from dsonas_hw.train.data_split import choose_subset, split_by_class

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(torch.tensor)
RATIOS = st.sampled_from([(1, 1), (4, 1), (1, 3), (2.5, 1)])


@given(LABELS, RATIOS, st.integers(0, 5))
def test_split_is_disjoint_complete_and_in_ratio(labels: Tensor, ratio: tuple[float, float], seed: int):
    first, second = split_by_class(labels, ratio, seed=seed)
    assert sorted(first.tolist() + second.tolist()) == list(range(len(labels)))
    share = ratio[0] / sum(ratio)
    counts = torch.bincount(labels)
    for label, count in enumerate(counts.tolist()):
        in_first = int((labels[first] == label).sum())
        if count > 1:
            assert 1 <= in_first <= count - 1
        if count * min(share, 1 - share) >= 1:  # else the rule above decides
            assert abs(in_first - count * share) < 1.0 + 1e-9


@given(st.integers(2, 30), st.integers(2, 8), RATIOS)
def test_total_is_right_though_each_class_is_rounded(
    per_class: int, classes: int, ratio: tuple[float, float]
):
    per_class = per_class * 5  # so that no class is clamped
    labels = torch.arange(classes).repeat(per_class)
    first, _ = split_by_class(labels, ratio, seed=0)
    assert abs(len(first) - len(labels) * ratio[0] / sum(ratio)) <= 0.5 + 1e-9


def test_split_depends_on_the_seed_only():
    labels = torch.arange(100) % 5
    once, again, other = (split_by_class(labels, (1, 1), seed=seed)[0] for seed in (7, 7, 8))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@given(LABELS, st.data())
def test_subset_is_as_even_as_the_classes_allow(labels: Tensor, data: st.DataObject):
    size = data.draw(st.integers(1, len(labels)))
    chosen = choose_subset(labels, size, seed=0)
    assert len(set(chosen.tolist())) == size
    have = torch.bincount(labels, minlength=6)
    taken = torch.bincount(labels[chosen], minlength=6)
    unexhausted = taken[taken < have]
    if len(unexhausted):  # a class that still has images gave at most one fewer than any other
        assert int(unexhausted.min()) >= int(taken.max()) - 1


def test_smaller_subset_is_contained_in_a_larger_one():
    labels = torch.arange(90) % 4
    small, large = (set(choose_subset(labels, size, seed=3).tolist()) for size in (10, 40))
    assert small < large


@pytest.mark.parametrize("size", [0, 11, -1])
def test_impossible_subset_is_refused(size: int):
    with pytest.raises(DataError, match=f"{size} images was asked for; give 1 to 10"):
        choose_subset(torch.zeros(10, dtype=torch.int64), size, seed=0)


def test_ratio_must_be_positive():
    with pytest.raises(DataError, match="must be positive, got 1:0"):
        split_by_class(torch.zeros(10, dtype=torch.int64), (1, 0), seed=0)


def test_search_split_shares_out_the_training_images(numbered_dataset):
    dataset = numbered_dataset(100, num_classes=4)
    weights, lam = dataset.split_for_search((4, 1), seed=1)
    assert (len(weights), len(lam)) == (80, 20)
    seen = torch.cat([weights.images, lam.images])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(100))
    assert torch.equal(weights.labels, weights.images[:, 0, 0, 0].long() % 4)


def test_no_split_gives_both_the_whole_set(numbered_dataset):
    dataset = numbered_dataset(10)
    assert dataset.split_for_search(None) == (dataset.train, dataset.train)


def test_class_without_images_on_one_side_is_named(numbered_dataset):
    dataset = numbered_dataset(4, num_classes=3)  # classes 1 and 2 have one image each
    with pytest.raises(
        DataError, match=r"class 'class\d' of numbered has 1 training image\(s\), so none for"
    ):
        dataset.split_for_search((1, 1))
