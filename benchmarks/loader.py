"""How many ImageNet-sized JPEGs does a worker process decode and augment in a second?

    python -m benchmarks.loader --images 200 --workers 1

JPEGs of 500×375 pixels (ImageNet's usual size) are made, then an epoch is read as a search reads it: decoded,
cropped at random to 224×224, mirrored, its colours changed. The first batch, which waits for the workers to
start, does not count. A GPU needs `images/s per worker × data.num_workers` at least as fast as it trains.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dsonas_hw.config import DataConfig
from dsonas_hw.train.data import load_dataset
from dsonas_hw.train.data_batches import Batches

WIDTH, HEIGHT, NUM_CLASSES = 500, 375, 2


def make_images(folder: Path, number: int) -> None:
    """Smooth noise, which compresses to about the 100 kB of a photograph."""
    rng = np.random.default_rng(0)
    for index in range(number):
        side = "train" if index >= NUM_CLASSES else "val"  # a side needs an image of every class
        path = folder / side / f"class{index % NUM_CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8))
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)


def images_per_second(folder: Path, *, batch_size: int, num_workers: int) -> tuple[float, int]:
    """Images a second after the first batch, and how many were counted."""
    dataset = load_dataset(DataConfig(dataset=f"folder:{folder}", image_size=224), in_memory=False)
    batches = Batches(
        images=dataset.train, dataset=dataset, batch_size=batch_size, drop_last=True,
        augmentation=dataset.augmentation, num_workers=num_workers,
    )  # fmt: skip
    stream = batches.epoch(0)
    next(stream)
    started, number = time.perf_counter(), 0
    for images, _ in stream:
        number += len(images)
    return number / (time.perf_counter() - started), number


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="loading processes; 0: this one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name), options.images + NUM_CLASSES)
        size = sum(path.stat().st_size for path in Path(name).rglob("*.jpg")) / (options.images + NUM_CLASSES)
        rate, number = images_per_second(
            Path(name), batch_size=options.batch_size, num_workers=options.workers
        )
    per_worker = rate / max(1, options.workers)
    if options.json:
        print(json.dumps({
            "images_per_s": rate, "images_per_s_per_worker": per_worker, "num_images": number,
            "num_workers": options.workers, "bytes_per_image": size,
        }))  # fmt: skip
    else:
        print(
            f"{rate:.0f} images/s with {options.workers} worker(s), {per_worker:.0f} each "
            f"({number} JPEGs of {WIDTH}×{HEIGHT}, {size / 1000:.0f} kB, to 224×224)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
