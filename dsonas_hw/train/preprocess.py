"""How an image becomes a network's input, outside of training: what `load_network` and exported files carry.

image ─▶ RGB or gray ─▶ short side to `resize` ─▶ middle `size` × `size` ─▶ (pixel / 255 - mean) / std
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from dsonas_hw.errors import RunError, UserError, command_line
from dsonas_hw.files import read_json, write_json
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import normalise
from dsonas_hw.train.data_decode import image_to_tensor, resize_and_crop_centre, to_gray, to_rgb
from dsonas_hw.train.data_images import ImageFiles

PREPROCESSING_NAME = "preprocessing.json"
INTERPOLATION = "bilinear, antialiased"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A transform as of `torchvision.transforms.v2`: an image in, a normalised tensor out.

    `network(preprocess(image).unsqueeze(0))` are the logits of one image.
    """

    channel_order: Literal["RGB", "gray"]
    resize: int
    """What the short side is brought to, bilinearly and antialiased, in pixels."""
    size: int
    """Height and width of the part in the middle that is kept, in pixels."""
    mean: tuple[float, ...]
    """Of each channel, pixels counted 0 … 1."""
    std: tuple[float, ...]

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        """Return the network's input, float32.

        image: a PIL image; or a tensor uint8 (C, H, W) or (N, C, H, W).
        Returns (C, size, size), or (N, C, size, size) for a batch.

        Raises:
            UserError: neither of them, or pixels of more than 8 bits.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            return torch.stack([self(one) for one in image])
        picture = _picture(image) if isinstance(image, Tensor) else image
        if not isinstance(picture, Image.Image):
            raise UserError(f"an image is a PIL image or a uint8 tensor, not {type(image).__name__}")
        try:
            picture = to_gray(picture) if self.channel_order == "gray" else to_rgb(picture)
        except ValueError as error:
            raise UserError(f"the image cannot be used: {error}; convert it to 8 bits") from None
        pixels = image_to_tensor(resize_and_crop_centre(picture, resize=self.resize, crop=self.size))
        return normalise(pixels[None], self.mean, self.std)[0]


def preprocessing_of(dataset: Dataset) -> Preprocessing:
    """Return what the test images of a dataset go through."""
    channels, size, _ = dataset.input_shape
    return Preprocessing(
        channel_order="gray" if channels == 1 else "RGB",
        resize=dataset.test.short_side if isinstance(dataset.test, ImageFiles) else size,
        size=size,
        mean=dataset.mean,
        std=dataset.std,
    )


def save_preprocessing(path: Path, dataset: Dataset) -> None:
    """Write preprocessing.json: what the network of a run expects, and what its outputs are called."""
    write_json(path, {**asdict(preprocessing_of(dataset)), "class_names": dataset.class_names})


def load_preprocessing(path: Path) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the transform of a run's images, and the class names.

    Raises:
        RunError: missing or damaged.
    """
    again = f"train again: {command_line('retrain', path.parent, '--restart')}"
    if not path.is_file():
        raise RunError(f"{path} does not exist; {again}")
    try:
        return _parse(read_json(path))
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}); {again}") from None


def _parse(data: Any) -> tuple[Preprocessing, tuple[str, ...]]:
    names, order, sizes = data["class_names"], data["channel_order"], (data["resize"], data["size"])
    mean, std = tuple(map(float, data["mean"])), tuple(map(float, data["std"]))
    if order not in ("RGB", "gray") or not all(type(size) is int and 1 <= size <= 4096 for size in sizes):
        raise ValueError("no such images")
    if {len(mean), len(std)} != {1 if order == "gray" else 3} or not all(value > 0 for value in std):
        raise ValueError("no mean and deviation for each channel")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("no class names")
    resize, size = sizes
    found = Preprocessing(channel_order=order, resize=resize, size=size, mean=mean, std=std)
    return found, tuple(names)


def _picture(image: Tensor) -> Image.Image:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(
            f"an image tensor is uint8 with 1 or 3 channels (C, H, W), not {image.dtype} {tuple(image.shape)}"
        )
    pixels = image.cpu().numpy()
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0).copy())
