"""Write the estimated profiles that ship with the package, `profiles/<device>/*.jsonl`.

    python -m benchmarks.ship_profiles

One table for every GPU of the catalogue: what the estimate says of every kernel of the complete networks of
all presets, at the width of the search, fp32, batch 1, in the runtime that `--device` stands for. Every row
is marked `estimated`. Takes seconds. Run it after anything that the estimate depends on has changed: its
constants, its formulas, a device file, a preset; tests/benchmarks/test_ship_profiles.py fails until then.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.config import build_config, load_preset, preset_names
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.datasheet_file import read_device
from dsonas_hw.estimate.constants import load_constants
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.open import resolve
from dsonas_hw.table.rows import ESTIMATE, KernelRow, TableHeader
from dsonas_hw.table.table import save_table, table_path
from dsonas_hw.target import Target
from dsonas_hw.train.images import space_of_config

PROFILES = Path(__file__).parent.parent / "profiles"
DEVICES = Path(__file__).parent.parent / "devices"

PRECISION, BATCH_SIZE = "fp32", 1


def catalogue() -> list[Device]:
    """All GPUs of the catalogue; a user's own device files are not among them."""
    return [read_device(path) for path in sorted(DEVICES.glob("*.toml"))]


@functools.cache
def preset_kernels(*, fuse: bool) -> tuple[Kernel, ...]:
    """Kernels of the complete network of each of the presets, each once."""
    kernels: dict[Kernel, None] = {}
    for name in preset_names():
        space = space_of_config(build_config(load_preset(name)))
        kernels.update(dict.fromkeys(lower(complete_architecture(space), batch_size=BATCH_SIZE, fuse=fuse)))
    return tuple(kernels)


def shipped_tables() -> Iterator[tuple[TableHeader, list[KernelRow]]]:
    """Header and rows of every table."""
    presets = ", ".join(preset_names())
    date = str(load_constants().provenance["date"])
    for device in catalogue():
        _, runtime = resolve(device.name, None)
        target = Target(device=device.name, runtime=runtime, precision=PRECISION, batch_size=BATCH_SIZE)
        model = load_estimate(device, runtime=runtime, precision=PRECISION, batch_size=BATCH_SIZE)
        header = TableHeader(
            target=target,
            fingerprint=device.fingerprint,
            source="estimated",
            created=date,
            settings={
                "device_title": device.title,
                "expected_error": round(model.expected_error, 3),
                "caution": model.caution,
                "presets": presets,
            },
        )
        rows = [
            KernelRow(
                kernel=kernel,
                latency_ms=float(f"{model.kernel_latency_ms(kernel):.4g}"),
                source="estimated",
                statistic=ESTIMATE,
            )
            for kernel in preset_kernels(fuse=model.fuse)
        ]
        yield header, rows


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    written = set()
    for header, rows in shipped_tables():
        path = table_path(PROFILES, header.target)
        save_table(path, header, rows)
        written.add(path)
        print(f"{path}: {len(rows)} kernels, estimated")
    for path in set(PROFILES.glob("*/*.jsonl")) - written:
        path.unlink()
        print(f"{path}: removed, no longer in the catalogue")


if __name__ == "__main__":
    main()
