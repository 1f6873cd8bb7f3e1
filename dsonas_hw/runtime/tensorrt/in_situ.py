"""Timing every layer of an engine where it runs, with TensorRT's own profiler.

`IProfiler` says what each layer took; the engine inspector, of an engine that was built with detailed
information (`build`), which nodes of the ONNX model are in it:

    {"Layers": [{"Name": "conv1 + relu1", "Metadata": "[ONNX Layer: conv1]\\x1f[ONNX Layer: relu1]", …}, …]}
"""

# mypy: allow-subclassing-any
# (a base class of TensorRT is `Any` where its type stubs are not installed)

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.attribution import LayerTime, schedule_of, tensors_of_nodes, time_kernels
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.runtime.model import onnx_graph
from dsonas_hw.runtime.tensorrt.session import TensorRTSession
from dsonas_hw.target import Target

ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
BETWEEN_NAMES = re.compile(r" \+ | \|\| | to |\.\.\.|[,()\[\]{}] ?")
"""In the name of a layer: fused, side by side, copied for, from the first to the last, wrapped."""


class TensorRTProfiledSession:
    """An engine whose layers are timed; they wait for each other, so that their sum is more than the latency.

    It gets an execution context of its own: the session's timings stay undisturbed.
    """

    def __init__(self, model: bytes, target: Target, plain: TensorRTSession) -> None:
        import tensorrt as trt

        if plain.engine is None:
            raise DeviceError("the session is closed")
        self._graph = onnx_graph(model)
        self._schedule = schedule_of(model, target, fuse=True)
        self._layers = layers_of(plain.engine)
        self._observed = TensorRTSession(plain.engine, plain.info, plain.cuda)
        self._runs: list[dict[str, float]] = []
        runs = self._runs

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                runs[-1][layer_name] = runs[-1].get(layer_name, 0.0) + float(ms)

        assert self._observed.context is not None
        self._observed.context.profiler = Profiler()

    def run(self) -> object:
        self._runs.append({})
        result = self._observed.run()
        self._observed.synchronize()
        return result

    def finish(self, turns: Sequence[Turn], speeds: Sequence[float] = ()) -> NetworkTiming:
        self._observed.close()
        num_samples = sum(turn.num_samples for turn in turns)
        times_ms = layer_times_ms(self._runs[-num_samples:])
        tensors = tensors_of_nodes(self._graph)
        layers = [
            LayerTime(
                name=name,
                tensors=tuple(
                    tensor
                    for node in nodes_of(self._layers.get(name, {"Name": name}), tensors)
                    for tensor in tensors[node]
                ),
                latency_ms=time_ms,
            )
            for name, time_ms in times_ms.items()
        ]
        return time_kernels(layers, self._graph, self._schedule)


def layers_of(engine: Any) -> dict[str, Mapping[str, Any]]:
    """Name → what the inspector says about a layer.

    Raises:
        ProfileError: it says nothing that is understood.
    """
    import tensorrt as trt

    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
        # An engine that was built without detailed information has only names.
        return {
            layer["Name"]: layer
            for layer in ({"Name": entry} if isinstance(entry, str) else entry for entry in layers)
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ProfileError(
            f"TensorRT's inspector says something that is not understood ({error!r}); "
            "please report the version of tensorrt"
        ) from error


def layer_times_ms(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Name → the median over inferences.

    Raises:
        ProfileError: an inference without a layer that others have.
    """
    counts = Counter(name for run in runs for name in run)
    incomplete = [name for name, count in counts.items() if count != len(runs)]
    if not counts or incomplete:
        what = f"layer {incomplete[0]!r} is not in each of" if incomplete else "there is no layer in any of"
        raise ProfileError(f"TensorRT's profile is not complete: {what} {len(runs)} inferences")
    return {name: median(run[name] for run in runs) for name in counts}


def nodes_of(layer: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """The nodes of the ONNX model in a layer: those of its metadata, else those that its name is made of."""
    found = ONNX_LAYER.findall(layer.get("Metadata") or "") or BETWEEN_NAMES.split(layer["Name"])
    return [name for name in dict.fromkeys(found) if name in known]
