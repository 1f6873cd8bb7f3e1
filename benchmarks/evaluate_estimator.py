"""How far the estimate of absent GPUs can be trusted: devices, generations and tables left out of the fit.

    python -m benchmarks.evaluate_estimator --measurements DIR

Fits again without every group of devices in turn and predicts what was left out: as it comes (zero-shot) and
after calibrating with 10 networks. Next to it, from the same observations: a plain roofline, a line in FLOPs
and the training median. Prints markdown; takes about an hour of one core.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.estimator_baselines import BASELINES
from benchmarks.fit_estimator import as_constants, fit_eager, read_eager
from benchmarks.measurements import Observation, read_deepbench, read_help, read_neusight
from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.calibrate import calibrate
from dsonas_hw.estimate.calibrate_check import MeasuredNetwork
from dsonas_hw.estimate.calibrated import CalibratedLatency
from dsonas_hw.estimate.constants import EstimateConstants
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.kernel.spec import Kernel

#: One chip each, so that no twin stays in the fit.
CHIPS = {
    "GM200": ("titan-x-maxwell", "m40"),
    "GP100": ("p100", "p100-sxm2"),
    "P4": ("p4",),
    "V100": ("v100", "v100-pcie"),
    "T4": ("t4",),
    "2080 Ti": ("2080ti",),
    "TITAN RTX": ("titan-rtx",),
    "RTX 3090": ("rtx3090",),
    "RTX 4090": ("rtx4090",),
}
GENERATIONS = {"Pascal": ("p100", "p100-sxm2", "p4"), "Turing": ("t4", "2080ti", "titan-rtx")}
NUM_CALIBRATION = 10


class Scores:
    """Errors of one way of predicting one table."""

    def __init__(self, measured: Sequence[float], predicted: Sequence[float]) -> None:
        y, p = np.array(measured), np.array(predicted)
        self.mape = 100 * float(np.mean(np.abs(p / y - 1)))
        self.rank = float(spearmanr(p, y)[0]) if len(y) > 2 and np.ptp(p) > 0 else float("nan")


def expand(observation: Observation) -> tuple[Kernel, ...]:
    """The kernels one by one; their order does not matter to the estimate."""
    return tuple(kernel for kernel, count in observation.kernels.items() for _ in range(count))


def model_of(o: Observation, constants: EstimateConstants) -> EstimatedLatency:
    return EstimatedLatency(
        load_device(o.device),
        runtime=o.runtime,
        precision=o.precision,
        batch_size=o.batch_size,
        constants=constants,
    )


def score_table(
    left_out: str,
    observations: Sequence[Observation],
    constants: EstimateConstants,
    training: Sequence[Observation],
) -> str:
    """One line of the report: everything about one table of what was left out."""
    first = observations[0]
    model = model_of(first, constants)
    kernels = [expand(o) for o in observations]
    measured = [o.latency_ms for o in observations]
    predictions = [model.predict(k) for k in kernels]
    zero = Scores(measured, [p.latency_ms for p in predictions])
    inside = [p.latency_ms_low <= y <= p.latency_ms_high for p, y in zip(predictions, measured, strict=True)]
    cells = [
        left_out,
        " ".join(str(part) for part in first.table if part) + _run_of(first),
        str(len(observations)),
        f"**{zero.mape:.1f}**",
        f"{zero.rank:.3f}",
        f"{100 * np.mean(inside):.0f} %",
    ]
    if first.is_network and len(observations) >= 3 * NUM_CALIBRATION:
        after, rank, covered = _calibrated(model, observations, kernels, constants)
        cells += [f"**{after:.1f}**", f"{rank:.3f}", f"{100 * covered:.0f} %"]
    else:
        cells += ["–"] * 3
    for baseline in BASELINES.values():
        score = Scores(measured, baseline(training, observations))
        cells.append(f"{score.mape:.0f}" if not first.is_network else f"{score.mape:.0f} ({score.rank:.2f})")
    return "| " + " | ".join(cells) + " |"


def _run_of(observation: Observation) -> str:
    """Which of several people's runs of the torchvision benchmark a table is."""
    run = (observation.host or "").rpartition("/")[2].rpartition(":")[2]
    return f" ({run})" if observation.source == "torchvision" else ""


def _calibrated(
    model: EstimatedLatency,
    observations: Sequence[Observation],
    kernels: Sequence[tuple[Kernel, ...]],
    constants: EstimateConstants,
    num_draws: int = 5,
) -> tuple[float, float, float]:
    """MAPE, rank correlation and coverage on networks that were not among the 10, mean over draws."""
    results = []
    for seed in range(num_draws):
        chosen = random.Random(seed).sample(range(len(observations)), NUM_CALIBRATION)
        rest = [i for i in range(len(observations)) if i not in chosen]
        networks = [
            MeasuredNetwork(
                name=observations[i].network,
                kernels=kernels[i],
                batch_size=observations[i].batch_size,
                latency_ms=observations[i].latency_ms,
            )
            for i in chosen
        ]
        calibration = calibrate(model, networks)
        fitted = {
            batch_size: CalibratedLatency(
                load_device(model.device), batch_size=batch_size, calibration=calibration, constants=constants
            )
            for batch_size in {o.batch_size for o in observations}
        }
        predictions = [fitted[observations[i].batch_size].predict(kernels[i]) for i in rest]
        measured = [observations[i].latency_ms for i in rest]
        score = Scores(measured, [p.latency_ms for p in predictions])
        inside = [
            p.latency_ms_low <= y <= p.latency_ms_high for p, y in zip(predictions, measured, strict=True)
        ]
        results.append((score.mape, score.rank, float(np.mean(inside))))
    mape, rank, covered = np.mean(results, axis=0)
    return float(mape), float(rank), float(covered)


HEADER = (
    "| left out | table: source, device, precision, batch | n | zero-shot MAPE % | Spearman | in interval | "
    "after 10, MAPE % | Spearman | in interval | "
    + " | ".join(f"{name}, MAPE %" for name in BASELINES)
    + " |\n|"
    + "---|" * (9 + len(BASELINES))
)


def tables(observations: Iterable[Observation]) -> dict[Any, list[Observation]]:
    """Observations by table; timm's batch sizes together, torchvision's by who measured them."""
    found: dict[Any, list[Observation]] = {}
    for o in observations:
        key: tuple[object, ...] = o.table[:3] if o.source == "timm" else o.table
        if o.source == "torchvision":
            key = (*key, o.host)
        found.setdefault(key, []).append(o)
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measurements", type=Path, required=True, help="directory of the CSV files")
    parser.add_argument(
        "--only", nargs="*", help="leave out only these (names of chips, generations, tables)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="no rows of timm, 80 networks a table: minutes, and no timm needed",
    )
    arguments = parser.parse_args()
    directory: Path = arguments.measurements
    num_timm, num_networks = (0, 80) if arguments.quick else (50, 150)
    observations = read_eager(directory, num_shapes=150, num_timm=num_timm, num_help=40)
    singles = [*read_neusight(directory), *read_deepbench(directory)]
    tested = [o for o in observations if o.source not in ("nasbench201", "fbnet", "ofa")]
    for space in ("nasbench201", "fbnet", "ofa"):
        tested += read_help(directory, space, num_networks, seed=1)

    def report(name: str, left: Callable[[Observation], bool]) -> None:
        kept = [o for o in observations if not left(o)]
        print(f"fitting without {name}", file=sys.stderr)
        fit, trees = fit_eager(kept, [o for o in singles if not left(o)], rounds=1, max_steps=15)
        constants = as_constants(fit, trees)
        for table in tables(o for o in tested if left(o)).values():
            print(score_table(name, table, constants, kept), flush=True)

    print(HEADER)
    sources = sorted({o.source for o in observations})
    for name, devices in (CHIPS | GENERATIONS).items():
        if not arguments.only or name in arguments.only:
            report(name, lambda o, devices=devices: o.device in devices)
    for source in sources:
        if not arguments.only or source in arguments.only:
            report(source, lambda o, source=source: o.source == source)


if __name__ == "__main__":
    main()
