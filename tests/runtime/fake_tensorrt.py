"""A stand-in for the module `tensorrt`, with the names of a real version and no others.

Every class below may only have members that the recorded bindings of that version have
(tensorrt_api.json): using anything else is the AttributeError that the real module would raise. An "engine"
is JSON that says what the builder was asked for.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from types import ModuleType
from typing import Any

API: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())


class Restricted:
    """Attributes that are set must exist in the real class; the fakes' own begin with an underscore."""

    _members: frozenset[str]

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self._members:
            raise AttributeError(f"{type(self).__name__} of this TensorRT has no {name!r}")
        super().__setattr__(name, value)


def make_tensorrt(major: str, *, fail_build: bool = False, fail_start: bool = False) -> ModuleType:
    """The fake module of TensorRT 8, 10 or 11."""
    api = API[major]
    module: Any = ModuleType("tensorrt")
    module.__version__ = api["__version__"]
    for name in (
        "BuilderFlag",
        "DataType",
        "LayerInformationFormat",
        "NetworkDefinitionCreationFlag",
        "PreviewFeature",
        "ProfilingVerbosity",
        "TensorIOMode",
    ):
        members = [member for member in api[name] if member.isupper()]
        setattr(module, name, enum.IntEnum(name, {member: index for index, member in enumerate(members)}))

    class Dims(Restricted):
        def __init__(self, shape: list[int]) -> None:
            self._shape = list(shape)

        def __len__(self) -> int:
            return len(self._shape)

        def __getitem__(self, index: int) -> int:
            return self._shape[index]

    class ILogger(Restricted):
        Severity = enum.IntEnum(
            "Severity",
            {name: index for index, name in enumerate(["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"])},
        )
        _is_set_up = False

        def __init__(self) -> None:
            self._is_set_up = True  # pybind11 refuses an object whose base was not initialised

        def log(self, severity: int, message: str) -> None:
            raise NotImplementedError

    class IProfiler(Restricted):
        _is_set_up = False

        def __init__(self) -> None:
            self._is_set_up = True

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            raise NotImplementedError

    class IHostMemory(Restricted, bytes):
        """The real one has the buffer protocol and nothing of bytes."""

    class ITensor(Restricted):
        def __init__(self, name: str, shape: list[int], kind: str) -> None:
            self.name, self.shape, self._kind = name, Dims(shape), kind

    class ILayer(Restricted):
        def __init__(self, outputs: list[ITensor]) -> None:
            self._outputs = outputs
            self.num_outputs = len(outputs)

        def get_output(self, index: int) -> ITensor | None:
            return self._outputs[index]

    class INetworkDefinition(Restricted):
        def __init__(self) -> None:
            self._inputs: list[ITensor] = []
            self._outputs: list[ITensor] = []
            self._layers: list[ILayer] = []
            self._half_weights = 0
            self._node_names: list[str] = []

        @property
        def num_inputs(self) -> int:
            return len(self._inputs)

        @property
        def num_layers(self) -> int:
            return len(self._layers)

        def get_input(self, index: int) -> ITensor:
            return self._inputs[index]

        def get_layer(self, index: int) -> ILayer:
            return self._layers[index]

    class IOptimizationProfile(Restricted):
        def __init__(self) -> None:
            self._shapes: dict[str, list[int]] = {}

        def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
            assert isinstance(min, Dims)
            assert isinstance(opt, Dims)
            assert isinstance(max, Dims)
            self._shapes[input] = list(opt._shape)

    class ITimingCache(Restricted):
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> IHostMemory:
            return IHostMemory(self._content)

    class IBuilderConfig(Restricted):
        def __init__(self) -> None:
            self._flags = {module.BuilderFlag.TF32}
            self._profile: IOptimizationProfile | None = None
            self._cache: ITimingCache | None = None
            self._shares_profiles = major != "8"

        def set_preview_feature(self, feature: Any, enable: bool) -> None:
            assert feature is module.PreviewFeature.PROFILE_SHARING_0806
            self._shares_profiles = enable

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag)

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profile = profile
            return 0

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
            return (
                None
                if serialized_timing_cache.startswith(b"damaged")
                else ITimingCache(serialized_timing_cache)
            )

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            fits = not cache._content or cache._content.startswith(module.__version__.encode())
            if fits:
                self._cache = cache
            return fits

        def get_timing_cache(self) -> ITimingCache | None:
            return self._cache

    class Builder(Restricted):
        def __init__(self, logger: ILogger) -> None:
            assert logger._is_set_up
            if fail_start:
                logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            explicit = getattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
            if major == "8":
                assert flags == 1 << explicit, "ONNX needs explicit batch"
            else:
                assert flags == 0
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(
            self, network: INetworkDefinition, config: IBuilderConfig
        ) -> IHostMemory | None:
            self._logger.log(ILogger.Severity.WARNING, "a warning")
            if fail_build:
                self._logger.log(ILogger.Severity.ERROR, "Could not find any\nimplementation for node conv")
                return None
            assert config._cache is not None, "a build without a timing cache"
            learnt = config._cache._content or module.__version__.encode()
            config._cache._content = learnt + b"+1"
            shapes = config._profile._shapes if config._profile else {}
            assert set(shapes) == {t.name for t in network._inputs if min(t.shape._shape) < 0}
            tensors = [*network._inputs, *(out for layer in network._layers for out in layer._outputs)]
            plan = {
                "version": module.__version__,
                "inputs": [[t.name, list(t.shape._shape), t._kind] for t in network._inputs],
                "outputs": [[t.name, list(t.shape._shape), t._kind] for t in network._outputs],
                "layers": network._node_names,
                "flags": sorted(flag.name for flag in config._flags),
                "ranges": [list(t.dynamic_range) for t in tensors if hasattr(t, "dynamic_range")],
                "half_weights": network._half_weights,
                "cache": learnt.decode(),
                "shares_profiles": config._shares_profiles or not config._profile,
            }
            return IHostMemory(json.dumps(plan).encode())

    class ParserError(Restricted):
        def __init__(self, text: str) -> None:
            self._text = text

        def desc(self) -> str:
            return self._text

    class OnnxParser(Restricted):
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            self._network, self._errors = network, list[ParserError]()

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse(self, model: bytes, path: str | None = None) -> bool:
            import onnx

            graph = onnx.load_model_from_string(bytes(model)).graph
            if any(node.op_type == "NonZero" for node in graph.node):
                self._errors.append(ParserError("In node 0 (NonZero): UNSUPPORTED_NODE"))
                return False
            kinds = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}

            def tensor(value: Any) -> ITensor:
                proto = value.type.tensor_type
                shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in proto.shape.dim]
                return ITensor(value.name, shape, kinds[proto.elem_type])

            network = self._network
            network._inputs = [tensor(value) for value in graph.input]
            network._outputs = [tensor(value) for value in graph.output]
            network._layers = [ILayer([ITensor(n, [1], "FLOAT") for n in node.output]) for node in graph.node]
            network._node_names = [node.name for node in graph.node]
            network._half_weights = sum(
                weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer
            )
            return True

    class IExecutionContext(Restricted):
        profiler: IProfiler | None = None

        def __init__(self, plan: dict[str, Any], *, has_profile: bool) -> None:
            self._plan, self._has_profile = plan, has_profile
            self._addresses: dict[str, int] = {}
            self._batch: int | None = None
            self._runs = 0

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            if self._has_profile:
                self._batch = shape[0]
            return self._has_profile

        def get_tensor_shape(self, name: str) -> Dims:
            (shape,) = [s for n, s, _ in self._plan["inputs"] + self._plan["outputs"] if n == name]
            return Dims([self._batch if size < 0 and self._batch else size for size in shape])

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return memory > 0

        def execute_async_v3(self, stream_handle: int) -> bool:
            names = {name for name, _, _ in self._plan["inputs"] + self._plan["outputs"]}
            if stream_handle == 0 or set(self._addresses) != names:
                return False
            self._runs += 1
            if self.profiler is not None:
                assert self.profiler._is_set_up
                for index in range(len(self._plan["layers"])):
                    self.profiler.report_layer_time(f"layer {index}", 0.1 * (index + 1) + 0.001 * self._runs)
            return True

    class EngineInspector(Restricted):
        def __init__(self, plan: dict[str, Any]) -> None:
            self._plan = plan

        def get_engine_information(self, format: Any) -> str:
            assert format is module.LayerInformationFormat.JSON
            layers = [
                {"Name": f"layer {index}", "Metadata": f"[ONNX Layer: {name}]"}
                for index, name in enumerate(self._plan["layers"])
            ]
            return json.dumps({"Layers": layers, "Bindings": []})

    class ICudaEngine(Restricted):
        def __init__(self, plan: dict[str, Any]) -> None:
            self._plan = plan
            self._tensors = {n: (s, k) for n, s, k in plan["inputs"] + plan["outputs"]}
            self._num_contexts = 0

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            is_input = name in [n for n, _, _ in self._plan["inputs"]]
            return module.TensorIOMode.INPUT if is_input else module.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> Dims:
            return Dims(self._tensors[name][0])

        def get_tensor_dtype(self, name: str) -> Any:
            return module.DataType[self._tensors[name][1]]

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self._plan)

        def create_execution_context(self) -> IExecutionContext | None:
            self._num_contexts += 1
            has_profile = self._num_contexts == 1 or self._plan["shares_profiles"]
            return IExecutionContext(self._plan, has_profile=has_profile)

    class Runtime(Restricted):
        def __init__(self, logger: ILogger) -> None:
            assert logger._is_set_up
            if fail_start:
                logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            try:
                plan = json.loads(bytes(serialized_engine))
            except ValueError:
                self._logger.log(
                    ILogger.Severity.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed"
                )
                return None
            return ICudaEngine(plan)

    fakes: list[Any] = [
        *(
            Builder,
            Dims,
            EngineInspector,
            IBuilderConfig,
            ICudaEngine,
            IExecutionContext,
            IHostMemory,
            ILayer,
            ILogger,
        ),
        *(
            INetworkDefinition,
            IOptimizationProfile,
            IProfiler,
            ITensor,
            ITimingCache,
            OnnxParser,
            ParserError,
        ),
        Runtime,
    ]
    for fake in fakes:
        fake._members = frozenset(api[fake.__name__])
        for name in [name for name in vars(fake) if not name.startswith("_")]:
            if name not in fake._members:
                delattr(fake, name)
        setattr(module, fake.__name__, fake)
    module._fakes = fakes
    return module
