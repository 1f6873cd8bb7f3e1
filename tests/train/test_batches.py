"""Batches: every image once, resumable anywhere, the same however many ranks share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsonas_hw.config import DataConfig
from dsonas_hw.errors import DataError
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import Dataset, load_dataset
from dsonas_hw.train.data_batches import Batch, Batches, normalise

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
AUGMENTATION = Augmentation(flip=True, pad=2, cutout=3, colour=0.3)


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.fixture(params=["memory", "files", "files-workers"])
def batches(request: pytest.FixtureRequest, numbered_dataset, write_folder) -> Batches:
    """Ten images in batches of four, augmented, from memory and from files."""
    if request.param == "memory":
        dataset = numbered_dataset(10, size=8)
    else:
        write_folder("train", cat=5, dog=5, size=20)
        root = write_folder("val", cat=1, dog=1, size=20)
        dataset = load_dataset(DataConfig(dataset=f"folder:{root}", image_size=8), in_memory=False)
    workers = 2 if request.param == "files-workers" else 0
    return Batches(
        images=dataset.train,
        dataset=dataset,
        batch_size=4,
        seed=5,
        augmentation=AUGMENTATION,
        num_workers=workers,
    )


def test_an_epoch_shows_every_image_once(numbered_dataset):
    dataset = numbered_dataset(10)
    batches = Batches(images=dataset.train, dataset=dataset, batch_size=4)
    for epoch in range(3):
        seen = torch.cat([images[:, 0, 0, 0] for images, _ in batches.epoch(epoch)])
        assert sorted((seen * 255).round().int().tolist()) == list(range(10))


def test_labels_stay_with_their_images(numbered_dataset):
    dataset = numbered_dataset(10)
    for images, labels in Batches(images=dataset.train, dataset=dataset, batch_size=4).epoch(0):
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long() % 3, labels)


def test_epochs_and_seeds_have_orders_of_their_own(numbered_dataset):
    dataset = numbered_dataset(50)
    one = Batches(images=dataset.train, dataset=dataset, batch_size=50, seed=1)
    orders = [next(batches.epoch(epoch))[0] for batches in (one, replace(one, seed=2)) for epoch in (0, 1)]
    for i, order in enumerate(orders):
        assert not any(torch.equal(order, other) for other in orders[i + 1 :])


def test_unshuffled_keeps_the_order(numbered_dataset):
    dataset = numbered_dataset(6)
    batches = Batches(images=dataset.train, dataset=dataset, batch_size=4, shuffle=False)
    seen = torch.cat([images[:, 0, 0, 0] for images, _ in batches.epoch(3)])
    assert (seen * 255).round().tolist() == [0, 1, 2, 3, 4, 5]


def test_batch_shapes(batches: Batches):
    shapes = [(images.shape, images.dtype, labels.dtype) for images, labels in batches.epoch(0)]
    channels = batches.dataset.input_shape[0]
    assert shapes == [((n, channels, 8, 8), torch.float32, torch.int64) for n in (4, 4, 2)]
    assert len(batches) == 3
    dropped = replace(batches, drop_last=True)
    assert len(dropped) == len(list(dropped.epoch(0))) == 2


def test_resuming_inside_an_epoch_gives_the_same_batches(batches: Batches):
    assert_same(list(batches.epoch(2))[1:], list(batches.epoch(2, start_step=1)))


def test_same_epoch_twice_is_the_same_and_another_is_not(batches: Batches):
    assert_same(list(batches.epoch(1)), list(batches.epoch(1)))
    assert not torch.equal(next(batches.epoch(0))[0], next(batches.epoch(1))[0])


def test_augmentation_differs_from_step_to_step(numbered_dataset):
    dataset = numbered_dataset(2, size=8)
    one_image = dataset.train.take(torch.tensor([1, 1, 1, 1]))
    batches = Batches(images=one_image, dataset=dataset, batch_size=2, augmentation=AUGMENTATION)
    first, second = (images for images, _ in batches.epoch(0))
    assert not torch.equal(first, second)


def test_stream_runs_through_epochs_from_any_step(batches: Batches):
    expected = [*batches.epoch(0), *batches.epoch(1), *batches.epoch(2)]
    for start in (0, 2, 3, 5):
        stream = batches.stream(start)
        assert_same([next(stream) for _ in range(9 - start)], expected[start:])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_batch_of_one_process(batches: Batches, world_size: int):
    alone = list(batches.epoch(1))
    shared = [list(replace(batches, rank=rank, world_size=world_size).epoch(1)) for rank in range(world_size)]
    for step, (images, labels) in enumerate(alone):
        for rank in range(world_size):
            own_images, own_labels = shared[rank][step]
            assert torch.equal(own_labels, labels[rank::world_size])
            assert torch.equal(own_images, images[rank::world_size])
    assert len(shared[-1][-1][1]) == (1 if world_size == 2 else 0)  # of the last batch's 2 images


def test_global_random_state_is_left_alone(batches: Batches):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(batches.epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_normalise():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    result = normalise(images, (0.5, 0.25), (0.25, 0.5))  # (0 - 0.5) / 0.25, (1 - 0.25) / 0.5
    torch.testing.assert_close(result.flatten(), torch.tensor([-2.0, 1.5]))


def test_digits_are_normalised_to_mean_0_and_deviation_1():
    digits = load_dataset(DataConfig(dataset="digits"))
    batches = Batches(images=digits.train, dataset=digits, batch_size=len(digits.train))
    images, _ = next(batches.epoch(0))
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std()) - 1) < 1e-3


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_file_is_one_line_even_from_a_worker(write_folder, workers: int):
    write_folder("train", cat=2, dog=2)
    root: Path = write_folder("val", cat=1, dog=1)
    (root / "train" / "dog" / "000.png").write_bytes(b"not a picture")
    dataset = load_dataset(DataConfig(dataset=f"folder:{root}", image_size=8), in_memory=False)
    batches = Batches(images=dataset.train, dataset=dataset, batch_size=4, num_workers=workers)
    with pytest.raises(DataError, match=r"dog/000\.png cannot be read as an image") as caught:
        list(batches.epoch(0))
    assert "\n" not in str(caught.value)


def numbered(numbered_dataset, **fields: object) -> Batches:
    dataset: Dataset = numbered_dataset(10)
    return Batches(images=dataset.train, dataset=dataset, **fields)  # type: ignore[arg-type]


def test_impossible_batches_are_refused(numbered_dataset):
    with pytest.raises(DataError, match="at least 1, got 0"):
        numbered(numbered_dataset, batch_size=0)
    with pytest.raises(DataError, match="do not fill one batch of 16"):
        numbered(numbered_dataset, batch_size=16, drop_last=True)
    with pytest.raises(DataError, match="cannot be shared by 3 processes"):
        numbered(numbered_dataset, batch_size=4, world_size=3)
    with pytest.raises(ValueError, match="rank 2 does not exist"):
        numbered(numbered_dataset, batch_size=4, rank=2, world_size=2)


def test_files_are_not_cropped_a_second_time(write_folder):
    write_folder("train", cat=4, dog=4, size=20)
    folder = write_folder("val", cat=1, dog=1)
    dataset = load_dataset(DataConfig(dataset=f"folder:{folder}", image_size=8), in_memory=False)
    flat = replace(dataset, mean=(0.0,) * 3, std=(1.0,) * 3)
    fields = {"images": flat.train, "dataset": flat, "batch_size": 8, "num_workers": 0}
    plain = Batches(**fields, augmentation=Augmentation())
    padded = Batches(**fields, augmentation=Augmentation(pad=4))  # for images in memory only
    assert_same(list(plain.epoch(0)), list(padded.epoch(0)))
