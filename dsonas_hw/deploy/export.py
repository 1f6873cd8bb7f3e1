"""From trained weights to the file that is deployed: ONNX with batch norms folded, checked before it is kept.

    weights.npz ─▶ build_onnx ─▶ ONNX Runtime's output on real test images = PyTorch's? ─▶ model.onnx
                                                                                └──────▶ a TensorRT engine

The file says in its metadata what it is: architecture, dataset, class names, how an image becomes its input,
what its output is, and how far that is from PyTorch's. `infer.py` beside it needs nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsonas_hw import __version__
from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.onnx import Array, build_onnx
from dsonas_hw.deploy import infer
from dsonas_hw.deploy.export_ends import LOGITS, PROBABILITIES, add_normalisation, add_softmax
from dsonas_hw.errors import UserError
from dsonas_hw.files import atomic_write, write_text

if TYPE_CHECKING:
    import onnx

    from dsonas_hw.train.data import Dataset

MAX_RELATIVE_ERROR = 1e-3
"""Of the logits, against their largest absolute value; float32 rounding gives about 1e-6."""
NUM_CHECKED_IMAGES = 64
INFER_NAME = "infer.py"
SMALLEST_WEIGHT = 1e-30
"""Below it a weight is zero: numbers near 1e-38 and less (denormals) slow a CPU down many times."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written, and how far its output is from PyTorch's."""

    path: Path
    num_bytes: int
    batch_size: int | None
    """None: symbolic."""
    max_abs_output_error: float
    """Largest absolute difference of an output from PyTorch's, over the checked images."""
    relative_output_error: float
    """The same, over the largest absolute output."""
    num_checked_images: int


def export_onnx(
    path: Path,
    architecture: Architecture,
    arrays: Mapping[str, Array],
    dataset: Dataset,
    *,
    batch_size: int | None = 1,
    with_preprocessing: bool = False,
    softmax: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> ExportResult:
    """Write the trained network as ONNX (float32), once its output is PyTorch's; and infer.py beside it.

    arrays: the weights, as `DerivedNetwork.named_arrays` names them.
    batch_size: fixed to the target's; None makes it symbolic.
    with_preprocessing: the file takes pixels, uint8 (N, H, W, C), and normalises them; resizing is not in it.
    softmax: the file gives probabilities in the place of logits.
    metadata: more entries for the file's metadata.

    Raises:
        UserError: weights that are not finite, or an output further from PyTorch's than `MAX_RELATIVE_ERROR`;
            nothing is written.
        RunError: the file cannot be written.
    """
    import onnx

    if broken := sorted(name for name, array in arrays.items() if not np.isfinite(array).all()):
        raise UserError(
            f"the trained weights are not finite ({broken[0]}); retrain with a smaller retrain.lr"
        )
    model = build_onnx(architecture, arrays, batch_size=batch_size)
    _flush_denormals(model)
    images = _test_images(dataset, NUM_CHECKED_IMAGES)
    expected = _torch_outputs(architecture, arrays, images, softmax=softmax)
    if with_preprocessing:
        add_normalisation(model, dataset.mean, dataset.std)
        images = _pixels(images, dataset)
    if softmax:
        add_softmax(model)
    error = float(np.abs(_onnx_outputs(model, images, batch_size) - expected).max())
    relative = error / max(float(np.abs(expected).max()), 1e-12)
    if not relative <= MAX_RELATIVE_ERROR:
        raise UserError(
            f"the exported network's outputs differ from PyTorch's by {error:.3g} ({relative:.1e} of their "
            f"size, allowed {MAX_RELATIVE_ERROR:g}); {path.name} was not written"
        )
    facts = describe_model(
        architecture, dataset, max_abs_output_error=error, with_preprocessing=with_preprocessing,
        softmax=softmax,
    )  # fmt: skip
    onnx.helper.set_model_props(model, {**facts, **(metadata or {})})
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    with atomic_write(path) as file:
        file.write(data)
    write_text(path.with_name(INFER_NAME), Path(infer.__file__).read_text(encoding="utf-8"))
    return ExportResult(
        path=path,
        num_bytes=len(data),
        batch_size=batch_size,
        max_abs_output_error=error,
        relative_output_error=relative,
        num_checked_images=len(images),
    )


def describe_model(
    architecture: Architecture,
    dataset: Dataset,
    *,
    max_abs_output_error: float,
    with_preprocessing: bool = False,
    softmax: bool = False,
) -> dict[str, str]:
    """The file's metadata: everything that a user of the file alone needs. Values are JSON.

    docs/files.md describes each entry.
    """
    from dsonas_hw.train.identity import architecture_hash
    from dsonas_hw.train.preprocess import INTERPOLATION, preprocessing_of

    images = preprocessing_of(dataset)
    facts: dict[str, Any] = {
        "dsonas_hw": __version__,
        "architecture_hash": architecture_hash(architecture),
        "dataset": dataset.name,
        "class_names": dataset.class_names,
        "input": "pixels, uint8" if with_preprocessing else "(pixel / 255 - mean) / std, float32",
        "input_layout": "NHWC" if with_preprocessing else "NCHW",
        "channel_order": images.channel_order,
        "resize": images.resize,
        "interpolation": INTERPOLATION,
        "crop": "centre",
        "size": images.size,
        "mean": images.mean,
        "std": images.std,
        "output": PROBABILITIES if softmax else LOGITS,
        "max_abs_output_error": max_abs_output_error,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def read_metadata(path: Path) -> dict[str, Any]:
    """What `describe_model` wrote; entries that are not JSON are left out.

    Raises:
        ModelFileError: no readable ONNX file.
    """
    from dsonas_hw.kernel.onnx.load import load_model

    model, _ = load_model(path)
    facts: dict[str, Any] = {}
    for entry in model.metadata_props:
        try:
            facts[entry.key] = json.loads(entry.value)
        except (ValueError, RecursionError):
            continue
    return facts


def _flush_denormals(model: onnx.ModelProto) -> None:
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tiny = (array != 0) & (np.abs(array) < SMALLEST_WEIGHT)
        if tiny.any():
            flushed = np.where(tiny, np.float32(0), array)
            tensor.CopyFrom(numpy_helper.from_array(flushed, tensor.name))


def _test_images(dataset: Dataset, num_images: int) -> npt.NDArray[np.float32]:
    """The first test images, normalised, (N, C, H, W)."""
    from dsonas_hw.train.data_batches import Batches

    batch_size = min(num_images, len(dataset.test))
    batches = Batches(
        images=dataset.test, dataset=dataset, batch_size=batch_size, shuffle=False, num_workers=0
    )
    images, _ = next(batches.epoch(0))
    return np.asarray(images.numpy(), np.float32)


def _pixels(images: npt.NDArray[np.float32], dataset: Dataset) -> npt.NDArray[Any]:
    """The pixels of normalised images, uint8 (N, H, W, C)."""
    pixels = (images.transpose(0, 2, 3, 1) * np.array(dataset.std) + np.array(dataset.mean)) * 255
    return np.ascontiguousarray(np.rint(pixels).astype(np.uint8))


def _torch_outputs(
    architecture: Architecture, arrays: Mapping[str, Array], images: npt.NDArray[np.float32], *, softmax: bool
) -> npt.NDArray[np.float32]:
    import torch

    from dsonas_hw.train.network import DerivedNetwork

    network = DerivedNetwork(architecture).eval()
    network.load_named_arrays(arrays)
    with torch.no_grad():
        logits = network(torch.from_numpy(images))
        return np.asarray((logits.softmax(1) if softmax else logits).numpy(), np.float32)


def _onnx_outputs(
    model: onnx.ModelProto, images: npt.NDArray[Any], batch_size: int | None
) -> npt.NDArray[np.float32]:
    """Outputs by ONNX Runtime on the CPU; the last batch is filled up by repeating its last image."""
    from dsonas_hw.runtime.ort.session import import_onnxruntime

    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    size = batch_size or len(images)
    rest = -len(images) % size
    padded = np.concatenate([images, np.repeat(images[-1:], rest, axis=0)])
    batches = [padded[i : i + size] for i in range(0, len(padded), size)]
    name = session.get_inputs()[0].name
    outputs = [session.run(None, {name: batch})[0] for batch in batches]
    return np.asarray(np.concatenate(outputs)[: len(images)], np.float32)
