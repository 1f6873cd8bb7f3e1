"""The law of `ort_layout`: the kernels that it derives are those that ONNX Runtime's optimised graph runs.

A processor fixes the size of a block: 16 channels with AVX-512, 8 with AVX2, no blocks without either. Here
the law is held to the machine's own size and to none (by leaving out ONNX Runtime's `NchwcTransformer`, which
is what happens on a processor without blocks); `test_deployed_elsewhere.py` adds the others.

The rules are those of ONNX Runtime 1.30 and later; under an older one the tests that run it are skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from dsonas_hw.kernel.network import Schedule
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.ort.session import import_onnxruntime
from dsonas_hw.runtime.ort_cpu.in_situ import OrtProfiledSession, native_block_size
from dsonas_hw.runtime.ort_cpu.layout import Blocks
from dsonas_hw.target import Target

OLDEST = (1, 30)

rules_apply = pytest.mark.skipif(
    tuple(map(int, import_onnxruntime().__version__.split(".")[:2])) < OLDEST,
    reason="the rules are those of ONNX Runtime {}.{} and later".format(*OLDEST),
)


def running_kernels(model: bytes, *, batch_size: int = 1, with_blocks: bool = True) -> Counter[Kernel]:
    """What ONNX Runtime runs: all nodes of its optimised graph, in the shapes that its profiler reports."""
    target = Target(runtime="ort-cpu", batch_size=batch_size)
    session = OrtProfiledSession(model, target, with_blocks=with_blocks)
    session.run()
    timing = session.finish([Turn(num_warmup=0, num_samples=1, low_ms=0.0)])
    return Counter(node.kernel for node in timing.nodes)


def assert_deployed(model: bytes, schedule: Schedule, *, batch_size: int = 1) -> None:
    """Hold the law with the blocks of this machine, and without."""
    for block_size in {native_block_size(), 0}:
        running = running_kernels(model, batch_size=batch_size, with_blocks=block_size > 0)
        derived = Counter(Blocks(block_size=block_size).kernels(schedule))
        assert not describe_difference(running, derived), f"blocks of {block_size} channels"


def describe_difference(running: Counter[Kernel], derived: Counter[Kernel]) -> list[str]:
    """One line for each kernel that only one of the two has."""
    return [*_lines("only runs: ", running - derived), *_lines("only derived: ", derived - running)]


def _lines(what: str, kernels: Counter[Kernel]) -> Iterable[str]:
    for kernel, count in kernels.items():
        yield f"{what}{count} × {kernel.key}, {kernel.num_weights} weights, {kernel.num_bias} biases"
