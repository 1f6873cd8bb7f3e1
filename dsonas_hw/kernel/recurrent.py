"""A recurrent layer as the kernels it consists of, for whoever knows no kernel of all its steps.

The products with the input are one kernel for all steps; then every step of every direction waits for the one
before it: a product with the state, and the gates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dsonas_hw.kernel.spec import RECURRENT_GATES, Kernel


def unrolled(kernels: Iterable[Kernel]) -> list[Kernel]:
    """Return the same kernels with every recurrent layer taken apart; the flops stay the same."""
    result: list[Kernel] = []
    for kernel in kernels:
        result.extend(_steps(kernel) if kernel.op == "rnn" else [kernel])
    return result


def _steps(layer: Kernel) -> list[Kernel]:
    steps, batch, features = layer.inputs[0]
    hidden = layer.output[-1] // layer.groups
    width = RECURRENT_GATES[layer.function] * hidden
    state = Kernel(
        op="gemm",
        inputs=((batch, hidden),),
        output=(batch, width),
        num_weights=hidden * width,
        num_bias=width,
    )
    gates = Kernel(op="unary", function=layer.function, inputs=((batch, width),), output=(batch, hidden))
    taken_in = replace(
        state,
        inputs=((steps * batch, features),),
        output=(steps * batch, layer.groups * width),
        num_weights=features * layer.groups * width,
        num_bias=layer.groups * width,
    )
    return [taken_in, *[state, gates] * (steps * layer.groups)]
