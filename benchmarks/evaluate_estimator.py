"""How far the estimate of absent GPUs can be trusted: cards, sources and architectures left out of the fit.

    python -m benchmarks.evaluate_estimator --measurements DIR

Fits again without every group in turn and predicts what was left out: as it comes (zero-shot); with the speed
of the host, of the card, or of both taken from the table itself, which says what stands between; and after
calibrating with 3, 5, 10 and 20 of its networks, beside a plain scale factor from the same ones. Writes
JSON. Takes some minutes of one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.estimator_baselines import BASELINES
from benchmarks.estimator_model import Fit
from benchmarks.fit_estimator import (
    Measurements,
    as_constants,
    fit_corrections,
    parse_corrections,
    read_measurements,
    round_numbers,
)
from benchmarks.measurements import Observation
from benchmarks.ship_profiles import as_networks, expand
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.calibrate import Calibration, calibrate
from dsonas_hw.estimate.calibrate_fit import combined
from dsonas_hw.estimate.calibrated import CalibratedLatency
from dsonas_hw.estimate.constants import EstimateConstants, constants_hash, load_constants
from dsonas_hw.estimate.estimate import EstimatedLatency, load_estimate
from dsonas_hw.target import Target

RESULTS = Path(__file__).parent.parent / "docs" / "estimator.json"

#: One chip each, so that no twin stays in the fit.
CHIPS = {
    "GM200": ("titan-x-maxwell", "m40"),
    "M60": ("m60",),
    "GP102 (1080 Ti)": ("1080ti",),
    "GP104": ("gtx1080", "p4"),
    "GP100": ("p100", "p100-sxm2"),
    "V100": ("v100", "v100-pcie"),
    "T4": ("t4",),
    "TU102": ("2080ti", "titan-rtx"),
    "RTX 3090": ("rtx3090",),
    "RTX 4090": ("rtx4090",),
    "Jetson Nano": ("jetson-nano",),
    "Jetson TX2": ("jetson-tx2",),
}
#: Sources of networks in the runtimes that are estimated, of more than one family.
SOURCES = (
    "nasbench201", "fbnet", "ofa", "torchvision", "timm", "paddleclas", "super_gradients",
    "nvidia_deeplearningexamples",
)  # fmt: skip
NUM_CALIBRATION = (3, 5, 10, 20)
NUM_DRAWS = 5
NUM_FOLDS = 5

Array = NDArray[np.float64]


def model_of(o: Observation, constants: EstimateConstants) -> EstimatedLatency:
    target = Target(device=o.device, runtime=o.runtime, precision=o.precision, batch_size=o.batch_size)
    return load_estimate(target, constants=constants)


def mape(measured: Array, predicted: Array) -> float:
    """Mean absolute relative error in %."""
    return 100 * float(np.mean(np.abs(predicted / measured - 1)))


def rank(measured: Array, predicted: Array) -> float | None:
    """Spearman's correlation; None where it says nothing."""
    if len(measured) < 5 or np.ptp(predicted) == 0:
        return None
    return float(spearmanr(predicted, measured)[0])


def with_known(model: EstimatedLatency, gpu: Array, host: Array, measured: Array) -> dict[str, float]:
    """MAPE in % where the factor of the host, of the card, or of both is the table's own."""
    steps = np.exp(np.linspace(-1.2, 1.2, 49))
    gpu_ms, host_ms = gpu * steps[:, None, None], host * steps[None, :, None]
    error = 100 * np.abs(combined(gpu_ms, host_ms, model.sharpness) / measured - 1).mean(axis=2)
    middle = len(steps) // 2
    return {
        "host known": float(error[middle].min()),
        "card known": float(error[:, middle].min()),
        "both known": float(error.min()),
    }


def score_table(
    kind: str,
    left_out: str,
    observations: Sequence[Observation],
    constants: EstimateConstants,
    training: Sequence[Observation],
) -> dict[str, Any]:
    """Everything about one table of what was left out."""
    first = observations[0]
    model = model_of(first, constants)
    kernels = [expand(o) for o in observations]
    measured = np.array([o.latency_ms for o in observations])
    predictions = [model.predict(k) for k in kernels]
    predicted = np.array([p.value for p in predictions])
    found: dict[str, Any] = {
        "kind": kind,
        "left out": left_out,
        "source": first.source,
        "host": first.host,
        "device": first.device,
        "runtime": first.runtime,
        "precision": first.precision,
        "batch": first.batch_size if first.is_network else None,
        "n": len(observations),
        "zero-shot": mape(measured, predicted),
        "rank": rank(measured, predicted),
        "inside": 100
        * float(np.mean([p.low <= y <= p.high for p, y in zip(predictions, measured, strict=True)])),
    }
    if first.is_network and kind != "architectures":
        totals = np.array([model.totals(k)[:2] for k in kernels])
        found |= with_known(model, totals[:, 0], totals[:, 1], measured)
        if kind == "card" and len({o.network for o in observations}) >= 30:
            found |= calibrated_errors(model, observations, constants)
    if kind == "card":
        found |= {name: mape(measured, line(training, observations)) for name, line in BASELINES.items()}
    return found


def calibrated_errors(
    model: EstimatedLatency,
    observations: Sequence[Observation],
    constants: EstimateConstants,
    draws: int = NUM_DRAWS,
) -> dict[str, float]:
    """MAPE in % on the networks that were not drawn, mean over draws: calibrated, and by one factor."""
    # A user's rows name no family and count alike.
    networks = [dataclasses.replace(n, family="", importance=1.0) for n in as_networks(observations)]
    measured = np.array([n.latency_ms for n in networks])
    estimated = np.array([model.predict(n.kernels).value for n in networks])
    found: dict[str, list[float]] = {}
    for count in NUM_CALIBRATION:
        for seed in range(draws):
            chosen = random.Random(seed).sample(range(len(networks)), count)
            rest = np.array([i for i in range(len(networks)) if i not in chosen])
            try:
                calibration = calibrate(model, [networks[i] for i in chosen])
            except ProfileError:  # refused: the user is told to measure again
                continue
            scale = float(np.exp(np.median(np.log(measured[chosen] / estimated[chosen]))))
            found.setdefault(f"scale {count}", []).append(mape(measured[rest], scale * estimated[rest]))
            after = predict_calibrated(calibration, [networks[i].kernels for i in rest], constants)
            found.setdefault(f"after {count}", []).append(mape(measured[rest], after[:, 0]))
            inside = (after[:, 1] <= measured[rest]) & (measured[rest] <= after[:, 2])
            found.setdefault(f"inside {count}", []).append(100 * float(np.mean(inside)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def predict_calibrated(
    calibration: Calibration, networks: Sequence[Sequence[Any]], constants: EstimateConstants
) -> Array:
    """Latency, low and high end of its interval in ms, shape (networks, 3)."""
    models: dict[int, CalibratedLatency] = {}
    rows = []
    for kernels in networks:
        batch_size = kernels[0].batch_size
        if batch_size not in models:
            models[batch_size] = CalibratedLatency(
                load_device(calibration.device),
                batch_size=batch_size,
                calibration=calibration,
                constants=constants,
            )
        p = models[batch_size].predict(kernels)
        rows.append((p.value, p.low, p.high))
    return np.array(rows)


def tables(observations: Iterable[Observation]) -> list[list[Observation]]:
    """Observations by source, host, card, precision and, for networks, batch size (timm's together)."""
    found: dict[Any, list[Observation]] = {}
    for o in observations:
        batch = o.batch_size if o.is_network and o.source != "timm" else 0
        found.setdefault((o.source, o.host or "", o.device, o.runtime, o.precision, batch), []).append(o)
    return [found[key] for key in sorted(found)]


def fold_of(network: str) -> int:
    """A fifth of the architectures, whatever the card."""
    return zlib.crc32(network.encode()) % NUM_FOLDS


def left_out_groups(measured: Measurements) -> list[tuple[str, str, Callable[[Observation], bool]]]:
    """(kind, name, what is left out) of every fit."""
    groups: list[tuple[str, str, Callable[[Observation], bool]]] = [
        ("card", name, lambda o, devices=devices: o.device in devices)  # type: ignore[misc]
        for name, devices in CHIPS.items()
    ]
    groups += [
        ("source", source, lambda o, source=source: o.source == source)  # type: ignore[misc]
        for source in SOURCES
    ]
    groups.append(("architectures", "a fifth", lambda o: fold_of(o.network) == 0))
    return groups


def fit_without(
    fit: Fit, slopes: Array, measured: Measurements, left: Callable[[Observation], bool]
) -> EstimateConstants:
    """Constants of what is kept; corrections that saw nothing of what is left out stay, as none do."""
    out = [left(o) for o in measured.networks]
    kept = fit.without(out, slopes)
    if not fit.corrections or not any(map(left, measured.singles)):
        return dataclasses.replace(as_constants(kept, {}), corrections=fit.corrections)
    trees = fit_corrections(kept, [o for o in measured.singles if not left(o)])
    return as_constants(kept.without(out, slopes, parse_corrections(trees)), trees)


def evaluate(
    measured: Measurements, near: EstimateConstants, only: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Results of every table that is left out with its group."""
    print("fitting all", file=sys.stderr, flush=True)
    fit = Fit(measured.networks, near.corrections)
    fit.run(6, fit.start_near(near))
    slopes = fit.jacobian(fit.x)
    results = []
    for kind, name, left in left_out_groups(measured):
        if only and name not in only and kind not in only:
            continue
        print(f"without {name}", file=sys.stderr, flush=True)
        constants = fit_without(fit, slopes, measured, left)
        training = [o for o in measured.networks if not left(o)]
        for table in tables(o for o in measured.networks if left(o)):
            results.append(score_table(kind, name, table, constants, training))
            row = results[-1]
            print(
                f"  {row['source']} {row['device']} {row['runtime']} {row['precision']} {row['batch']}: "
                f"{row['zero-shot']:.1f} % of {row['n']}, {row['inside']:.0f} % inside",
                file=sys.stderr,
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measurements", type=Path, required=True, help="directory of the CSV files")
    parser.add_argument("--only", nargs="*", help="leave out only these (kinds, or names of groups)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    measured = read_measurements(arguments.measurements, num_shapes=100, num_timm=50, num_help=40)
    results = evaluate(measured, load_constants(), arguments.only)
    data = {"constants": constants_hash(), "tables": round_numbers(results)}
    arguments.output.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
