"""Write the estimated profiles that ship with the package, `profiles/<device>/*.jsonl`.

    python -m benchmarks.ship_profiles

One table a device: what the estimate says of every kernel of the complete networks of the paper's two
presets, at the width of the search, fp32, batch 1, in the runtime that `--device` stands for. Every row is
marked `estimated`. Run it after anything that the estimate depends on has changed: its constants, its
formulas, a device file, a preset; tests/benchmarks/test_ship_profiles.py fails until then.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.config import build_config, load_preset
from dsonas_hw.device.spec import load_device
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.estimate import load_estimate
from dsonas_hw.profile.estimate_constants import load_constants
from dsonas_hw.profile.open import resolve
from dsonas_hw.profile.rows import KernelRow, TableHeader
from dsonas_hw.profile.table import save_table, table_path
from dsonas_hw.task import space_of_config

PROFILES = Path(__file__).parent.parent / "profiles"

DEVICES = (
    "1080ti", "titan-xp", "2080ti", "titan-rtx", "v100", "t4", "a100", "rtx3090", "rtx4090", "rtx5090",
    "h100", "jetson-orin",
)  # fmt: skip
"""One of each sort; tables of the whole catalogue would say nothing that `predict` does not."""

PRESETS = ("cifar10", "imagenet")

PRECISION, BATCH_SIZE = "fp32", 1


def preset_kernels(*, fuse: bool) -> list[Kernel]:
    """Kernels of the complete network of each of the presets, each once."""
    kernels: dict[Kernel, None] = {}
    for name in PRESETS:
        space = space_of_config(build_config(load_preset(name)))
        kernels.update(dict.fromkeys(lower(complete_architecture(space), batch_size=BATCH_SIZE, fuse=fuse)))
    return list(kernels)


def shipped_tables() -> Iterator[tuple[TableHeader, list[KernelRow]]]:
    """Header and rows of every table."""
    date = str(load_constants().provenance["date"])
    for name in DEVICES:
        device = load_device(name)
        _, runtime = resolve(name, None)
        model = load_estimate(device, runtime=runtime, precision=PRECISION, batch_size=BATCH_SIZE)
        header = TableHeader(
            device=device.name,
            fingerprint=device.fingerprint,
            runtime=runtime,
            precision=PRECISION,
            batch_size=BATCH_SIZE,
            source="estimated",
            created=date,
            settings={
                "device_title": device.title,
                "expected_error": round(model.expected_error, 3),
                "caution": model.caution,
            },
        )
        rows = [
            KernelRow(
                kernel=kernel,
                latency_ms=float(f"{model.kernel_latency_ms(kernel):.4g}"),
                source="estimated",
                statistic="share of a network",
            )
            for kernel in preset_kernels(fuse=model.fuse)
        ]
        yield header, rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=PROFILES, help="directory of profiles to write to")
    directory: Path = parser.parse_args().output
    for header, rows in shipped_tables():
        path = table_path(
            directory, header.device, runtime=header.runtime, precision=PRECISION, batch_size=BATCH_SIZE
        )
        save_table(path, header, rows)
        print(f"{path}: {len(rows)} kernels, estimated")


if __name__ == "__main__":
    main()
