"""What every ingredient of the estimate brings: fitted again without it, tested on devices left out.

    python -m benchmarks.ablate_estimator --measurements DIR

Takes each ingredient away in turn, fits all constants again without each group of cards in `LEFT_OUT`, and
predicts their measurements as they come (zero-shot). Prints markdown: mean over tables of the MAPE in %. Half
an hour of one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks import estimator_priors as priors
from benchmarks.evaluate_estimator import CHIPS, fit_without, mape, model_of, tables
from benchmarks.fit_estimator import Measurements, fit_all, read_measurements
from benchmarks.ship_profiles import expand
from dsonas_hw.device.datasheet import Device
from dsonas_hw.estimate import kernel_time, machine

LEFT_OUT = {name: CHIPS[name] for name in ("GP102 (1080 Ti)", "V100", "T4", "TU102")}
GEMM = "deepbench_gemm"


@contextmanager
def fixed(**values: float) -> Iterator[None]:
    """Constants that are not fitted but have these values on every device."""
    with ExitStack() as stack:
        for constants in (priors.SHARED, priors.PER_ERA, priors.PER_GENERATION):
            stack.enter_context(patch.dict(constants))
            for name in values:
                constants.pop(name, None)  # type: ignore[attr-defined]
        stack.enter_context(patch.dict(priors.FIXED, values))
        yield


@contextmanager
def one_efficiency() -> Iterator[None]:
    """All traffic at one share of the bandwidth, all arithmetic at one share of the peak."""
    kinds = [name for name in priors.SHARED if name.startswith("bandwidth_")]
    matrix = ("few_channels", "pointwise", "strided", "unaligned", "tensor_unaligned", "grouped")
    with fixed(**dict.fromkeys((*kinds, *matrix), 1.0), thin=1e-6), patch.dict(priors.FIXED):
        del priors.FIXED["bandwidth"]
        with patch.dict(priors.SHARED, {"bandwidth": (0.75, 0.2)}):
            yield


@contextmanager
def no_generations() -> Iterator[None]:
    """One set of constants for all generations."""
    with ExitStack() as stack:
        for factors in (priors.PER_ERA, priors.PER_GENERATION, priors.FIXED_BY_GENERATION):
            stack.enter_context(patch.dict(factors, clear=True))
        yield


def no_tensor_cores() -> AbstractContextManager[object]:
    """Half precision and TF32 at the peak of the ordinary cores."""
    peak = Device.peak
    return patch.object(
        Device, "peak", lambda device, name: None if name.endswith("_tensor") else peak(device, name)
    )


ABLATIONS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "nothing": nullcontext,
    "tiles that do not fill (quantisation)": lambda: patch.object(kernel_time, "_ceil", lambda a, b: a / b),
    "SMs without a tile (waves)": lambda: patch.object(
        kernel_time, "_busy", lambda tiles, machine, c: np.ones_like(tiles)
    ),
    "cache-resident traffic": lambda: fixed(l2_cost=1.0),
    "launches on the host": lambda: patch.dict(priors.HOST_US, dict.fromkeys(priors.HOST_US, 1e-3)),
    "launches on the GPU": lambda: fixed(launch_us=1e-3),
    "efficiencies by kind and size": one_efficiency,
    "Winograd": lambda: fixed(winograd=1e-6, winograd_gemm=1e-6),
    "integer arithmetic of depthwise and pools": lambda: fixed(
        depthwise_base=1e-3, depthwise_per_tap=1e-3, pool_base=1e-3, pool_per_tap=1e-3
    ),
    "tensor cores": no_tensor_cores,
    "clock under load (boost clock instead)": lambda: patch.object(
        machine, "sustained_clock", lambda device, constants: 1.0
    ),
    "factors of generations": no_generations,
    "learned correction": nullcontext,
}


def mean_errors(measured: Measurements, rounds: int) -> dict[tuple[str, str], float]:
    """MAPE in % by what was left out and kind of observation: networks, convolutions, matrix products; mean
    over tables."""
    fit, _ = fit_all(measured, rounds=rounds, max_steps=10)
    slopes = fit.jacobian(fit.x)
    errors: dict[tuple[str, str], list[float]] = {}
    for left_out, devices in LEFT_OUT.items():
        constants = fit_without(fit, slopes, measured, lambda o, devices=devices: o.device in devices)  # type: ignore[misc]
        for table in tables(o for o in measured.networks if o.device in devices):
            model = model_of(table[0], constants)
            predicted = np.array([model.predict(expand(o)).value for o in table])
            is_product = table[0].source == GEMM
            kind = "networks" if table[0].is_network else "products" if is_product else "convolutions"
            error = mape(np.array([o.latency_ms for o in table]), predicted)
            errors.setdefault((left_out, kind), []).append(error)
    return {key: float(np.mean(values)) for key, values in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measurements", type=Path, required=True, help="directory of the CSV files")
    directory: Path = parser.parse_args().measurements
    measured = read_measurements(directory, num_shapes=100, num_timm=50, num_help=40)
    columns: list[tuple[str, str]] = []
    for name, ablation in ABLATIONS.items():
        print(f"without {name}", file=sys.stderr)
        with ablation():
            row = mean_errors(measured, rounds=0 if name == "learned correction" else 1)
        if not columns:
            columns = list(row)
            print("| without | " + " | ".join(f"{left_out}: {kind}" for left_out, kind in columns) + " |")
            print("|---" * (len(columns) + 1) + "|")
        print(f"| {name} | " + " | ".join(f"{row[column]:.1f}" for column in columns) + " |", flush=True)


if __name__ == "__main__":
    main()
