"""Networks outside the search space: does a profile of this machine predict torchvision's classifiers?

    dsonas-hw profile --device local
    python -m benchmarks.profile_zoo [--json]

Predicts classifiers that the table of local has never timed, nor any relative of theirs; then times them, in
turns with the reference workload, and prints the errors next to those of a line in flops.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torchvision

from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.check import check_networks, summarise_check
from dsonas_hw.profile.model_probes import model_probe
from dsonas_hw.profile.open_bench import open_bench
from dsonas_hw.profile.profile_space import path_of
from dsonas_hw.table.table import load_table
from dsonas_hw.target import Target

NAMES = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "resnet18",
    "mnasnet0_5",
    "efficientnet_b0",
    "regnet_y_400mf",
    "googlenet",
    "densenet121",
)
OPTIONS = {"googlenet": {"init_weights": False}}


def export(names: Sequence[str], folder: Path, image_size: int) -> Iterator[Probe]:
    """The networks with random weights, as ONNX."""
    image = torch.zeros(1, 3, image_size, image_size)
    for name in names:
        torch.manual_seed(0)
        path = folder / f"{name}.onnx"
        network = torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {})).eval()
        torch.onnx.export(network, (image,), str(path), dynamo=False, opset_version=17)
        yield model_probe(path, runtime="ort-cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    table = load_table(path_of(Target(runtime="ort-cpu")))

    def progress(done: int, total: int, text: str) -> None:
        print(f"{done}/{total} {text}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        probes = list(export(NAMES, Path(folder), options.image_size))
        with open_bench(table.header.target) as bench:
            networks = check_networks(
                MeasuredCosts(table), bench, probes, with_isolated=False, progress=progress
            )
    row = summarise_check("torchvision", networks)
    if options.json:
        print(json.dumps({"check": row.to_json(), "networks": [
            {
                "model": name,
                "measured_ms": network.measured_ms,
                "predicted_ms": network.prediction.value,
                "predicted_ms_low": network.prediction.low,
                "predicted_ms_high": network.prediction.high,
                "baselines_ms": network.baselines_ms,
            }
            for name, network in zip(NAMES, networks, strict=True)
        ]}, indent=1))  # fmt: skip
        return
    for name, network in zip(NAMES, networks, strict=True):
        told = network.prediction
        print(
            f"{name:20} measured {network.measured_ms:8.3f} ms, predicted {told.value:8.3f} ms "
            f"({told.low:.3f} to {told.high:.3f}), {network.relative_error:+6.1%}"
        )
    largest = max(abs(network.relative_error) for network in networks)
    print(f"MAPE {row.error.mape:.1%}, largest {largest:.1%}; " + ", ".join(
        f"{name}: {error.mape:.1%}" for name, error in row.baselines.items()
    ))  # fmt: skip


if __name__ == "__main__":
    main()
