"""Fit the estimate of absent GPUs to third-party measurements and write its constants.

    python -m benchmarks.fit_estimator --measurements DIR

needs `timm` (for the shapes of its networks) besides the development dependencies, and minutes. Nothing but
the CSV files of DIR is used. docs/estimator.md explains the model and reports the errors.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.estimator_corrections import fit_trees
from benchmarks.estimator_model import Fit
from benchmarks.estimator_priors import FIXED, JETSON_HOST, SHARED, SHARPNESS, generation_factors
from benchmarks.measurements import (
    Observation,
    read_deepbench,
    read_help,
    read_neusight,
    read_others,
    read_timm,
    read_tinynas,
    read_torch7,
    read_torchvision,
)
from dsonas_hw.estimate.constants import (
    SCHEMA_VERSION,
    EstimateConstants,
    load_constants,
    parse_constants,
)
from dsonas_hw.estimate.kernel_correction import parse_trees

ESTIMATE = Path(__file__).parent.parent / "dsonas_hw" / "estimate"

#: Not measured: what ONNX Runtime spends on the host per kernel, in µs (order of magnitude).
ORT_CUDA_HOST_US = 9.0
#: Standard deviations of log(measured / estimated) on devices left out, chosen for 90 % coverage:
#: docs/estimator.md.
RELATIVE_SD = {"kernel": 0.25, "device": 0.24, "host": 0.42, "fused": 0.27, "jetson": 0.35, "int8": 0.25}


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What the constants are fitted to."""

    networks: Sequence[Observation]
    """Whole networks, and a sample of single kernels."""
    singles: Sequence[Observation]
    """Single kernels in an eager framework and in TensorRT, which the corrections are fitted to."""

    def without(self, left_out: Callable[[Observation], bool]) -> Measurements:
        return Measurements(
            networks=[o for o in self.networks if not left_out(o)],
            singles=[o for o in self.singles if not left_out(o)],
        )


def is_of_old_library(o: Observation) -> bool:
    """PaddleClas' half precision on a T4 is of TensorRT 5.1 and takes twice what it takes today."""
    return (o.source, o.device, o.precision) == ("paddleclas", "t4", "fp16")


def read_measurements(
    directory: Path, *, num_shapes: int = 300, num_timm: int = 120, num_help: int = 60
) -> Measurements:
    """All sources; `num_shapes` convolutions of NeuSight, `num_timm` models, `num_help` networks a space."""
    networks = [*read_neusight(directory, num_shapes), *read_deepbench(directory)]
    networks += read_tinynas(directory, 150, seed=1)
    networks += read_help(directory, "nasbench201", num_help, as_run_every=3)
    networks += read_help(directory, "fbnet", num_help)
    networks += read_help(directory, "ofa", num_help)
    networks += [*read_torchvision(directory), *read_torch7(directory), *read_others(directory)]
    networks += read_timm(directory, num_timm)
    networks = [o for o in networks if not is_of_old_library(o)]
    singles = [*read_neusight(directory), *read_deepbench(directory), *read_tinynas(directory, 6000)]
    return Measurements(networks=networks, singles=singles)


def fit_all(
    measured: Measurements,
    *,
    near: EstimateConstants | None = None,
    max_steps: int = 12,
    rounds: int = 1,
) -> tuple[Fit, dict[str, Any]]:
    """Constants and corrections in turn: each is fitted to what the other leaves; `near` saves steps."""
    fit = Fit(measured.networks)
    fit.run(max_steps, fit.start_near(near) if near else None)
    trees: dict[str, Any] = {}
    for _ in range(rounds):
        trees = fit_corrections(fit, measured.singles)
        fit = Fit(measured.networks, parse_corrections(trees)).run(max_steps, fit.x)
    return fit, trees


#: (runtime, precision, category of kernel, number of trees, leaves of each).
CORRECTIONS = (
    ("eager", "fp32", "matrix", 80, 8),
    ("eager", "fp16", "matrix", 40, 8),
    *(("tensorrt", precision, "matrix", 120, 10) for precision in ("fp32", "fp16", "int8")),
    *(("tensorrt", precision, "depthwise", 60, 8) for precision in ("fp32", "fp16", "int8")),
)


def fit_corrections(fit: Fit, singles: Sequence[Observation]) -> dict[str, Any]:
    """Trees of every runtime, precision and category of kernel that was measured alone."""
    trees: dict[str, Any] = {}
    for runtime, precision, category, num_trees, num_leaves in CORRECTIONS:
        fitted = fit_trees(
            fit,
            singles,
            runtime=runtime,
            precision=precision,
            category=category,
            num_trees=num_trees,
            num_leaves=num_leaves,
        )
        if fitted is not None:
            trees.setdefault(f"{runtime}/{precision}", {})[category] = fitted
    return trees


def parse_corrections(trees: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {category: parse_trees(t) for category, t in by_category.items()}
        for key, by_category in trees.items()
    }


def constants_data(fit: Fit, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What `constants.json` holds."""
    groups = fit.groups(fit.x)
    shared = {name: start * groups[""][name] for name, (start, _) in SHARED.items()} | FIXED
    host = fit.host_us()
    in_tensorrt = host.pop("tensorrt")
    return round_numbers(
        {
            "schema_version": SCHEMA_VERSION,
            "provenance": provenance,
            "shared": shared,
            "by_generation": generation_factors(groups),
            "by_runtime": {key: factors for key, factors in groups.items() if "/" in key},
            "host_us": {
                "eager": host,
                "ort-cuda": dict.fromkeys(host, ORT_CUDA_HOST_US),
                "ort-tensorrt": dict.fromkeys(host, in_tensorrt),
                "tensorrt": dict.fromkeys(host, in_tensorrt),
            },
            "generation_host": fit.generation_host(),
            "jetson_host": JETSON_HOST,
            "sharpness": dict.fromkeys(("eager", "ort-cuda", "ort-tensorrt", "tensorrt"), SHARPNESS),
            "relative_sd": RELATIVE_SD,
        }
    )


def as_constants(fit: Fit, trees: Mapping[str, Any]) -> EstimateConstants:
    """The constants in memory, for an evaluation."""
    return parse_constants(constants_data(fit, {}) | {"corrections": trees})


def round_numbers(value: Any) -> Any:
    """The same with four significant digits."""
    if isinstance(value, Mapping):
        return {key: round_numbers(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(round_numbers, value))
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _provenance(directory: Path, num_observations: int) -> dict[str, Any]:
    files = sorted(directory.glob("*.csv*"))
    return {
        "command": "python -m benchmarks.fit_estimator --measurements DIR",
        "date": datetime.date.today().isoformat(),
        "num_observations": num_observations,
        "measurements": {f.name: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files},
        "sources": (
            "HayeonLee/HELP (MIT), baidu-research/DeepBench (Apache-2.0), sitar-lab/NeuSight (MIT), "
            "alibaba/lightweight-neural-architecture-search (Apache-2.0), huggingface/pytorch-image-models "
            "(Apache-2.0), ryujaehun/pytorch-gpu-benchmark (MIT), jcjohnson/cnn-benchmarks (MIT), "
            "PaddlePaddle/PaddleClas (Apache-2.0), NVIDIA/DeepLearningExamples (Apache-2.0, BSD-3), "
            "apache/mxnet (Apache-2.0), NVIDIA-AI-IOT/torch2trt (MIT), NVIDIA-AI-IOT/"
            "tf_to_trt_image_classification (BSD-3), open-mmlab/mmdeploy (Apache-2.0), "
            "Deci-AI/super-gradients (Apache-2.0), PaddlePaddle/PaddleSlim (Apache-2.0), clovaai/rexnet (MIT)"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measurements", type=Path, required=True, help="directory of the CSV files")
    parser.add_argument("--output", type=Path, default=ESTIMATE, help="directory to write the two files to")
    parser.add_argument(
        "--near", action="store_true", help="start at the constants that are shipped: saves half of the time"
    )
    arguments = parser.parse_args()
    directory: Path = arguments.measurements
    print("reading measurements and tracing networks", file=sys.stderr)
    measured = read_measurements(directory)
    print(f"fitting {len(measured.networks)} observations", file=sys.stderr)
    fit, trees = fit_all(measured, near=load_constants() if arguments.near else None)
    data = constants_data(fit, _provenance(directory, len(measured.networks)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "constants.json").write_text(json.dumps(data, indent=1) + "\n")
    text = json.dumps(trees, separators=(",", ":")).replace("]],[[", "]],\n[[")
    (arguments.output / "corrections.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
