"""What may be put before and behind an exported network: the normalisation of pixels, and soft-max.

images uint8 (N, H, W, C) ─▶ Cast ─▶ Transpose ─▶ Mul ─▶ Add ─▶ network ─▶ Softmax ─▶ probabilities
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsonas_hw.architecture.graph import INPUT

if TYPE_CHECKING:
    import onnx

LOGITS, PROBABILITIES, IMAGES = "logits", "probabilities", "images"


def add_normalisation(model: onnx.ModelProto, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make the model take pixels as decoders give them: `images`, uint8 (N, H, W, C).

    mean, std: of each channel, pixels counted 0 … 1.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    batch, channels, height, width = _dimensions(graph.input[0])
    scale = np.array([1 / (255 * s) for s in std], np.float32).reshape(1, -1, 1, 1)
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32).reshape(1, -1, 1, 1)
    nodes = [
        helper.make_node("Cast", [IMAGES], ["images/float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["images/float"], ["images/nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["images/nchw", "images/scale"], ["images/scaled"]),
        helper.make_node("Add", ["images/scaled", "images/shift"], [INPUT]),
    ]
    graph.initializer.extend(
        [numpy_helper.from_array(scale, "images/scale"), numpy_helper.from_array(shift, "images/shift")]
    )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    shape = [batch, height, width, channels]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape))


def add_softmax(model: onnx.ModelProto) -> None:
    """Make the model give `probabilities` (N, classes) in the place of logits."""
    from onnx import TensorProto, helper

    graph = model.graph
    shape = _dimensions(graph.output[0])
    graph.node.append(helper.make_node("Softmax", [LOGITS], [PROBABILITIES], axis=1))
    graph.output[0].CopyFrom(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape))


def _dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    dimensions = value.type.tensor_type.shape.dim
    return [d.dim_param if d.HasField("dim_param") else d.dim_value for d in dimensions]
