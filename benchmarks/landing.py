"""Does a search land on its budget? Short searches on three datasets, three budgets, two seeds.

    python -m benchmarks.landing --out landing --data-dir ~/cifar10 --workers 2

The controller is given nothing but the budget: γ starts at the preset's value everywhere. For each search
the table shows cost / budget of the architecture nearest to it, at the deployment width, before it is fitted
(wanted: within ±10 %), and of the derived one after fitting (wanted: 95 % to 100 %). What is done is kept in
--out; the same command goes on. Exit code 1 if a search misses.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.files import read_json, write_json, write_text

#: Preset, and what is changed: short schedules, and widths fine enough to land within 5 % (one
#: channel of 8, two of 16).
DATASETS: dict[str, dict[str, Any]] = {
    "digits": {"space": {"width_step": 2}, "search": {"pretrain_epochs": 3, "epochs": 12}},
    "fashion-mnist": {
        "data": {"subset": 4000},
        "space": {"width_step": 1},
        "search": {"pretrain_epochs": 2, "epochs": 6},
    },
    "cifar10-small": {"search": {"pretrain_epochs": 2, "epochs": 6}},
}
FRACTIONS = (0.6, 0.4, 0.25)
"""Budgets: mac, as shares of the complete network's at the search's width."""
SEEDS = (0, 1)
UNFITTED = (0.9, 1.1)
FITTED = (0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One search."""

    preset: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.preset}-{self.fraction:g}-s{self.seed}"


def search(case: Case, folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Do one search, or go on with it, and say where it landed."""
    import torch

    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import derive, points_of, search_path
    from dsonas_hw.task import prepare_task, target_costs
    from dsonas_hw.train.images import load_data, space_of_config

    torch.set_num_threads(1)
    changes = overlay(DATASETS[case.preset], {"seed": case.seed, "search": {"adaptive_cost": "mac"}})
    if data_dir is not None and case.preset.startswith("cifar"):
        changes = overlay(changes, {"data": {"data_dir": str(data_dir)}})
    config = build_config(overlay(load_preset(case.preset), changes))
    space = space_of_config(config)
    complete = target_costs(config.target).costs(complete_architecture(space)).mac
    config = config.model_copy(update={"budget": (f"mac={round(case.fraction * complete)}",)})
    task = prepare_task(config, space)
    run = RunDirectory(folder / case.name)
    begun = run.config_path.exists()
    run.create(config, resume=begun)
    with run.lock():
        ended = search_path(run, task, load_data(config), resume=begun)
    ratios = [budget_ratio(p.architecture, task.budgets, task.target) for p in points_of(run, task)]
    passed = min(ratios, key=lambda ratio: abs(math.log(ratio)))  # the search goes on past the budget
    derived = derive(run, task, task.budgets)
    return {
        "preset": case.preset, "fraction": case.fraction, "budget": config.budget[0], "seed": case.seed,
        "start": 1 / case.fraction, "unfitted": passed, "fitted": derived.ratio,
        "width": derived.architecture.width, "num_points": ended.num_points, "seconds": ended.seconds,
    }  # fmt: skip


def has_landed(row: dict[str, Any]) -> bool:
    return UNFITTED[0] <= row["unfitted"] <= UNFITTED[1] and FITTED[0] <= row["fitted"] <= FITTED[1]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table, for people."""
    lines = [
        "| preset | budget | of the complete | seed | unfitted | fitted | channels | path | s | landed |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['preset']} | {row['budget']} | {row['fraction']:.0%} | {row['seed']} "
            f"| {row['unfitted']:.1%} | {row['fitted']:.1%} | {row['width']} | {row['num_points']} "
            f"| {row['seconds']:.0f} | {'yes' if has_landed(row) else '**no**'} |"
        )
    landed = sum(map(has_landed, rows))
    return "\n".join([*lines, "", f"{landed} of {len(rows)} searches landed."])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("landing"), help="results, and runs to go on with")
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 is")
    parser.add_argument("--datasets", nargs="*", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="one search on digits, as a trial")
    options = parser.parse_args(arguments)
    cases = [
        Case(preset=preset, fraction=fraction, seed=seed)
        for preset in options.datasets
        for fraction in FRACTIONS
        for seed in SEEDS
    ]
    if options.quick:
        cases = [Case(preset="digits", fraction=0.4, seed=0)]
    done = {case: options.out / f"{case.name}.json" for case in cases}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(options.workers) as pool:
        running = {
            pool.submit(search, case, options.out / "runs", options.data_dir): case
            for case in cases
            if not done[case].exists()
        }
        for future in as_completed(running):
            write_json(done[running[future]], future.result())
            print(f"done: {running[future].name}", file=sys.stderr, flush=True)
    rows = [read_json(path) for path in done.values()]
    write_text(options.out / "landing.md", markdown(rows) + "\n")
    print(markdown(rows))
    return 0 if all(map(has_landed, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
