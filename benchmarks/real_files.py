"""Flops and params of real ONNX files, against what ONNX Runtime ran: python -m benchmarks.real_files A.onnx

The other counter is independent of ours: ONNX Runtime runs the file, unoptimised and under its profiler, and
the products are counted from the shapes that it reports, those in the bodies of If and Loop among them.
Params are held against all elements of the tensors that the file stores (of batch norm it stores four numbers
a channel, of which a deployed network needs one). Sizes that a file leaves open are given with --input-shape,
or are what our refusal proposes. The output is a table in Markdown, one row a file.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions, version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dsonas_hw.budget import format_quantity
from dsonas_hw.cli.options import parse_input_shapes
from dsonas_hw.errors import UserError, one_line
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork, network_from_onnx
from dsonas_hw.kernel.spec import Shape, by
from dsonas_hw.runtime.ort.session import TYPES

WEIGHT_POSITION = {"QLinearConv": 3, "QLinearMatMul": 3}


def read(path: Path, given: Mapping[str, Shape]) -> tuple[OnnxNetwork, dict[str, Shape]]:
    """A file at its own sizes; what it leaves open is given, or as the refusals propose."""
    sizes = dict(given)
    for _ in range(16):
        try:
            network = network_from_onnx(path, input_shapes=sizes)
            return network, {name: shape for name, shape in sizes.items() if name in network.input_shapes}
        except UserError as error:
            proposed = re.search(r"for example --input-shape (.+)$", str(error))
            if proposed is None:
                raise
            sizes |= parse_input_shapes(tuple(shlex.split(proposed[1])[:1]))
    raise UserError(f"{path}: too many open inputs")


def count_with_onnxruntime(path: Path, shapes: Mapping[str, Shape], values: Mapping[str, int]) -> int:
    """Multiply-adds of everything that ONNX Runtime ran, on integers of these values, 1 otherwise."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    options.add_session_config_entry("session.disable_prepacking", "1")  # or the profile lacks the weights
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feed = {}
        for tensor in session.get_inputs():
            dtype, shape = TYPES[tensor.type], shapes[tensor.name]
            is_float = np.issubdtype(dtype, np.floating)
            feed[tensor.name] = (
                rng.random(shape) if is_float else np.full(shape, values.get(tensor.name, 1))
            ).astype(dtype)
        try:
            session.run(None, feed)
        finally:
            events = json.loads(Path(session.end_profiling()).read_text())
    return sum(flops for event in events if event.get("cat") == "Node" for flops in _flops(event))


def _flops(event: Mapping[str, Any]) -> Iterator[int]:
    args = event.get("args", {})
    if not event["name"].endswith("_kernel_time") or not args.get("input_type_shape"):
        return
    op = args["op_name"]
    inputs = [tuple(next(iter(entry.values()))) for entry in args["input_type_shape"]]
    output = tuple(next(iter(args["output_type_shape"][0].values())))
    if op in ("Conv", "ConvInteger", "FusedConv", "QLinearConv", "DeformConv"):
        yield prod(output) * prod(inputs[WEIGHT_POSITION.get(op, 1)][1:])
    elif op == "ConvTranspose":
        yield prod(inputs[0]) * prod(inputs[1][1:])
    elif op in ("MatMul", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulNBits"):
        yield prod(output) * inputs[0][-1]
    elif op in ("Gemm", "FusedGemm"):
        yield prod(output) * (prod(inputs[0]) // output[0])
    elif op in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"):
        (steps, batch, _), *weights = inputs
        yield steps * batch * (prod(weights[0]) + prod(weights[1]))


def count_stored(path: Path) -> int:
    """Elements of all tensors of more than one number that the file stores."""
    import onnx

    from dsonas_hw.kernel.onnx.load import all_graphs

    total = 0
    for graph in all_graphs(onnx.load(path, load_external_data=False).graph):
        total += sum(_elements(tensor) for tensor in graph.initializer)
        constants = (node for node in graph.node if node.op_type == "Constant")
        total += sum(_elements(a.t) for node in constants for a in node.attribute if a.HasField("t"))
    return total


def _elements(tensor: Any) -> int:
    """Of weights; int64 and bool are sizes, axes and indices."""
    from onnx import TensorProto

    size = prod(tensor.dims)
    return 0 if tensor.data_type in (TensorProto.INT64, TensorProto.BOOL) or size < 2 else size


def package_of(path: Path) -> str:
    """The distribution that a file was installed with, and its version."""
    for parent in path.resolve().parents:
        for info in parent.glob("*.dist-info/RECORD"):
            relative = path.resolve().relative_to(parent).as_posix()
            if any(line.startswith(f"{relative},") for line in info.read_text().splitlines()):
                name, _, number = info.parent.name.removesuffix(".dist-info").rpartition("-")
                return f"{name} {number}"
    top = path.resolve().parent.name
    found = packages_distributions().get(top)
    return f"{found[0]} {version(found[0])}" if found else "–"


def row(path: Path, given: Mapping[str, Shape], values: Mapping[str, int]) -> str:
    """One line of the table."""
    start = f"| {package_of(path)} | {path.name} "
    try:
        network, sizes = read(path, given)
    except UserError as error:
        return f"{start}| | | | | | refused: {one_line(error)} |"
    stated = ", ".join(f"{name}={by(shape)}" for name, shape in sizes.items())
    costs = network.costs
    at_least = "≥ " if network.unknown else ""
    stored = count_stored(path)
    try:
        ran = count_with_onnxruntime(path, network.input_shapes, values)
        verdict = "same" if ran == costs.flops else f"{costs.flops / ran - 1:+.2%}" if ran else "–"
        other = format_quantity("flops", ran)
    except Exception as error:  # what ONNX Runtime does not run at these sizes, or with these values
        verdict, other = f"not run: {one_line(error)[:80]}", "–"
    if network.unknown:
        verdict += f"; unknown: {', '.join(network.unknown[:2])}" + (
            "" if network.is_known else "; no latency"
        )
    if network.notes:
        verdict += f"; {network.notes[0]}"
    flops, params = (format_quantity(name, getattr(costs, name)) for name in ("flops", "params"))
    return (
        f"{start}| {stated} | {network.precision or 'fp32'} | {at_least}{flops} | {other} "
        f"| {at_least}{params} / {format_quantity('params', stored)} | {verdict} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=SIZES")
    parser.add_argument("--value", action="append", default=[], metavar="NAME=N", help="of an integer input")
    options = parser.parse_args()
    values = {name: int(number) for name, _, number in (text.rpartition("=") for text in options.value)}
    given = parse_input_shapes(tuple(options.input_shape))
    print(
        "| package | file | sizes | precision | flops | ONNX Runtime ran | params / stored | flops compared |"
    )
    print("|---|---|---|---|---:|---:|---:|---|")
    for path in options.files:
        print(row(path, given, values), flush=True)


if __name__ == "__main__":
    main()
