"""Read an ONNX file that nobody vouches for.

Only the graph and the shapes of the weights are used: external data is never opened, and nothing is
evaluated that could be larger than the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.files import read_regular

if TYPE_CHECKING:
    import onnx

MAX_FILE_BYTES = 2 * 1024**3
"""A protobuf message cannot be larger."""
MAX_NODES = 200_000
OLDEST_OPSET = 7


def load_model(model: str | Path | onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Read and check a model, and expand the functions it defines.

    Returns the model (a given one is never modified) and its version of the standard operator set.

    Raises:
        ModelFileError: the file cannot be read, or is no ONNX network within the limits of this module.
    """
    import onnx

    if isinstance(model, (str, Path)):
        model = _parse(Path(model))
    elif not isinstance(model, onnx.ModelProto):
        raise ModelFileError(f"expected an ONNX file or model, got {type(model).__name__}")
    if not model.HasField("graph") or not model.graph.node:
        raise ModelFileError("the ONNX model holds no operations; export the network again")
    opset = _standard_opset(model)
    external_files(model)
    num_nodes = _count_expanded_nodes(model)
    if num_nodes > MAX_NODES:
        raise ModelFileError(f"the ONNX model has {num_nodes} operations; at most {MAX_NODES} are read")
    if model.functions:
        model = _inline_functions(model)
    return model, opset


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        content = read_regular(path, max_bytes=MAX_FILE_BYTES)
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist; give the path of an .onnx file") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    if not content:
        raise ModelFileError(f"{path} is empty; export the network again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RuntimeError) as error:
        raise ModelFileError(
            f"{path} is not an ONNX file, or it is damaged ({len(content)} bytes)"
        ) from error
    return model


def _standard_opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelFileError(
            "the ONNX model does not say which opset it uses (opset_import names no version); export it again"
        )
    version = int(max(versions))
    if version < OLDEST_OPSET:
        raise ModelFileError(f"the ONNX model uses opset {version}; export it with opset 11 or newer")
    return version


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and every graph nested in the attributes of its operations."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(_nested_graphs(current.node))


def _nested_graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def external_files(model: onnx.ModelProto) -> dict[str, int]:
    """Return the files beside the model that its weights lie in, and how many bytes each must have.

    Raises:
        ModelFileError: one lies outside the model's directory, though nothing here opens it.
    """
    files: dict[str, int] = {}
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            location = entries.get("location", "")
            if _escapes(location):
                raise ModelFileError(
                    f"weight {tensor.name!r} points to {location!r}, outside the model's directory; export "
                    "the network again"
                )
            if location:
                start, length = (int(entries[key]) if entries.get(key, "").isdigit() else 0 for key in _PART)
                files[location] = max(files.get(location, 1), start + length)
    return files


_PART = ("offset", "length")


def missing_weights(model: onnx.ModelProto, folder: Path) -> str:
    """Return what to say of weights that should lie beside the model and do not; empty if they do."""

    def size(name: str) -> int:
        return (folder / name).stat().st_size if (folder / name).is_file() else 0

    short = [name for name, num_bytes in external_files(model).items() if size(name) < num_bytes]
    if not short:
        return ""
    files = ", ".join(map(repr, short[:3]))
    return f"weights are missing: {files} beside the file; its shapes are read, but no runtime loads it"


def _escapes(location: str) -> bool:
    path = PureWindowsPath(location)  # it takes both / and \\ for separators
    return bool(path.anchor) or ".." in path.parts


FunctionKey = tuple[str, str]


def _count_expanded_nodes(model: onnx.ModelProto) -> int:
    """Operations after every function is expanded, without expanding: nested calls multiply.

    Raises:
        ModelFileError: a function calls itself.
    """
    bodies = {(f.domain, f.name): list(f.node) for f in model.functions}
    sizes: dict[FunctionKey, int] = {}

    def calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[FunctionKey]:
        for node in nodes:
            yield (node.domain, node.op_type)
            for graph in _nested_graphs([node]):
                for inner in all_graphs(graph):
                    yield from ((n.domain, n.op_type) for n in inner.node)

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(sizes.get(key, 1) for key in calls(nodes))

    pending: list[tuple[FunctionKey, bool]] = [(key, False) for key in bodies]
    open_calls: set[FunctionKey] = set()
    while pending:
        key, expanded = pending.pop()
        if expanded:
            open_calls.discard(key)
            sizes[key] = size(bodies[key])
        elif key in open_calls:
            raise ModelFileError(f"function {key[1]!r} of the ONNX model calls itself")
        elif key not in sizes:
            open_calls.add(key)
            pending.append((key, True))
            pending.extend((called, False) for called in set(calls(bodies[key])) if called in bodies)
    return size(model.graph.node)


def _inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Expand the functions that the model itself defines, in a copy without the weights' values."""
    import onnx
    from onnx import inliner

    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")
    try:
        return inliner.inline_local_functions(light)
    except Exception as error:  # the C++ side raises several unrelated types
        first_line = (str(error).splitlines() or ["no reason given"])[0]
        raise ModelFileError(f"cannot expand the functions of the ONNX model: {first_line}") from error
