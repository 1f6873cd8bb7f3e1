"""How much work an operation may hold of which nothing is known.

    work = multiply-adds + 4 · elements moved + 10,000 per kernel

in units of about a multiply-add: an element that is moved takes about as long as four of them, and starting a
kernel as long as ten thousand. For what is known this is the work that it is; for what is not, the most that
an operation over these tensors plausibly does: every output element meets every weight of its row, or, where
there are none, runs along the longest axis of a tensor. If so much is little beside the rest of the network,
the rest may stand for it; else nothing can.
"""

from __future__ import annotations

import math
from math import prod

from dsonas_hw.kernel.onnx.graph import Graph, Node
from dsonas_hw.kernel.spec import Kernel

WORK_PER_ELEMENT = 4
WORK_PER_KERNEL = 10_000
NEGLIGIBLE = 0.05
"""Unknown work up to this fraction of the known does not change an answer beyond its own error."""


def work_of(kernel: Kernel) -> float:
    """Return the work of a kernel."""
    return kernel.flops + WORK_PER_ELEMENT * kernel.mac + WORK_PER_KERNEL


def possible_work(graph: Graph, node: Node) -> float:
    """Return the most work that an unknown operation plausibly holds; infinite where a shape is missing."""
    shapes = [graph.shapes.get(name) for name in (*node.inputs, *node.outputs) if name]
    outputs = [graph.shapes.get(name) for name in node.outputs if name]
    if any(shape is None for shape in shapes) or node.op in ("If", "Loop", "Scan", "SequenceMap"):
        return math.inf
    known = [shape for shape in shapes if shape is not None]
    num_written = sum(prod(shape) for shape in outputs if shape is not None)
    longest = max((max(shape, default=1) for shape in known), default=1)
    per_element = longest
    for name in node.inputs:
        constant = graph.constants.get(name)
        if constant is not None and constant.num_stored > 1:
            wide = [dim for dim in constant.shape if dim > 1]
            if len(wide) > 1:  # a vector is a bias or a scale
                per_element = max(per_element, prod(wide) // min(wide))
    moved = sum(prod(shape) for shape in known)
    return float(num_written * per_element + WORK_PER_ELEMENT * moved + WORK_PER_KERNEL)
