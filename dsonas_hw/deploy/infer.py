"""Classify images with an exported network: Python 3.8 or newer, numpy and onnxruntime, nothing else.

    python infer.py IMAGE... [--model model.onnx]

`dsonas-hw export` puts this file beside the model. How an image is prepared is in the model's metadata. Read
here: PNG (8 bits or less, not interlaced), BMP (24 or 32 bits, uncompressed), PGM and PPM (binary), and .npy
(uint8, height × width or height × width × 3). JPEG and the rest need Pillow, which is used where it is.
"""

from __future__ import annotations

import argparse
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def classify(model: Path, image: Path) -> tuple[Any, list[str], str]:
    """Return the outputs (classes,) for one image, the class names, and "logits" or "probabilities"."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    facts = read_facts(session.get_modelmeta().custom_metadata_map)
    entry = session.get_inputs()[0]
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    prepared = np.repeat(prepare(load_image(image), facts)[None], batch, axis=0)
    outputs = session.run(None, {entry.name: prepared})[0][0]
    return outputs, facts["class_names"], facts["output"]


def read_facts(metadata: dict[str, str]) -> dict[str, Any]:
    """The metadata of the model; every value is JSON."""
    if "channel_order" not in metadata:
        raise ValueError("the model's metadata do not say how images are prepared; export it again")
    return {name: json.loads(value) for name, value in metadata.items()}


def prepare(pixels: Any, facts: dict[str, Any]) -> Any:
    """Return what the network takes: (C, H, W) float32, or (H, W, C) uint8."""
    pixels = to_gray(pixels) if facts["channel_order"] == "gray" else to_rgb(pixels)
    pixels = resize_and_crop(pixels, facts["resize"], facts["size"])
    if facts["input_layout"] == "NHWC":
        return pixels
    mean, std = np.array(facts["mean"], np.float32), np.array(facts["std"], np.float32)
    normal = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def to_gray(pixels: Any) -> Any:
    """One channel, by the weights of ITU-R 601 in whole numbers."""
    if pixels.shape[2] == 1:
        return pixels
    weighted = pixels.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[:, :, None]


def to_rgb(pixels: Any) -> Any:
    """Three channels."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def resize_and_crop(pixels: Any, resize: int, size: int) -> Any:
    """Bring the short side to `resize`, then keep size × size in the middle, as the tests of training do."""
    height, width = pixels.shape[:2]
    if min(height, width) != resize:
        scale = resize / min(height, width)
        new_height, new_width = max(size, round(height * scale)), max(size, round(width * scale))
        pixels = resize_bilinear(pixels, new_height, new_width)
        height, width = new_height, new_width
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def resize_bilinear(pixels: Any, height: int, width: int) -> Any:
    """Pillow's bilinear resize with reducing_gap=2: whole factors by averages, the rest by triangles.

    Rounded after columns and after rows, in an order that differs between versions of Pillow: the result
    is theirs within one grey level.
    """
    down = int(pixels.shape[0] / height / 2) or 1
    across = int(pixels.shape[1] / width / 2) or 1
    spans = pixels.shape[0] / down, pixels.shape[1] / across
    pixels = average(pixels, down, across).astype(np.float64)
    pixels = np.einsum("xw,hwc->hxc", weights(width, pixels.shape[1], spans[1]), pixels)
    pixels = np.floor(pixels + 0.5)
    pixels = np.einsum("yh,hxc->yxc", weights(height, pixels.shape[0], spans[0]), pixels)
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)


def average(pixels: Any, down: int, across: int) -> Any:
    """Averages of cells of down × across pixels, fewer at the edge; whole numbers, as Pillow rounds."""
    rows, columns = np.arange(0, pixels.shape[0], down), np.arange(0, pixels.shape[1], across)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.int64), rows, axis=0), columns, axis=1)
    heights, widths = np.diff([*rows, pixels.shape[0]]), np.diff([*columns, pixels.shape[1]])
    counts = (heights[:, None] * widths)[:, :, None]
    return ((sums + counts // 2) * (2**24 // counts)) >> 24


def weights(num_out: int, num_in: int, span: float) -> Any:
    """Weights (num_out, num_in) of a triangle filter over `span` input pixels, wider when shrinking."""
    scale = span / num_out
    support = max(scale, 1.0)
    found = np.zeros((num_out, num_in))
    for row in range(num_out):
        centre = (row + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), num_in)
        distance = np.abs((np.arange(first, last) - centre + 0.5) / support)
        triangle = np.maximum(0.0, 1.0 - distance)
        found[row, first:last] = triangle / triangle.sum()
    return found


def load_image(path: Path) -> Any:
    """Pixels of a file, uint8 (height, width, 1 or 3); transparency is dropped."""
    if path.suffix.lower() == ".npy":
        return read_npy(path)
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return decode(path)
    with Image.open(path) as opened:
        if opened.mode[0] in "IF":
            raise ValueError("more than 8 bits per channel")
        image = ImageOps.exif_transpose(opened)
        if image.mode == "L":
            return np.asarray(image)[:, :, None]
        if "transparency" in image.info:
            return np.asarray(image.convert("RGBA").convert("RGB"))
        return np.asarray(image.convert("RGB"))


def decode(path: Path) -> Any:
    """Pixels of a file by the standard library alone."""
    data = path.read_bytes()
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"\x89PNG": read_png, b"BM": read_bmp, b"P5": read_netpbm, b"P6": read_netpbm,
    }  # fmt: skip
    for magic, read in readers.items():
        if data.startswith(magic):
            return read(data)
    raise ValueError("this format needs Pillow: pip install pillow")


def read_npy(path: Path) -> Any:
    """An array (height, width) or (height, width, 1 or 3), uint8."""
    pixels = np.load(path, allow_pickle=False)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"an array must be uint8 (height, width, 1 or 3), not {pixels.dtype} {pixels.shape}")
    return pixels


def read_netpbm(data: bytes) -> Any:
    """PGM (P5) or PPM (P6), binary, 8 bits."""
    fields: list[bytes] = []
    at = 0
    while len(fields) < 4:
        end = at
        while data[end : end + 1].strip():
            end += 1
        if data[at : at + 1] == b"#":
            end = data.index(b"\n", at)
        elif end > at:
            fields.append(data[at:end])
        at = end + 1
    width, height, largest = (int(field) for field in fields[1:])
    if largest != 255:
        raise ValueError("only PGM and PPM of 8 bits (largest value 255)")
    channels = 3 if fields[0] == b"P6" else 1
    return np.frombuffer(data, np.uint8, height * width * channels, at).reshape(height, width, channels)


def read_bmp(data: bytes) -> Any:
    """BMP of 24 or 32 bits, uncompressed."""
    (start,) = struct.unpack_from("<I", data, 10)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if bits not in (24, 32) or compression not in (0, 3):
        raise ValueError("only BMP of 24 or 32 bits, uncompressed; others need Pillow: pip install pillow")
    stride = (width * bits // 8 + 3) // 4 * 4
    rows = np.frombuffer(data, np.uint8, stride * abs(height), start).reshape(abs(height), stride)
    pixels = rows[:, : width * bits // 8].reshape(abs(height), width, bits // 8)[:, :, 2::-1]
    return pixels[::-1] if height > 0 else pixels


def read_png(data: bytes) -> Any:
    """PNG of up to 8 bits, not interlaced."""
    chunks: dict[bytes, bytes] = {}
    for kind, body in png_chunks(data):
        chunks[kind] = chunks.get(kind, b"") + body
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if bits > 8 or interlaced:
        raise ValueError("only PNG of 8 bits or less, not interlaced; convert it")
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    stride, step = (width * channels * bits + 7) // 8, max(1, channels * bits // 8)
    rows = unfilter(zlib.decompress(chunks[b"IDAT"]), height, stride, step)
    if bits < 8:
        each = np.unpackbits(rows, axis=1).reshape(height, -1, bits)
        rows = (each @ (1 << np.arange(bits)[::-1])).astype(np.uint8)[:, :width]
        if colour == 0:
            rows = rows * np.uint8(255 // (2**bits - 1))
    pixels = rows.reshape(height, width, channels)
    if colour == 3:
        return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[pixels[:, :, 0]]
    return pixels[:, :, :1] if channels < 3 else pixels[:, :, :3]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of every chunk."""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def unfilter(data: bytes, height: int, stride: int, step: int) -> Any:
    """Rows (height, stride) of a PNG; step: bytes from a pixel to the one left of it."""
    rows = np.frombuffer(data, np.uint8).reshape(height, stride + 1)
    above = bytearray(stride)
    found = np.empty((height, stride), np.uint8)
    for number, row in enumerate(rows):
        line = bytearray(row[1:].tobytes())
        kind = row[0]
        for i in range(stride) if kind else ():
            left = line[i - step] if i >= step else 0
            corner = above[i - step] if i >= step else 0
            guess = (0, left, above[i], (left + above[i]) // 2, nearest(left, above[i], corner))[kind]
            line[i] = (line[i] + guess) & 255
        found[number] = np.frombuffer(line, np.uint8)
        above = line
    return found


def nearest(left: int, above: int, corner: int) -> int:
    """Paeth's predictor: of the three the one nearest to left + above - corner."""
    to_left, to_above = abs(above - corner), abs(left - corner)
    to_corner = abs(left + above - 2 * corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


def probabilities(outputs: Any, kind: str) -> Any:
    """Outputs as probabilities: the soft-max of logits."""
    if kind == "probabilities":
        return outputs
    powers = np.exp(outputs - outputs.max())
    return powers / powers.sum()


def main() -> None:
    """Print the most likely classes of each image."""
    parser = argparse.ArgumentParser(description="Classify images with an exported network.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    arguments = parser.parse_args()
    for image in arguments.images:
        try:
            outputs, names, kind = classify(arguments.model, image)
        except Exception as error:  # of numpy, onnxruntime and Pillow: whatever a file makes them raise
            raise SystemExit(f"error: {image}: {' '.join(str(error).split())}") from None
        values = probabilities(outputs, kind)
        best = [f"{names[i]} {values[i]:.1%}" for i in np.argsort(-values, kind="stable")[:3]]
        print(f"{image}: {', '.join(best)}")


if __name__ == "__main__":
    main()
