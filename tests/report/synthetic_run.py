"""A run directory as the pipeline leaves it, made by arithmetic instead of training."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, close_block, complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.files import append_json_line, read_json_lines, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.confusion import save_confusion
from dsonas_hw.train.identity import architecture_hash

PRETRAIN_EPOCHS, SEARCH_EPOCHS, RETRAIN_EPOCHS = 6, 30, 40
STEPS_PER_EPOCH = 8
LATENCY_MS_PER_MAC = 4.2e-7
CONFUSION = ((9, 1, 0), (3, 7, 0), (0, 0, 10))
"""By true class, then by what an image was taken for."""
PROBABILITY = 0.55
"""Of an estimated latency to hold."""


def make_run(
    path: Path,
    *,
    share: bool = True,
    stages: tuple[int, ...] = (2, 2, 2),
    until: str = "validate",
    source: str = "measured",
    verdict: str = "holds",
    latency_verdict: str = "holds",
    seed: int = 0,
) -> RunDirectory:
    """Write a run that got as far as `until`: config, search, derive, retrain or validate."""
    rng = random.Random(seed)
    space = SearchSpace(stages=stages, channels=16, share=share, input_shape=(3, 32, 32))
    mac_limit = round(0.45 * TargetCosts().costs(complete_architecture(space)).mac, -5)
    latency_limit_ms = round(1.1 * mac_limit * LATENCY_MS_PER_MAC, 2)
    config = build_config(
        overlay(
            load_preset("cifar10"),
            {
                "budget": [f"mac={mac_limit / 1e6:.1f}M", f"latency={latency_limit_ms}ms"],
                "space": {"stages": list(stages), "channels": 16, "share": share},
                "search": {"pretrain_epochs": PRETRAIN_EPOCHS, "epochs": SEARCH_EPOCHS},
            },
        )
    )
    run = RunDirectory(path)
    run.create(config)
    if until == "config":
        return run
    points = _search(run, space, rng, mac_limit)
    if until == "search":
        return run
    chosen = next((p for p in points if p[1]["mac"] <= 1.1 * mac_limit), points[-1])
    architecture, step = chosen[0].with_width(16), chosen[2]
    derived = {
        "budgets": list(config.budget),
        "limits": {"mac": mac_limit, "latency": latency_limit_ms},
        "predicted": chosen[1],
        "ratio_before_fit": chosen[1]["mac"] / mac_limit,
        "ratio": chosen[1]["mac"] / mac_limit,
        "step": step,
        "shared_accuracy": 0.7,
    }
    write_json(run.architecture_path, {**architecture.to_json(), "derived": derived})
    if until == "derive":
        return run
    _retrain(run, rng)
    accuracy = read_json_lines(run.log_path("metrics.jsonl"))[-1]["test_accuracy"]
    identity = architecture_hash(architecture)
    write_json(run.path / "retrain.json", {"architecture": identity, "test_accuracy": accuracy})
    save_confusion(run.path / "confusion.csv", ("cat", "dog", "<b>"), CONFUSION)
    if until == "retrain":
        return run
    costs = TargetCosts().costs(architecture)
    latency = costs.mac * LATENCY_MS_PER_MAC
    measured = latency * 1.031 if source == "measured" else None
    budgets = [
        _budget("mac", mac_limit, costs.mac, costs.mac, verdict),
        _budget("latency", latency_limit_ms, latency, measured, latency_verdict),
    ]
    write_json(
        run.validation_path,
        {
            "budgets": budgets,
            "holds": verdict == latency_verdict == "holds",
            "device": "local",
            "runtime": "ort-cpu",
            "max_abs_output_error": 2.4e-6,
            "source": source,
            "architecture": identity,
            "costs": {**costs.to_dict(), "latency_ms": measured or latency},
            "latency": _timing(measured, rng) if measured else None,
            "schema": 3,
            "warnings": [],
            "date": "2026-01-02T03:04:05Z",
            "versions": {"onnxruntime": "1.31.0"},
        },
    )
    return run


def _budget(
    name: str, limit: float, predicted: float, measured: float | None, verdict: str
) -> dict[str, Any]:
    holds = {"holds": True, "missed": False, "undecided": None}[verdict]
    timed = name == "latency" and measured is not None
    return {
        "name": name, "limit": limit, "predicted": predicted, "measured": measured, "verdict": verdict,
        "holds": holds, "statistic": "p50" if timed else None,
        "low": 0.98 * measured if timed and measured else None,
        "high": 1.03 * measured if timed and measured else None,
        "probability": PROBABILITY if name == "latency" and measured is None else None,
    }  # fmt: skip


def _timing(median_ms: float, rng: random.Random) -> dict[str, Any]:
    samples = [median_ms * (0.98 + abs(rng.gauss(0, 0.03)) + (rng.random() < 0.02)) for _ in range(300)]
    ordered = sorted(samples)
    return {
        "p50_ms": median_ms, "p50_ms_low": 0.98 * median_ms, "p50_ms_high": 1.03 * median_ms,
        "p95_ms": ordered[285], "p95_ms_low": ordered[280], "p95_ms_high": ordered[290],
        "p99_ms": ordered[297], "p99_ms_low": ordered[294], "p99_ms_high": None,
        "seen_p50_ms": 1.02 * median_ms,
        "quiet_ms": 0.97 * median_ms,
        "mean_ms": sum(samples) / 300,
        "std_ms": 0.031 * median_ms,
        "relative_speed": 0.97,
        "num_rounds": 10,
        "num_samples": 300,
        "device_title": "Some CPU",
        "round_medians_ms": [sorted(samples[i : i + 30])[15] for i in range(0, 300, 30)],
        "samples_ms": samples,
    }  # fmt: skip


def _search(
    run: RunDirectory, space: SearchSpace, rng: random.Random, mac_limit: float
) -> list[tuple[Architecture, dict[str, Any], int]]:
    """λ that fall at different speeds, some never to zero; a path point whenever an edge dies."""
    for epoch in range(PRETRAIN_EPOCHS):
        accuracy = 0.75 - 0.5 * math.exp(-epoch / 2)
        _log_epoch(run, "pretrain", epoch, loss=2.3 * (1 - accuracy), accuracy=accuracy)
    speed = [[rng.lognormvariate(-0.25, 0.45) for _ in space.edges] for _ in range(space.num_lambda_sets)]
    floor = [[rng.random() for _ in space.edges] for _ in range(space.num_lambda_sets)]
    target_costs, points, before = TargetCosts(), [], None
    start = None
    for step in range(SEARCH_EPOCHS * STEPS_PER_EPOCH + 1):
        t = step / (SEARCH_EPOCHS * STEPS_PER_EPOCH)
        lam = [
            [_lambda(t, v, f, rng) for v, f in zip(speeds, floors, strict=True)]
            for speeds, floors in zip(speed, floor, strict=True)
        ]
        blocks = tuple(
            close_block(space, [e for e, value in zip(space.edges, values, strict=True) if value > 0])
            for values in lam
        )
        blocks = blocks * space.num_blocks if space.share else blocks
        architecture = Architecture(space=space, blocks=blocks, width=space.channels)
        costs = target_costs.costs(architecture).to_dict()
        costs["latency_ms"] = costs["mac"] * LATENCY_MS_PER_MAC
        start = start or costs["mac"]
        gamma = 1e-3 * 10 ** (0.9 * math.sin(2.2 * t) + 0.05 * rng.gauss(0, 1))
        epoch = PRETRAIN_EPOCHS + min(step // STEPS_PER_EPOCH, SEARCH_EPOCHS - 1)
        if blocks != before:
            before = blocks
            size = costs["mac"] / start
            accuracy = min(0.95, max(0.1, 0.84 - 0.05 / (size + 0.05) + 0.06 * rng.gauss(0, 1)))
            row = {**architecture.to_json(), "step": step, "epoch": epoch, "gamma": gamma, "costs": costs,
                   "accuracy": None if rng.random() < 0.2 else accuracy}  # fmt: skip
            del row["schema"], row["space"]
            if row["accuracy"] is not None:
                points.append((architecture, costs, step))
            append_json_line(run.log_path("path.jsonl"), row)
        if (step + 1) % STEPS_PER_EPOCH == 0:
            dip = 0.12 * math.exp(-(((t - 0.55) / 0.15) ** 2))
            _log_epoch(
                run, "search", epoch, loss=0.6 + dip, accuracy=0.76 + 0.12 * t - dip + 0.01 * rng.gauss(0, 1),
                step=step, gamma=gamma, cost_ratio=costs["mac"] / mac_limit,
                target_ratio=max(1.0, (start / mac_limit) ** (1 - t / 0.8)),
                num_edges=sum(block.num_edges for block in blocks),
            )  # fmt: skip
            append_json_line(
                run.log_path("lambda.jsonl"), {"stage": "search", "epoch": epoch, "step": step, "lam": lam}
            )
    return points


def _lambda(t: float, speed: float, floor: float, rng: random.Random) -> float:
    if floor > 0.86:
        return round(1 - 0.55 * t * (1 - floor) * 4 + 0.02 * rng.random(), 5)
    return round(max(0.0, 1 - t * (0.9 + speed)), 5)


def _retrain(run: RunDirectory, rng: random.Random) -> None:
    for epoch in range(RETRAIN_EPOCHS):
        t = epoch / RETRAIN_EPOCHS
        test = 0.93 - 0.5 * math.exp(-5 * t) + 0.006 * rng.gauss(0, 1)
        _log_epoch(
            run, "retrain", epoch + 1, train_loss=2.2 * math.exp(-3 * t) + 0.25,
            train_accuracy=test - 0.04 * (1 - t),
            test_accuracy=test, lr=0.025 * (1 + math.cos(math.pi * t)),
        )  # fmt: skip


def _log_epoch(run: RunDirectory, stage: str, epoch: int, **values: float) -> None:
    append_json_line(
        run.log_path("metrics.jsonl"), {"stage": stage, "epoch": epoch, "seconds": 3.1 * epoch, **values}
    )
