"""How many architectures a second does a loaded table predict?

    python -m benchmarks.prediction_speed [--preset cifar10] [--device local]

Random architectures of the preset's space, share and full, none seen before; and the same again, as a search
meets blocks that it has met. Prints the best of several rounds, for a noisy machine slows some of them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import replace

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.metric import ArchitectureMetric
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.config import DeviceConfig, build_config, load_preset
from dsonas_hw.profile.open import open_cost_model, resolve_target
from dsonas_hw.profile.probes import deployment_widths
from dsonas_hw.train.images import space_of_config

NUM_ARCHITECTURES = 500
NUM_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--device", default="local")
    options = parser.parse_args()
    space = space_of_config(build_config(load_preset(options.preset)))
    widths = deployment_widths(space)
    model = open_cost_model(resolve_target(DeviceConfig(device=options.device)))
    for share in (True, False):
        drawn = replace(space, share=share)
        rng = random.Random(0)
        latency = ArchitectureMetric(model, "latency")
        fresh, again = [], []
        for _ in range(NUM_ROUNDS):
            architectures = [
                random_architecture(drawn, rng, width=rng.choice(widths)) for _ in range(NUM_ARCHITECTURES)
            ]
            fresh.append(rate(latency.predict, architectures))
            again.append(rate(latency.predict, architectures))
        name = f"{options.preset}, {'share' if share else 'full'}"
        print(f"{name:20} {max(fresh):8,.0f} a second never seen before, {max(again):8,.0f} seen before")


def rate(predict: Callable[[Architecture], object], architectures: list[Architecture]) -> float:
    """Architectures a second."""
    start_s = time.perf_counter()
    for architecture in architectures:
        predict(architecture)
    return len(architectures) / (time.perf_counter() - start_s)


if __name__ == "__main__":
    main()
