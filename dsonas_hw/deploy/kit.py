"""What one carries to a board where this tool is not installed, to turn its estimate into a calibrated one.

path of the search ─▶ a few networks ─▶ KIT/network-N.onnx + measure.py ─▶ (on the board) measured.csv
    ─▶ dsonas-hw calibrate --device … KIT/measured.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.config import DeviceConfig
from dsonas_hw.errors import DeviceError, RunError
from dsonas_hw.estimate.calibrate import MIN_ROWS
from dsonas_hw.files import atomic_write, write_json, write_text
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.runtime import kit_measure
from dsonas_hw.search.path import load_path

NUM_NETWORKS = 8
SCRIPT_NAME = "measure.py"
CSV_NAME = "measured.csv"


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A folder that was written, and what its measurements are called."""

    folder: Path
    device: str
    runtime: str
    precision: str
    batch_size: int
    networks: tuple[str, ...]
    """Names of the ONNX files in it."""


def write_kit(
    run: RunDirectory, architecture: Architecture, target: DeviceConfig, costs: TargetCosts, folder: Path
) -> Kit:
    """Write a kit that times networks of a run's path, `architecture` among them.

    target: the device that is not here; a runtime that the board's own tools cannot time is refused.
    costs: of the target; the networks are spread evenly over its latencies.
    The weights are random: they do not change the latency.

    Raises:
        DeviceError: no such device, this machine, or a runtime that a kit cannot time.
        RunError: no search has been run here, or the folder cannot be written.
    """
    from dsonas_hw.device.spec import LOCAL
    from dsonas_hw.profile.open import resolve

    device, runtime = resolve(target.device, target.runtime)
    if device == LOCAL:
        raise DeviceError("local is this machine; a kit is for a GPU that is not here: name it with --device")
    if runtime not in kit_measure.RUNTIMES:
        raise DeviceError(
            f"a kit cannot time {runtime}; give --runtime with one of {', '.join(kit_measure.GPU_RUNTIMES)}"
        )
    networks = choose_networks(run, architecture, costs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot create the folder {folder}: {error.strerror}; give another with --out"
        ) from None
    names = []
    for number, network in enumerate(networks, start=1):
        names.append(f"network-{number}.onnx")
        with atomic_write(folder / names[-1]) as file:
            file.write(build_onnx(network, batch_size=target.batch_size).SerializeToString())
    kit = Kit(
        folder=folder, device=device, runtime=runtime, precision=target.precision,
        batch_size=target.batch_size, networks=tuple(names),
    )  # fmt: skip
    facts = {"device": device, "runtime": runtime, "precision": kit.precision, "batch_size": kit.batch_size}
    write_json(folder / "kit.json", {**facts, "networks": names, "folder": str(folder)})
    write_text(folder / SCRIPT_NAME, Path(kit_measure.__file__).read_text(encoding="utf-8"))
    return kit


def choose_networks(run: RunDirectory, architecture: Architecture, costs: TargetCosts) -> list[Architecture]:
    """The run's network and up to seven others of its path, from cheap to expensive, evenly spread.

    A path of too few networks is filled up with other widths of the run's.

    Raises:
        RunError: no search has been run here.
    """
    space_json = complete_architecture(architecture.space).to_json()["space"]
    path = [point.architecture for point in load_path(run, space_json)]
    others = list(dict.fromkeys(a for a in path if a != architecture and not a.is_collapsed))
    if len(others) + 1 < MIN_ROWS:
        widths = architecture.space.widths()
        others += [architecture.with_width(w) for w in (widths[0], widths[len(widths) // 2], widths[-1])]
        others = [other for other in dict.fromkeys(others) if other != architecture]
    others.sort(key=lambda a: _cost(a, costs))
    return sorted([architecture, *_spread(others, NUM_NETWORKS - 1)], key=lambda a: _cost(a, costs))


def _cost(architecture: Architecture, costs: TargetCosts) -> float:
    found = costs.costs(architecture)
    return found.latency_ms if found.latency_ms is not None else float(found.flops)


def _spread(items: Sequence[Architecture], count: int) -> list[Architecture]:
    """At most `count` of them, evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
