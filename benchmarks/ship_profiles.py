"""Write the calibrations that ship: `profiles/<device>/<runtime>-<precision>.calibration.json`.

    python -m benchmarks.ship_profiles --measurements DIR

One for every (device, runtime, precision) of which whole networks were measured by others: all usable rows of
the card, through the same code as `dsonas-hw calibrate`. Takes minutes, and timm for its shapes.
Run it after `benchmarks.fit_estimator`: a calibration belongs to the constants it was fitted on.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.fit_estimator import is_of_old_library, round_numbers
from benchmarks.measurements import Observation, read_help, read_others, read_timm, read_torchvision
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.calibrate import MIN_ROWS, Calibration, calibrate
from dsonas_hw.estimate.calibrate_check import MeasuredNetwork
from dsonas_hw.estimate.calibrated import calibration_path, save_calibration
from dsonas_hw.estimate.constants import EstimateConstants, load_constants
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.target import Target

PROFILES = Path(__file__).parent.parent / "profiles"

#: Source of an observation → who published it, under which licence.
PUBLISHERS = {
    "nasbench201": "HayeonLee/HELP (MIT)",
    "fbnet": "HayeonLee/HELP (MIT)",
    "ofa": "HayeonLee/HELP (MIT)",
    "torchvision": "ryujaehun/pytorch-gpu-benchmark (MIT)",
    "timm": "huggingface/pytorch-image-models (Apache-2.0)",
    "paddleclas": "PaddlePaddle/PaddleClas (Apache-2.0)",
    "nvidia_deeplearningexamples": "NVIDIA/DeepLearningExamples (Apache-2.0, BSD-3)",
    "super_gradients": "Deci-AI/super-gradients (Apache-2.0)",
    "mmdeploy": "open-mmlab/mmdeploy (Apache-2.0)",
    "torch2trt": "NVIDIA-AI-IOT/torch2trt (MIT)",
    "nvidia_tx2": "NVIDIA-AI-IOT/tf_to_trt_image_classification (BSD-3)",
    "misc_classification": "clovaai/rexnet (MIT)",
    "aitemplate_paddleslim": "PaddlePaddle/PaddleSlim (Apache-2.0)",
}
#: Rows of one table (source, host, batch size) count as this many at most.
MOST_OF_A_TABLE = 30
#: PaddleClas timed a T4 with TensorRT 5.1, and much on a V100 twice.
LIBRARIES = {"paddleclas t4": ", TensorRT 5.1", "paddleclas v100": ", TensorRT 8.0"}


def read_networks(directory: Path, *, num_help: int = 300, num_timm: int = 120) -> list[Observation]:
    """Whole networks in the runtimes that are estimated; other frameworks and old libraries are left out."""
    observations = [
        o for space in ("nasbench201", "fbnet", "ofa") for o in read_help(directory, space, num_help)
    ]
    observations += [*read_torchvision(directory), *read_others(directory), *read_timm(directory, num_timm)]
    return [o for o in observations if o.source in PUBLISHERS and not is_of_old_library(o)]


def family_of(observation: Observation) -> str:
    """The search space, or the model's name up to its first figure: resnet, densenet, vgg."""
    library, _, model = observation.network.partition(":")
    if library not in ("torchvision", "timm"):
        return library
    return re.split(r"[\d_]", model.removeprefix("tf_"))[0]


def table_of(o: Observation) -> tuple[str, str | None, int]:
    """Who measured it where, at which batch size."""
    return (o.source, o.host, o.batch_size)


def as_networks(observations: Sequence[Observation]) -> list[MeasuredNetwork]:
    """What `calibrate` takes; every table counts alike."""
    sizes = Counter(table_of(o) for o in observations)
    return [
        MeasuredNetwork(
            name=f"{o.network} at {o.batch_size}",
            kernels=expand(o),
            batch_size=o.batch_size,
            latency_ms=o.latency_ms,
            family=family_of(o),
            importance=min(1.0, MOST_OF_A_TABLE / sizes[table_of(o)]),
        )
        for o in observations
    ]


def expand(observation: Observation) -> tuple[Kernel, ...]:
    """The kernels one by one; their order does not matter to the estimate."""
    return tuple(kernel for kernel, count in observation.kernels.items() for _ in range(count))


def measured_by(observations: Iterable[Observation]) -> str:
    """Publishers, licences and, where they are old, libraries."""
    names = {PUBLISHERS[o.source] + LIBRARIES.get(f"{o.source} {o.device}", "") for o in observations}
    return "; ".join(sorted(names))


def calibrations(
    observations: Sequence[Observation],
    constants: EstimateConstants,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Calibration]:
    """One for every (device, runtime, precision) with enough networks that agree, if it predicts better."""
    cards: dict[tuple[str, str, str], list[Observation]] = {}
    for o in observations:
        cards.setdefault((o.device, o.runtime, o.precision), []).append(o)
    found = []
    for (device, runtime, precision), rows in sorted(cards.items()):
        if len({o.network for o in rows}) < MIN_ROWS:
            continue
        progress(f"{device}, {runtime}, {precision}: {len(rows)} rows")
        target = Target(device=device, runtime=runtime, precision=precision)
        model = load_estimate(target, constants=constants)
        try:
            calibration = calibrate(model, as_networks(rows), measured_by=measured_by(rows))
        except ProfileError as error:
            progress(f"  not shipped: {error}")
            continue
        if calibration.mape >= calibration.mape_before:
            progress(
                f"  not shipped: error {calibration.mape_before:.1%} before, {calibration.mape:.1%} after"
            )
            continue
        # A network at three batch sizes is one network.
        found.append(dataclasses.replace(calibration, num_networks=len({o.network for o in rows})))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measurements", type=Path, required=True, help="directory of the CSV files")
    directory: Path = parser.parse_args().measurements
    constants = load_constants()
    for path in PROFILES.glob("*/*"):
        path.unlink()
    for found in calibrations(read_networks(directory), constants, lambda text: print(text, file=sys.stderr)):
        rounded = dataclasses.replace(
            found,
            created=str(constants.provenance["date"]),
            **round_numbers(
                {name: getattr(found, name) for name in ("factors", "anchors", "work", "mape", "mape_before")}
            ),
        )
        path = calibration_path(PROFILES, found.target)
        save_calibration(rounded, path)
        other = (
            "" if found.mape_other_family is None else f", {found.mape_other_family:.1%} without its family"
        )
        print(
            f"{path.relative_to(PROFILES)}: {found.num_networks} networks; error {found.mape_before:.1%} "
            f"before, {found.mape:.1%} after{other}"
        )


if __name__ == "__main__":
    main()
