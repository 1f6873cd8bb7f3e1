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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.estimator_corrections import fit_trees
from benchmarks.estimator_model import Fit
from benchmarks.estimator_priors import FIXED, SHARED, SHARPNESS, generation_factors
from benchmarks.measurements import (
    Observation,
    read_deepbench,
    read_help,
    read_neusight,
    read_timm,
    read_tinynas,
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

#: Not measured: what ONNX Runtime and TensorRT spend on the host per kernel, in µs (orders of magnitude).
RUNTIME_HOST_US = {"ort-cuda": 8.0, "ort-tensorrt": 4.0, "tensorrt": 3.0}
#: Spreads of log(measured / estimated) on devices left out, chosen for 90 % coverage: docs/estimator.md.
RELATIVE_SD = {"kernel": 0.25, "device": 0.22, "host": 0.4}


def read_eager(
    directory: Path, *, num_shapes: int = 300, num_timm: int = 120, num_help: int = 60
) -> list[Observation]:
    """The observations of eager frameworks that the constants are fitted to."""
    observations = [*read_neusight(directory, num_shapes), *read_deepbench(directory)]
    observations += read_help(directory, "nasbench201", num_help, as_run_every=3)
    observations += read_help(directory, "fbnet", num_help)
    observations += read_help(directory, "ofa", num_help)
    observations += read_torchvision(directory)
    return observations + (list(read_timm(directory, num_timm)) if num_timm else [])


def fit_eager(
    observations: Sequence[Observation],
    singles: Sequence[Observation],
    *,
    near: EstimateConstants | None = None,
    max_steps: int = 20,
    rounds: int = 2,
) -> tuple[Fit, dict[str, Any]]:
    """Constants and corrections in turn: each is fitted to what the other leaves; `near` saves steps."""
    fit = Fit(observations)
    fit.run(max_steps, fit.start_near(near) if near else None)
    trees: dict[str, Any] = {}
    for _ in range(rounds):
        trees = {}
        for precision, num_trees in (("fp32", 80), ("fp16", 40)):
            fitted = fit_trees(
                fit, singles, runtime="eager", precision=precision, sort="matrix", num_trees=num_trees
            )
            if fitted is not None:
                trees[f"eager/{precision}"] = {"matrix": fitted}
        fit = Fit(observations, _parsed(trees)).run(max_steps, fit.x)
    return fit, trees


def fit_tensorrt(directory: Path, below: Fit, *, num_rows: int = 6000) -> tuple[Fit, dict[str, Any]]:
    """TensorRT's factors on the constants of `below`, and its corrections."""
    fit = Fit(list(read_tinynas(directory, 250, seed=1)), runtime_base=below).run(20)
    rows = list(read_tinynas(directory, num_rows))
    trees: dict[str, Any] = {}
    for precision in ("fp32", "fp16", "int8"):
        for sort, num_trees, num_leaves in (("matrix", 120, 10), ("depthwise", 60, 8)):
            fitted = fit_trees(
                fit,
                rows,
                runtime="tensorrt",
                precision=precision,
                sort=sort,
                num_trees=num_trees,
                num_leaves=num_leaves,
            )
            if fitted is not None:
                trees.setdefault(f"tensorrt/{precision}", {})[sort] = fitted
    return fit, trees


def _parsed(trees: Mapping[str, Any]) -> dict[str, Any]:
    return {key: {sort: parse_trees(t) for sort, t in by_sort.items()} for key, by_sort in trees.items()}


def constants_data(eager: Fit, tensorrt: Fit | None, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What `constants.json` holds."""
    groups = eager.groups(eager.x)
    shared = {name: start * groups[""][name] for name, (start, _) in SHARED.items()} | FIXED
    host = eager.host_us()
    return _rounded(
        {
            "schema_version": SCHEMA_VERSION,
            "provenance": provenance,
            "shared": shared,
            "by_generation": generation_factors(groups),
            "by_runtime": tensorrt.groups(tensorrt.x) if tensorrt else {},
            "host_us": {"eager": host}
            | {runtime: dict.fromkeys(host, us) for runtime, us in RUNTIME_HOST_US.items()},
            "sharpness": dict.fromkeys(("eager", *RUNTIME_HOST_US), SHARPNESS),
            "relative_sd": RELATIVE_SD,
        }
    )


def as_constants(eager: Fit, trees: Mapping[str, Any]) -> EstimateConstants:
    """The constants in memory, for an evaluation."""
    return parse_constants(constants_data(eager, None, {}) | {"corrections": trees})


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
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
            "(Apache-2.0), ryujaehun/pytorch-gpu-benchmark (MIT)"
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
    observations = read_eager(directory)
    singles = [*read_neusight(directory), *read_deepbench(directory)]
    print(f"fitting {len(observations)} observations of eager frameworks", file=sys.stderr)
    near = load_constants() if arguments.near else None
    eager, trees = fit_eager(observations, singles, near=near)
    print("fitting TensorRT", file=sys.stderr)
    tensorrt, tensorrt_trees = fit_tensorrt(directory, eager)
    data = constants_data(eager, tensorrt, _provenance(directory, len(observations)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "constants.json").write_text(json.dumps(data, indent=1) + "\n")
    text = json.dumps(trees | tensorrt_trees, separators=(",", ":")).replace("]],[[", "]],\n[[")
    (arguments.output / "corrections.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
