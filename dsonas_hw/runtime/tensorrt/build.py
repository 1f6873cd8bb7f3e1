"""From an ONNX model to a TensorRT engine on disk, with what is needed to trust it later.

    model ──parser──▶ network ──builder + timing cache──▶ engine file, engine.json, timing cache

Builds differ from run to run because the builder times its tactics: a timing cache that is shared makes the
next build choose the same ones, and the hash of the engine says which build a measurement belongs to.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsonas_hw.device.paths import data_directory
from dsonas_hw.errors import DeviceError, ModelFileError, UserError
from dsonas_hw.files import atomic_write, write_json
from dsonas_hw.runtime.cuda import Cuda
from dsonas_hw.runtime.model import is_quantised, read_model, to_fp16
from dsonas_hw.runtime.quantised import QUANTISE, why_not_for_tensorrt
from dsonas_hw.runtime.tensorrt.engine_info import EngineInfo, description_path
from dsonas_hw.runtime.tensorrt.library import (
    first_of,
    major_version,
    new_log,
    or_none,
    require_tensorrt,
    sizes,
    started,
    tensorrt_version,
)
from dsonas_hw.target import Target

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

PLACEHOLDER_RANGE = 4.0
"""Dynamic range (±) of every tensor of an int8 engine that is only timed."""
TIMING_ONLY = "int8 ranges are placeholders: the engine is good for timing, its outputs mean nothing"

REST_OF_INT8 = "layers without int8 run in {}"


def build_engine(
    model: bytes | Path,
    engine_path: Path,
    target: Target,
    *,
    timing_cache_path: Path | None = None,
    placeholder_ranges: bool = False,
    cuda: Cuda | None = None,
    clock_s: Callable[[], float] = time.perf_counter,
) -> EngineInfo:
    """Build an engine for the GPU that is here and write it with its description and timing cache.

    target: its batch size is for a model whose batch is symbolic; a fixed one must agree.
    timing_cache_path: default is one per GPU and TensorRT version in the user's data directory.
    placeholder_ranges: build int8 from a model without Q/DQ nodes, for timing only (TensorRT 8.6 and 10).

    Raises:
        DeviceError: no GPU, or a TensorRT that cannot serve it, or that fails to build.
        ModelFileError: a model that TensorRT does not take, or not in this precision.
    """
    precision, batch_size = target.precision, target.batch_size
    cuda = cuda if cuda is not None else require_tensorrt()
    import tensorrt as trt

    data = read_model(model)
    start_s = clock_s()
    log, errors = new_log()
    builder = started(trt.Builder, log, errors)
    network = builder.create_network(_network_flags())
    _parse(network, _typed(data, precision), model, log)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _fix_batch(builder, network, config, batch_size)
    is_placeholder = _set_precision(network, config, precision, data, placeholder_ranges)
    cache_path = timing_cache_path or default_timing_cache_path(cuda.name)
    _load_timing_cache(config, cache_path)
    plan = or_none(builder.build_serialized_network(network, config))
    if plan is None:
        raise DeviceError(f"TensorRT could not build the engine: {first_of(errors, 'it gave no reason')}")
    engine = bytes(memoryview(plan))
    _save_timing_cache(config, cache_path)
    info = EngineInfo(
        sha256=hashlib.sha256(engine).hexdigest(),
        model_sha256=hashlib.sha256(data).hexdigest(),
        precision=precision,
        batch_size=batch_size,
        tensorrt_version=tensorrt_version(),
        gpu=cuda.name,
        timing_cache=str(cache_path),
        build_seconds=clock_s() - start_s,
        remarks=_remarks(precision, is_placeholder),
    )
    with atomic_write(engine_path) as file:
        file.write(engine)
    write_json(description_path(engine_path), asdict(info))
    return info


def _remarks(precision: str, is_placeholder: bool) -> tuple[str, ...]:
    """What else must be known of the engine: what becomes of layers without int8 depends on the version."""
    if precision != "int8":
        return ()
    rest = "fp32" if major_version() >= 11 else "fp16"
    return (REST_OF_INT8.format(rest), *((TIMING_ONLY,) if is_placeholder else ()))


def default_timing_cache_path(gpu: str) -> Path:
    """One cache per GPU and TensorRT version: another's is useless."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu}-{tensorrt_version()}")
    return data_directory() / "tensorrt" / f"{name}.timing"


def _network_flags() -> int:
    import tensorrt as trt

    if major_version() < 10:
        return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    return 0


def _typed(data: bytes, precision: str) -> bytes:
    """TensorRT 11 takes the precision from the model: half-precision types inside, fp32 at the ends."""
    if precision != "fp16" or major_version() < 11:
        return data
    return to_fp16(data, keep_io_types=True)


def _parse(network: trt.INetworkDefinition, data: bytes, model: bytes | Path, log: trt.ILogger) -> None:
    import tensorrt as trt

    parser = trt.OnnxParser(network, log)
    if isinstance(model, bytes):
        name, accepted = "this model", parser.parse(data)
    else:  # external weights are looked for beside the file
        name, accepted = str(model), parser.parse(data, str(model))
    if not accepted:
        found = [str(parser.get_error(index).desc()) for index in range(parser.num_errors)]
        complaint = first_of(found, "it gave no reason")
        raise ModelFileError(f"TensorRT {tensorrt_version()} does not take {name}: {complaint}")


def _fix_batch(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, batch_size: int
) -> None:
    """Give symbolic batches their size; refuse what cannot be timed."""
    import tensorrt as trt

    profile = builder.create_optimization_profile()
    is_symbolic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = sizes(tensor.shape)
        fixed = (batch_size, *shape[1:])
        if min(fixed, default=1) < 0:
            raise ModelFileError(
                f"input {tensor.name!r} has shape {shape}: only the first size, the batch, may be symbolic"
            )
        if shape and shape[0] < 0:
            dims = trt.Dims(list(fixed))
            profile.set_shape(tensor.name, dims, dims, dims)
            is_symbolic = True
        elif shape and shape[0] != batch_size:
            raise ModelFileError(
                f"input {tensor.name!r} is fixed to a batch of {shape[0]}, asked for {batch_size}; "
                "export the model with that batch, or with a symbolic one"
            )
    if not is_symbolic:
        return
    if config.add_optimization_profile(profile) < 0:
        raise DeviceError("TensorRT refused the batch size as an optimization profile")
    if major_version() < 10:  # from 10 on always: more than one execution context per profile
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def _set_precision(
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    precision: str,
    data: bytes,
    placeholder_ranges: bool,
) -> bool:
    """Ask the builder for a precision; says whether the int8 ranges are placeholders."""
    import tensorrt as trt

    if precision == "fp32":
        return False
    is_typed = major_version() >= 11
    if precision == "fp16":
        if not is_typed:
            config.set_flag(trt.BuilderFlag.FP16)
        return False
    quantised = is_quantised(data)
    if quantised and (reason := why_not_for_tensorrt(data)):
        raise ModelFileError(f"TensorRT {tensorrt_version()} does not take this model: {reason}")
    if not quantised and (is_typed or not placeholder_ranges):
        raise ModelFileError(
            f"TensorRT {tensorrt_version()} makes int8 from quantised models (with Q/DQ nodes), and this one "
            f"has none; {QUANTISE}"
            + ("" if is_typed or placeholder_ranges else "; only for timing, placeholder ranges would do")
        )
    if not is_typed:
        config.set_flag(trt.BuilderFlag.INT8)
        config.set_flag(trt.BuilderFlag.FP16)  # for layers without int8
    if not quantised:
        _set_placeholder_ranges(network)
    return not quantised


def _set_placeholder_ranges(network: trt.INetworkDefinition) -> None:
    tensors: list[Any] = [network.get_input(index) for index in range(network.num_inputs)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        tensors += [layer.get_output(output) for output in range(layer.num_outputs)]
    for tensor in tensors:
        if tensor is not None:
            tensor.dynamic_range = (-PLACEHOLDER_RANGE, PLACEHOLDER_RANGE)


def _load_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    """Use the cache of earlier builds; one that does not fit is replaced by an empty one."""
    try:
        stored = path.read_bytes()
    except OSError:
        stored = b""
    for content in (stored, b"") if stored else (b"",):
        cache = or_none(config.create_timing_cache(content))
        if cache is not None and config.set_timing_cache(cache, False):
            return
        if content:
            logger.warning("the timing cache %s does not fit this TensorRT and GPU; starting a new one", path)


def _save_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    """Keep what this build learnt; a cache that cannot be kept is a warning, not a failure."""
    cache = or_none(config.get_timing_cache())
    if cache is None:
        return
    try:
        with atomic_write(path) as file:
            file.write(bytes(memoryview(cache.serialize())))
    except UserError as error:
        logger.warning("the timing cache is lost: %s", error)
