"""Write docs/estimator.md: the prose of `estimator_page.template.md`, every number and printed line of it.

    python -m benchmarks.estimator_page

Reads docs/estimator.json (`benchmarks.evaluate_estimator`), the shipped constants and `profiles/`, and runs
the examples through the command line. Takes seconds. The page states the constants it is of;
tests/benchmarks/test_estimator_page.py fails when the constants are newer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate_estimator import NUM_CALIBRATION, RESULTS
from benchmarks.known_networks import fbnet_kernels, nasbench201_kernels
from benchmarks.ship_profiles import PROFILES
from dsonas_hw.estimate.calibrated import load_calibration
from dsonas_hw.estimate.constants import constants_hash, load_constants
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.open import open_cost_model
from dsonas_hw.target import Target

TEMPLATE = Path(__file__).parent / "estimator_page.template.md"
PAGE = Path(__file__).parent.parent / "docs" / "estimator.md"

Row = Mapping[str, Any]

#: Networks of HELP and their times on a 1080 Ti in ms, as published: (name, batch, kernels, measured).
PUBLISHED_1080TI: tuple[tuple[str, int, Sequence[Kernel], float], ...] = (
    (
        "NAS-Bench-201 no. 2",
        256,
        nasbench201_kernels(
            "|avg_pool_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|",
            256,
        ),
        30.872083,
    ),
    (
        "NAS-Bench-201 no. 1",
        256,
        nasbench201_kernels(
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
            256,
        ),
        24.901767,
    ),
    (
        "FBNet no. 2",
        64,
        fbnet_kernels([8, 2, 1, 5, 1, 8, 4, 6, 6, 2, 5, 2, 5, 1, 2, 5, 2, 8, 2, 3, 5, 0], 64),
        13.140545,
    ),
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def mean(rows: Sequence[Row], name: str) -> float | None:
    """Mean over tables of a column, where they have it."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return float(np.mean(values)) if values else None


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def networks(rows: Iterable[Row], kind: str | None = None) -> list[Row]:
    return [row for row in rows if row["batch"] is not None and (kind is None or row["kind"] == kind)]


def runtime_of(row: Row) -> str:
    """The runtime, with other frameworks than PyTorch apart."""
    other = row["source"].endswith((" mxnet", " tensorflow", "torch7"))
    return "other frameworks" if other else str(row["runtime"])


def summary_table(rows: Sequence[Row]) -> str:
    lines = []
    for kind, found in grouped(networks(rows), lambda row: row["kind"]).items():
        for runtime, some in sorted(grouped(found, runtime_of).items()):
            cells = grouped(some, lambda row: (row["device"], row["runtime"], row["precision"]))
            per_cell = [float(np.mean([row["zero-shot"] for row in cell])) for cell in cells.values()]
            lines.append(
                (
                    kind,
                    runtime,
                    str(len(some)),
                    number(mean(some, "zero-shot")),
                    number(float(np.median(per_cell))),
                    number(max(per_cell)),
                    number(mean(some, "rank"), 2),
                    number(mean(some, "inside"), 0),
                    *(number(mean(some, name)) for name in ("roofline", "FLOPs line", "median")),
                )
            )
    header = (
        "left out", "runtime", "tables", "MAPE %", "median card", "worst card", "Spearman", "inside %",
        "roofline MAPE %", "FLOPs line", "training median",
    )  # fmt: skip
    return table(header, lines)


def between_table(rows: Sequence[Row]) -> str:
    lines = []
    for (kind, runtime), some in sorted(
        grouped(
            [row for row in networks(rows) if row.get("both known") is not None],
            lambda row: (row["kind"], runtime_of(row)),
        ).items()
    ):
        names = ("zero-shot", "host known", "card known", "both known")
        lines.append((kind, runtime, str(len(some)), *(number(mean(some, name)) for name in names)))
    return table(("left out", "runtime", "tables", "as it comes", "host known", "card known", "both"), lines)


def intervals_table(rows: Sequence[Row]) -> str:
    lines = []
    for source, some in sorted(grouped(networks(rows, "card"), lambda row: row["source"]).items()):
        weights = np.array([row["n"] for row in some], dtype=float)
        inside = float(np.average([row["inside"] for row in some], weights=weights))
        lines.append((source, str(len(some)), str(int(weights.sum())), number(inside, 0)))
    return table(("source", "tables", "networks", "inside %"), lines)


def calibrated_table(rows: Sequence[Row]) -> str:
    lines = []
    for source, some in sorted(
        grouped(
            [row for row in rows if f"after {NUM_CALIBRATION[0]}" in row], lambda row: row["source"]
        ).items()
    ):
        cells = [source, str(len(some)), number(mean(some, "zero-shot"))]
        for count in NUM_CALIBRATION:
            cells += [number(mean(some, f"after {count}")), number(mean(some, f"scale {count}"))]
        lines.append((*cells, number(mean(some, f"inside {NUM_CALIBRATION[2]}"), 0)))
    pairs = [name for count in NUM_CALIBRATION for name in (f"after {count}", "scale")]
    return table(("source", "tables", "before", *pairs, "inside % after 10"), lines)


def tables_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not among the stored results (`--only` left it away)."
    lines = [
        (
            row["left out"],
            f"{row['source']} {row['device']} {row['runtime']} {row['precision']}",
            str(row["batch"]),
            str(row["n"]),
            number(row["zero-shot"]),
            number(row["rank"], 2),
            number(row["inside"], 0),
            number(row.get("after 10")),
        )
        for row in rows
    ]
    header = ("left out", "table", "batch", "n", "MAPE %", "Spearman", "inside %", "after 10")
    return table(header, lines)


def kernels_table(rows: Sequence[Row]) -> str:
    lines = [
        (
            row["left out"],
            f"{row['source']} {row['device']} {row['precision']}",
            str(row["n"]),
            number(row["zero-shot"]),
            number(row["rank"], 2),
            number(row["inside"], 0),
            *(number(row[name]) for name in ("roofline", "FLOPs line")),
        )
        for row in rows
        if row["kind"] == "card" and row["batch"] is None
    ]
    header = ("left out", "table", "n", "MAPE %", "Spearman", "inside %", "roofline", "FLOPs line")
    return table(header, lines)


def shipped_table() -> str:
    lines = []
    for path in sorted(PROFILES.glob("*/*.calibration.json")):
        found = load_calibration(path)
        other = found.mape_other_family
        lines.append(
            (
                found.device,
                found.runtime,
                found.precision,
                str(found.num_networks),
                number(100 * found.mape_before),
                number(100 * found.mape),
                number(None if other is None else 100 * other),
                found.measured_by,
            )
        )
    header = ("card", "runtime", "precision", "n", "before, %", "after, %", "other family, %", "measured by")
    return table(header, lines)


def card_1080ti() -> str:
    found = load_calibration(PROFILES / "1080ti" / "eager-fp32.calibration.json")
    other = number(None if found.mape_other_family is None else 100 * found.mape_other_family)
    lines = []
    for name, batch_size, kernels, measured_ms in PUBLISHED_1080TI:
        with tempfile.TemporaryDirectory() as empty:
            model = open_cost_model(
                Target(device="1080ti", runtime="eager", batch_size=batch_size),
                profiles_directory=Path(empty),
            )
        p = model.predict(kernels)
        interval = f"{p.low:.1f} to {p.high:.1f}"
        error = f"{100 * (p.value / measured_ms - 1):+.1f} %"
        lines.append((name, str(batch_size), f"{measured_ms:.2f}", f"{p.value:.2f}", interval, error))
    header = ("network", "batch", "published, ms", "predicted, ms", "90 % interval", "error")
    return (
        f"Its estimate in eager mode, fp32, rests on {found.num_networks} measured networks "
        f"({found.measured_by}). Each is predicted with {100 * found.mape:.1f} % error without itself, with "
        f"{other} % without all of its family; without any calibration with {100 * found.mape_before:.1f} %. "
        f"In other runtimes nobody published measurements of it: there the fitted constants are all it has. "
        f"Three networks, published and predicted (they are among those it was calibrated on):\n\n"
        f"{table(header, lines)}"
    )


#: Commands whose output the page shows; `{dir}` is a folder with the files that `_write_files` makes.
EXAMPLES = (
    ("predict", "m.onnx", "--device", "1080ti", "--runtime", "eager", "--batch-size", "32"),
    ("predict", "m.onnx", "--device", "1080ti"),
    ("predict", "m.onnx", "--device", "titan-xp", "--runtime", "eager", "--batch-size", "32"),
    ("profile", "--device", "1080ti", "--mode", "measure"),
    ("calibrate", "--device", "2080ti", "nocol.csv"),
    ("calibrate", "--device", "2080ti", "few.csv"),
)


def examples() -> str:
    """What the commands of `EXAMPLES` print, run in an empty folder with an empty home."""
    from dsonas_hw.cli.main import main as cli

    lines = []
    here, home = Path.cwd(), os.environ.get("DSONAS_HW_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DSONAS_HW_HOME"] = f"{folder}/home"
        os.chdir(folder)
        try:
            _write_files(Path(folder))
            for command in EXAMPLES:
                printed, code = io.StringIO(), 0
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    try:
                        cli(list(command))
                    except SystemExit as stop:
                        code = int(stop.code or 0)
                lines.append(f"    $ dsonas-hw {' '.join(command)}")
                lines += [f"    {line}" for line in printed.getvalue().replace(folder, "…").splitlines()]
                lines.append(f"    exit {code}")
        finally:
            os.chdir(here)
            os.environ.pop("DSONAS_HW_HOME")
            if home is not None:
                os.environ["DSONAS_HW_HOME"] = home
    return "\n".join(lines)


def _write_files(folder: Path) -> None:
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU(), nn.Conv2d(after, after, 3, 1, 1), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)).eval()
    torch.onnx.export(module, (torch.zeros(1, 3, 64, 64),), str(folder / "m.onnx"), dynamo=False)
    (folder / "nocol.csv").write_text("model,ms\nm.onnx,1.5\n")
    (folder / "few.csv").write_text("model,batch_size,latency_ms\nm.onnx,32,1.5\n")


def page(with_examples: str) -> str:
    """The text of docs/estimator.md."""
    constants = load_constants()
    rows = json.loads(RESULTS.read_text())["tables"]
    sd = constants.relative_sd
    values = {
        "hash": constants_hash(),
        "examples": with_examples,
        "card_1080ti": card_1080ti(),
        "shipped": shipped_table(),
        "left_out": ", ".join(dict.fromkeys(row["left out"] for row in rows)),
        "summary": summary_table(rows),
        "between": between_table(rows),
        "intervals": intervals_table(rows),
        "calibrated": calibrated_table(rows),
        "cards": tables_table(networks(rows, "card")),
        "sources": tables_table(networks(rows, "source")),
        "kernels": kernels_table(rows),
        "generation_host": ", ".join(f"{name} {f:.2f}" for name, f in constants.generation_host.items()),
        "jetson_host": ", ".join(f"{f:g} ({name})" for name, f in constants.jetson_host.items()),
        "power_exponent": f"{constants.shared['power_exponent']:.2f}",
        "sharpness": f"{constants.sharpness['eager']:g}",
        "sd_device": f"{sd['device']:g}",
        "sd_kernel": f"{sd['kernel']:g}",
        "sd_host": f"{sd['host']:g}",
        "far": ", ".join(f"{name} {sd[name]:g}" for name in ("fused", "jetson", "int8")),
        "date": str(constants.provenance["date"]),
        "num_observations": str(constants.provenance["num_observations"]),
    }
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    stated = json.loads(RESULTS.read_text())["constants"]
    if stated != constants_hash():
        raise SystemExit(f"{RESULTS} is of other constants; run benchmarks.evaluate_estimator first")
    PAGE.write_text(page(examples()))


if __name__ == "__main__":
    main()
