"""Networks outside the search space: does a profile of this machine predict torchvision's classifiers?

    python -m benchmarks.profile_zoo [--json]

Adds some networks to the table of local (made before with `dsonas-hw profile --device local`) and predicts
others, relatives that were not timed; then times them too, in turns with the yardstick, and prints the errors
next to a line in flops and the sum of kernels timed alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torchvision
from torch import nn

from dsonas_hw.architecture.profiling import path_of
from dsonas_hw.profile.check import check_networks, summarise_check
from dsonas_hw.profile.measured import MeasuredLatency
from dsonas_hw.profile.model_probes import model_probe
from dsonas_hw.profile.probe import Probe
from dsonas_hw.profile.profiler import MeasuringConditions, local_header, profile_networks

Build = Callable[[], nn.Module]


def _named(name: str) -> tuple[str, Build]:
    return name, lambda: torchvision.models.get_model(name, weights=None)


TIMED: Mapping[str, Build] = dict(
    [
        ("mobilenet_v2_1.4", lambda: torchvision.models.mobilenet_v2(weights=None, width_mult=1.4)),
        ("mobilenet_v3_large_0.75", lambda: torchvision.models.mobilenet_v3_large(width_mult=0.75)),
        ("mobilenet_v2_0.5", lambda: torchvision.models.mobilenet_v2(weights=None, width_mult=0.5)),
        *map(
            _named,
            (
                "mobilenet_v3_small",
                "shufflenet_v2_x1_0",
                "squeezenet1_0",
                "resnet34",
                "mnasnet1_0",
                "efficientnet_b1",
            ),
        ),
    ]
)
PREDICTED: Mapping[str, Build] = dict(
    map(
        _named,
        (
            "mobilenet_v2",
            "mobilenet_v3_large",
            "shufflenet_v2_x0_5",
            "squeezenet1_1",
            "resnet18",
            "mnasnet0_5",
            "efficientnet_b0",
        ),
    )
)


def export(builds: Mapping[str, Build], folder: Path, image_size: int) -> Iterator[tuple[str, Probe]]:
    """(name, probe) of every network, as ONNX."""
    image = torch.zeros(1, 3, image_size, image_size)
    for name, build in builds.items():
        torch.manual_seed(0)
        path = folder / f"{name}.onnx"
        torch.onnx.export(build().eval(), (image,), str(path), dynamo=False, opset_version=17)
        yield name, model_probe(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    conditions = MeasuringConditions()
    with tempfile.TemporaryDirectory() as folder:
        timed = [probe for _, probe in export(TIMED, Path(folder), options.image_size)]
        predicted = list(export(PREDICTED, Path(folder), options.image_size))

        def progress(done: int, total: int, text: str) -> None:
            print(f"{done}/{total} {text}", file=sys.stderr)

        table = profile_networks(path_of(conditions), local_header(conditions), timed, progress=progress)
        networks = check_networks(
            MeasuredLatency(table), [probe for _, probe in predicted], progress=progress
        )
    row = summarise_check("torchvision", networks)
    if options.json:
        print(json.dumps({"check": row.to_json(), "networks": [
            {
                "model": name,
                "measured_ms": network.measured_ms,
                "predicted_ms": network.prediction.latency_ms,
                "baselines_ms": network.baselines_ms,
            }
            for (name, _), network in zip(predicted, networks, strict=True)
        ]}, indent=1))  # fmt: skip
        return
    for (name, _), network in zip(predicted, networks, strict=True):
        print(
            f"{name:22} measured {network.measured_ms:8.3f} ms, "
            f"predicted {network.prediction.latency_ms:8.3f} ms, {network.relative_error:+6.1%}"
        )
    print(f"MAPE {row.error.mape:.1%}; " + ", ".join(
        f"{name}: {error.mape:.1%}" for name, error in row.baselines.items()
    ))  # fmt: skip


if __name__ == "__main__":
    main()
