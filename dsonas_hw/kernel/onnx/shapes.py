"""Shapes of every tensor of an ONNX model, at the sizes that are asked for.

One walk in running order does it (`walk`). For another batch size than the file's the walk is made twice
(see `batch`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.batch import BatchChange, check_scaling
from dsonas_hw.kernel.onnx.bodies import enter_body
from dsonas_hw.kernel.onnx.declared import declared_inputs, output_shapes, stated_shapes
from dsonas_hw.kernel.onnx.find_batch import find_batch, recurrent_batch_axes
from dsonas_hw.kernel.onnx.graph import Graph
from dsonas_hw.kernel.onnx.inputs import resolve_sizes
from dsonas_hw.kernel.onnx.walk import Walk
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx


def read_graph(
    model: onnx.ModelProto, opset: int, batch_size: int | None, input_shapes: Mapping[str, Shape]
) -> tuple[Graph, int | None]:
    """Infer the shapes of a checked model; and the batch size, None if it is not known.

    Raises:
        ModelFileError: operations that contradict each other, or a size that the file leaves open.
    """
    inputs = declared_inputs(model)
    batch = find_batch(inputs, output_shapes(model), recurrent_batch_axes(model.graph))
    sizes = resolve_sizes(inputs, batch, batch_size, input_shapes)
    decisions: dict[str, tuple[str, list[Graph]]] = {}
    graph = Walk(
        model, opset, inputs, sizes.own, stated_shapes(model), decisions=decisions, enter_body=enter_body
    ).run()
    if sizes.wanted == sizes.own:
        return graph, sizes.batch_size
    assert sizes.batch_size is not None
    walk = Walk(model, opset, inputs, sizes.wanted, {}, decisions=decisions, enter_body=enter_body)
    walk.change = BatchChange(graph, sizes.own_batch, walk.tensors)
    try:
        scaled = walk.run()
    except ModelFileError as error:
        raise ModelFileError(
            f"{error} (at batch size {sizes.batch_size}; the file is made for {sizes.own_batch})"
        ) from error
    check_scaling(graph, scaled, old_batch=sizes.own_batch, new_batch=sizes.batch_size)
    return scaled, sizes.batch_size
