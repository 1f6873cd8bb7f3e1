"""Reading any ONNX network as the kernels it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError, closest
from dsonas_hw.kernel.costs import CountedCosts, count_costs
from dsonas_hw.kernel.fuse import fuse_kernels
from dsonas_hw.kernel.network import Schedule, peak_activation_elements
from dsonas_hw.kernel.onnx.declared import declared_inputs
from dsonas_hw.kernel.onnx.graph import Graph, one_line
from dsonas_hw.kernel.onnx.inputs import unclear_batch
from dsonas_hw.kernel.onnx.load import load_model, missing_weights
from dsonas_hw.kernel.onnx.lower import StoredTensors
from dsonas_hw.kernel.onnx.lower_graph import LoweredGraph, lower_graph
from dsonas_hw.kernel.onnx.patterns import recognise
from dsonas_hw.kernel.onnx.precision import file_precision
from dsonas_hw.kernel.onnx.shapes import read_graph
from dsonas_hw.kernel.onnx.unknown import NEGLIGIBLE
from dsonas_hw.kernel.spec import Kernel, Shape

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class OnnxNetwork:
    """What an ONNX file runs, as far as it is known."""

    schedule: Schedule
    unknown: tuple[str, ...]
    """Operations that no kernel stands for, as ``OpType (node name)``: their cost is missing from any sum."""
    unknown_fraction: float
    """The most that they may cost, relative to what is known; may be infinite."""
    params: int
    """Weights that the file stores, each once, however often it is used."""
    precision: str
    """What its convolutions and matrix products compute in: fp32, fp16, bf16, int8, …; "" if unknown."""
    flops_in: Mapping[str, int]
    """Flops by precision."""
    batch_size: int
    input_shapes: Mapping[str, Shape]
    notes: tuple[str, ...]
    """How the bodies of If, Loop and Scan were counted, and what the file lacks to be run."""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels in the order they run."""
        return tuple(step.kernel for step in self.schedule.kernels)

    @property
    def peak_activation_elements(self) -> int | None:
        """Elements alive at the worst moment of one inference; None if an operation is unknown."""
        return None if self.unknown else peak_activation_elements(self.schedule)

    @property
    def costs(self) -> CountedCosts:
        """Counts of what is known: lower bounds where `unknown` is not empty."""
        return replace(count_costs(self.kernels), params=self.params)

    @property
    def is_known(self) -> bool:
        """Whether what is unknown weighs so little that the rest stands for the network."""
        return self.unknown_fraction <= NEGLIGIBLE


def network_from_onnx(
    model: str | Path | onnx.ModelProto,
    *,
    batch_size: int | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    fuse: bool = True,
) -> OnnxNetwork:
    """Read an ONNX network.

    Args:
        model: a file, which need not be trusted, or a loaded model, which is not modified.
        batch_size: replaces the batch that the file states; by default a fixed batch stays and an open one
            is 1. Which dimension the batch is: see `inputs`.
        input_shapes: shapes of inputs by name, for what the file leaves open; some of them may be those of
            other networks.
        fuse: True for what an inference runtime runs, False for what an eager framework runs.

    Raises:
        ModelFileError: the file cannot be read, is no valid network, or leaves sizes open.
    """
    import onnx

    if batch_size is not None and batch_size < 1:
        raise ModelFileError(f"batch size {batch_size} makes no sense; give 1 or more")
    try:
        proto, opset = load_model(model)
        graph, known_batch = read_graph(proto, opset, batch_size, input_shapes or {})
        recognise(graph)
        missing = "" if isinstance(model, onnx.ModelProto) else missing_weights(proto, Path(model).parent)
        notes = [*filter(None, [missing]), *graph.notes]
        stored = StoredTensors(graph.stored)
        lowered = lower_graph(graph, stored)
        schedule = fuse_kernels(lowered.schedule) if fuse else lowered.schedule
        batch = known_batch or _batch_of_kernels(schedule)
        if batch_size is not None and batch != batch_size:
            raise unclear_batch(declared_inputs(proto), batch_size)
        network = OnnxNetwork(
            schedule=schedule,
            unknown=lowered.unknown,
            unknown_fraction=_unknown_fraction(lowered),
            params=_stored_params(schedule) + lowered.num_unused_params + _other_params(graph, stored),
            precision=file_precision(graph, lowered.flops_in),
            flops_in=lowered.flops_in,
            batch_size=batch,
            input_shapes=dict(graph.inputs),
            notes=tuple(dict.fromkeys(map(one_line, notes))),
        )
    except ModelFileError as error:  # it may quote the file
        raise ModelFileError(one_line(str(error), max_length=390)) from error
    return network


def check_input_names(given: Iterable[str], models: Iterable[Path]) -> None:
    """Refuse a shape for an input that none of these files has, before more than that is asked of them.

    Raises:
        ModelFileError: names the inputs that there are.
    """
    given = list(given)
    names: set[str] = set()
    for path in models if given else ():
        with contextlib.suppress(ModelFileError):  # it is said when the file is read
            names.update(value.name for value in declared_inputs(load_model(path)[0]))
    for name in given:
        if names and name not in names:
            raise ModelFileError(
                f"--input-shape: no input is called {name!r}. {closest(name, sorted(names))}"
            )


def _unknown_fraction(lowered: LoweredGraph) -> float:
    if not lowered.unknown:
        return 0.0
    return lowered.unknown_work / lowered.work if lowered.work else float("inf")


def _stored_params(schedule: Schedule) -> int:
    return sum(
        step.kernel.params - step.num_repeated_weights - step.num_repeated_bias for step in schedule.kernels
    )


def _other_params(graph: Graph, stored: StoredTensors) -> int:
    """Weights of branches that are stored beside the one that counts."""
    total = 0
    for other in graph.alternatives:
        lowered = lower_graph(replace(other, stored=graph.stored), stored)
        total += _stored_params(fuse_kernels(lowered.schedule)) + lowered.num_unused_params
    return total


def _batch_of_kernels(schedule: Schedule) -> int:
    """The batch of the costliest convolution or pool, where the inputs do not tell; 1 if there is none."""
    images = [s.kernel for s in schedule.kernels if s.kernel.kind in ("conv", "pool")]
    return max(images, key=lambda k: (k.flops, prod(k.output))).output[0] if images else 1
