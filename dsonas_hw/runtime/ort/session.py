"""Sessions of ONNX Runtime: CPU, CUDA and TensorRT providers.

ONNX Runtime runs on the CPU without a word when a GPU's provider cannot load, or when a node has no GPU
implementation. Here that is an error: the providers are compared with what was asked, a fallback of single
nodes is forbidden, and the message gives the reason the library itself only logs.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsonas_hw.errors import DeviceError, MissingDependencyError, ModelFileError
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.driver import cudnn_version, tensorrt_library_version, why_no_driver
from dsonas_hw.runtime.ort.provider import Provider
from dsonas_hw.target import Target

TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingDependencyError: not installed, or its files were overwritten by the other wheel.
    """
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018 - absent when two wheels overwrote each other
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"onnxruntime cannot be imported ({error}); "
            "install exactly one of onnxruntime-gpu and onnxruntime: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        ) from error
    return onnxruntime


class OrtSession(Session):
    """A session with its inputs bound, so that running it copies nothing."""

    def __init__(
        self,
        session: Any,
        provider: Provider,
        versions: dict[str, str],
        batch_size: int,
        as_graph: Callable[[], OrtSession] | None = None,
    ) -> None:
        self.runtime = provider.runtime
        self.as_graph = as_graph
        """Opens the same network as a CUDA graph; None: the provider cannot."""
        self.versions = versions
        self.session = session
        self._is_cpu = provider.is_cpu
        device = provider.device
        ort = import_onnxruntime()
        self._binding = session.io_binding()
        rng = np.random.default_rng(0)
        for tensor in session.get_inputs():
            value = _random_input(tensor, batch_size, rng)
            self._binding.bind_ortvalue_input(tensor.name, ort.OrtValue.ortvalue_from_numpy(value, device, 0))
        for tensor in session.get_outputs():
            shape = _fixed_shape(tensor.shape, batch_size)
            if shape is not None and tensor.type in TYPES:
                value = ort.OrtValue.ortvalue_from_shape_and_type(shape, TYPES[tensor.type], device, 0)
                self._binding.bind_ortvalue_output(tensor.name, value)
            else:
                self._binding.bind_output(tensor.name, device)

    def run(self) -> object:
        return self.session.run_with_iobinding(self._binding)

    def synchronize(self) -> None:
        if not self._is_cpu:
            self._binding.synchronize_outputs()

    def close(self) -> None:
        self._binding = None
        self.session = None


def open_ort_session(
    data: bytes,
    target: Target,
    provider: Provider,
    *,
    provider_options: Mapping[str, str] | None = None,
    configure: Callable[[Any], None] | None = None,
    cuda_graph: bool = False,
) -> OrtSession:
    """Load a model; see `runtime.registry.open_session`.

    configure: may change the session's options.
    cuda_graph: capture all launches of an inference in the first runs, and replay them in the others.
    """
    ort = import_onnxruntime()
    asked = dict(provider_options or {})
    as_graph: Callable[[], OrtSession] | None = None
    if cuda_graph:
        asked |= dict(provider.graph_options)
    elif provider.graph_options:
        as_graph = partial(
            open_ort_session, data, target, provider, provider_options=provider_options, cuda_graph=True
        )
    runtime = provider.runtime
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3 if provider.is_cpu else 4
    if not provider.is_cpu:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if configure is not None:
        configure(options)
    chosen: Any = provider.name if provider.is_cpu else (provider.name, asked)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # its fallback notices are printed there
            session = ort.InferenceSession(data, options, providers=[chosen])
    except Exception as error:  # the classes of onnxruntime's errors are not public
        text = " ".join(str(error).split())
        if not provider.is_cpu and ("CPU EP" in text or "EP Error" in said.getvalue()):
            raise DeviceError(
                f"runtime {runtime} would have run on the CPU: {_short(said.getvalue() or text)}"
            ) from error
        raise ModelFileError(f"{runtime} does not take this model: {_short(text)}") from error
    found = session.get_providers()
    if not found or found[0] != provider.name:
        raise DeviceError(
            f"runtime {runtime} was asked for, but ONNX Runtime fell back to {', '.join(found)}: "
            f"{_short(said.getvalue()) or 'it gave no reason'}"
        )
    session.disable_fallback()
    try:
        versions = versions_of(ort) | _switches(provider, session)
        return OrtSession(session, provider, versions, target.batch_size, as_graph)
    except ModelFileError:
        raise
    except Exception as error:
        raise DeviceError(f"runtime {runtime} cannot hold the network: {_short(str(error))}") from error


def require_gpu(provider: Provider) -> None:
    """Refuse a GPU provider that cannot run here.

    Raises:
        DeviceError: with the reason.
    """
    reason = why_no_gpu(provider)
    if reason:
        raise DeviceError(f"runtime {provider.runtime} cannot run here: {reason}")


def why_no_gpu(provider: Provider, ort: Any | None = None) -> str | None:
    """Why a GPU provider of ONNX Runtime cannot run here, in one line; None if nothing stands in the way."""
    ort = ort if ort is not None else import_onnxruntime()
    if provider.name not in ort.get_available_providers():
        return (
            f"the installed onnxruntime {ort.__version__} has no {provider.name}; "
            "install onnxruntime-gpu instead of onnxruntime"
        )
    reason = why_no_driver()
    if reason:
        return reason
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()  # CUDA and cuDNN from the wheels that torch brought
    if provider.brought_by:
        with contextlib.suppress(Exception):  # it may also be installed without the wheel
            importlib.import_module(provider.brought_by)
    if provider.library is None:
        return None
    library = Path(ort.__file__).parent / "capi" / provider.library
    if library.exists():
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            # The provider is loaded by the library that hosts it; symbols of that one may be missing here.
            if "undefined symbol" not in str(error):
                return f"a library is missing: {error}"
    return None


def _switches(provider: Provider, session: Any) -> dict[str, str]:
    """The provider's options that decide which kernels run, its defaults included; and its libraries."""
    if provider.is_cpu:
        return {}
    options = session.get_provider_options().get(provider.name, {})
    switches = {name: str(options[name]) for name in provider.switches if name in options}
    return library_versions(provider) | switches


def library_versions(provider: Provider) -> dict[str, str]:
    """NVIDIA's libraries that a GPU provider uses."""
    found = {"cudnn": cudnn_version()}
    if provider.brought_by:
        found["tensorrt"] = tensorrt_library_version()
    return {name: version for name, version in found.items() if version is not None}


def versions_of(ort: Any) -> dict[str, str]:
    """What a timing depends on."""
    return {"onnxruntime": str(ort.__version__)}


def _fixed_shape(shape: list[Any], batch_size: int) -> tuple[int, ...] | None:
    """A symbolic first dimension is the batch; None when another one is symbolic."""
    sizes = [batch_size if i == 0 and not isinstance(s, int) else s for i, s in enumerate(shape)]
    return tuple(sizes) if all(isinstance(size, int) and size >= 0 for size in sizes) else None


def _random_input(tensor: Any, batch_size: int, rng: np.random.Generator) -> Any:
    shape = _fixed_shape(tensor.shape, batch_size)
    if shape is None or tensor.type not in TYPES:
        raise ModelFileError(
            f"input {tensor.name!r} has shape {tensor.shape} and type {tensor.type}: "
            "only tensors whose sizes are fixed (apart from the batch) can be timed"
        )
    if len(shape) >= 4 and shape[0] != batch_size and isinstance(tensor.shape[0], int):
        raise ModelFileError(
            f"input {tensor.name!r} is fixed to a batch of {shape[0]}, asked for {batch_size}; "
            "export the model with that batch, or with a symbolic one"
        )
    dtype = TYPES[tensor.type]
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


def _short(text: str) -> str:
    """One line, of bearable length."""
    line = " ".join(text.replace("*", "").split())
    return line if len(line) <= 400 else line[:400] + "…"
