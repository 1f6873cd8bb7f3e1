"""The jobs that only a co-design study has: pretrain, derive, train, measure."""

from __future__ import annotations

from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsonas_hw.config import RunConfig, build_config
from dsonas_hw.errors import UserError
from dsonas_hw.files import write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.study.engine import RESULT
from dsonas_hw.task import prepare_task, target_costs
from dsonas_hw.train.images import load_data, space_of_config

if TYPE_CHECKING:
    from dsonas_hw.architecture.architecture import Architecture

MEASUREMENT = "measurement.json"
PATIENCE_S = 120.0
"""How long a job waits for the worker of a study that was killed, which writes its checkpoint and ends."""


def pretrain(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The supernet that every search of this seed starts from."""
    from dsonas_hw.search.choose import pretrain_supernet
    from dsonas_hw.search.pretraining import pretraining_config

    config = pretraining_config(build_config(job["config"]))
    task = prepare_task(config, space_of_config(config))
    run, begun = open_run(path, config)
    with run.lock():
        pretrain_supernet(run, task, load_data(config), resume=begun)
    return {}


def derive(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The network of a device and a budget; where the device is here, one that holds when it is measured."""
    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.deploy.derive_measured import derive_measured
    from dsonas_hw.search.choose import save_architecture
    from dsonas_hw.study.codesign_share import best_of, load_evaluated
    from dsonas_hw.train.identity import architecture_hash

    config = build_config({**job["config"], "budget": job["budgets"]})
    task = prepare_task(config, space_of_config(config))
    if config.select.candidates:
        derived = best_of(load_evaluated(path.parent / job["needs"] / RESULT), task)
    else:
        search = RunDirectory(path.parent / job["needs"] / "run")
        derived = derive_measured(search, task, say=print, bar=lambda title: nullcontext(_silent))
    run, _ = open_run(path, config)
    with run.lock():
        save_architecture(run, derived, task)
    complete = complete_architecture(task.space, width=derived.architecture.width)
    return {
        "network": architecture_hash(derived.architecture),
        "architecture": derived.architecture.to_json(),
        "costs": derived.costs.to_dict(),
        "relative_flops": derived.costs.flops / task.target.costs(complete).flops,
        "ratio": derived.ratio,
        "ratio_before_fit": derived.ratio_before_fit,
        "predicted": {d: predict(derived.architecture, config, d) for d in job["devices"]},
    }


def _silent(done: int, total: int, text: str) -> None:
    """Report nothing."""


def predict(architecture: Architecture, config: RunConfig, device: str) -> dict[str, Any]:
    """Quiet latency of a network on a device, as its profile (or estimate) tells it."""
    from dsonas_hw.architecture.lower import lower

    target = config.target.model_copy(update={"device": device})
    model = target_costs(target, needs=["latency"]).cost_model
    assert model is not None
    found = model.predict(lower(architecture, batch_size=model.batch_size, fuse=model.fuse))
    return {
        "latency_ms": found.value, "latency_ms_low": found.low, "latency_ms_high": found.high,
        "source": found.source,
    }  # fmt: skip


def evaluate(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The candidates of all searches of a seed, each trained briefly once."""
    from dsonas_hw.study.codesign_share import evaluate_candidates

    config = build_config(job["config"])
    searches = [RunDirectory(path.parent / name / "run") for name in job["needs_also"]]
    run, _ = open_run(path, config)
    with run.lock():
        return evaluate_candidates(run, searches, config, devices=job["devices"], budgets=job["budgets"])


def train(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """One distinct network, from scratch."""
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import retrain

    config = build_config(job["config"])
    run, begun = open_run(path, config)
    architecture = needed_architecture(path, job)
    with run.lock():
        write_json(run.architecture_path, architecture.to_json())
        trained = retrain(
            run, config, architecture, load_data(config), device=resolve_train_device(config.train_on),
            resume=begun,
        )  # fmt: skip
    return {"test_accuracy": trained.test_accuracy, "seconds": trained.seconds}


def measure(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """One network on one device that is here: latency, and energy if the device tells.

    `latency_ms` and its interval are of the percentile that budgets limit (`target.statistic`).
    """
    from dsonas_hw.architecture.onnx import build_onnx
    from dsonas_hw.deploy.measure import measure_on_target, repeatability_of

    config = build_config(job["config"])
    model = build_onnx(needed_architecture(path, job), batch_size=config.target.batch_size)
    found = measure_on_target(model.SerializeToString(), config.target)
    if found is None:
        raise UserError(f"{config.target.device} is no longer here: its latency cannot be measured")
    repeatability = repeatability_of(target_costs(config.target, needs=["latency"]).cost_model)
    budgeted = found.costs(config.target.statistic, repeatability)["latency_ms"]
    assert budgeted is not None
    write_json(path / MEASUREMENT, {"samples_ms": list(found.latency.samples_ms)})
    return {
        "latency_ms": budgeted.value,
        "latency_ms_low": budgeted.low,
        "latency_ms_high": budgeted.high if isfinite(budgeted.high) else None,
        "statistic": config.target.statistic,
        **{f"{name}_ms": value for name, value in found.latency.percentiles_ms().items()},
        "quiet_ms": found.latency.quiet_ms,
        "energy_mj": found.energy.energy_mj if found.energy else None,
        "num_samples": len(found.latency.samples_ms),
        "remarks": list(found.latency.remarks),
        "runtime": found.runtime,
        "versions": dict(found.versions),
    }


def needed_architecture(path: Path, job: dict[str, Any]) -> Architecture:
    """The architecture that the derivation found which this job needs."""
    from dsonas_hw.search.choose import load_architecture

    return load_architecture(RunDirectory(path.parent / job["needs"] / "run"))[0]


def open_run(path: Path, config: RunConfig) -> tuple[RunDirectory, bool]:
    """The job's run directory `path/run`, and whether it was begun before."""
    run = RunDirectory(path / "run", patience_s=PATIENCE_S)
    begun = run.config_path.exists()
    run.create(config, resume=True)
    return run, begun


KINDS = {"pretrain": pretrain, "evaluate": evaluate, "derive": derive, "train": train, "measure": measure}
