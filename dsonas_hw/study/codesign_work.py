"""The jobs that only a co-design study has: pretrain, derive, train, measure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.config import RunConfig
from dsonas_hw.files import write_json
from dsonas_hw.search.choose import pretrain_supernet, save_architecture
from dsonas_hw.search.pretraining import pretraining_config
from dsonas_hw.study.codesign_records import Derived, Predicted, Trained
from dsonas_hw.study.codesign_share import best_of, evaluate_candidates, load_evaluated
from dsonas_hw.study.job_files import RESULT
from dsonas_hw.study.measured import Measured, describe, measure_target
from dsonas_hw.study.work import Work
from dsonas_hw.task import prepare_task, target_costs
from dsonas_hw.train.identity import architecture_hash
from dsonas_hw.train.images import space_of_config

MEASUREMENT = "measurement.json"


def pretrain(work: Work) -> dict[str, Any]:
    """Train the supernet that every search of this seed starts from."""
    config = pretraining_config(work.config)
    task = prepare_task(config, space_of_config(config))
    run, begun = work.open_run(config)
    with run.lock():
        pretrain_supernet(run, task, work.load_data(), resume=begun)
    return {}


def derive(work: Work) -> Derived:
    """Derive the network of a device and a budget; where the device is here, one that holds when measured."""
    from dsonas_hw.deploy.derive_measured import derive_measured

    task = work.task
    if work.config.select.candidates:
        derived = best_of(load_evaluated(work.needed_run.path.parent / RESULT), task)
    else:
        derived = derive_measured(work.needed_run, task, say=print, bar=no_bar)
    run, _ = work.open_run()
    with run.lock():
        save_architecture(run, derived, task)
    return Derived(
        network=architecture_hash(derived.architecture),
        architecture=derived.architecture.to_json(),
        costs=derived.costs,
        ratio=derived.ratio,
        ratio_before_fit=derived.ratio_before_fit,
        predicted={d: predict(derived.architecture, work.config, d) for d in work.job.devices},
    )


def no_bar(title: str) -> AbstractContextManager[Callable[[int, int, str], None]]:
    """Return a progress bar that shows nothing: a job writes its log to a file."""
    return nullcontext(lambda done, total, text: None)


def predict(architecture: Architecture, config: RunConfig, device: str) -> Predicted:
    """Return the quiet latency of a network on a device, and its energy where the profile has energies."""
    target = config.target.model_copy(update={"device": device})
    model = target_costs(target, needs=["latency"]).cost_model
    assert model is not None
    kernels = lower(architecture, batch_size=model.target.batch_size, fuse=model.fuse)
    latency = model.predict(kernels)
    energy = None if model.why_not("energy") else model.predict(kernels, "energy")
    return Predicted(
        latency_ms=latency.value,
        latency_ms_low=latency.low,
        latency_ms_high=latency.high,
        source=latency.source,
        energy_mj=energy.value if energy else None,
        energy_mj_low=energy.low if energy else None,
        energy_mj_high=energy.high if energy else None,
    )


def evaluate(work: Work) -> dict[str, Any]:
    """Train the candidates of all searches of a seed briefly, each once."""
    job = work.job
    searches = [work.run_of(name) for name in job.needs_also]
    run, _ = work.open_run()
    with run.lock():
        return evaluate_candidates(run, searches, work.config, devices=job.devices, budgets=job.budgets)


def train(work: Work) -> Trained:
    """Train one distinct network from scratch."""
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import retrain

    config, architecture = work.config, work.needed_architecture
    run, begun = work.open_run()
    with run.lock():
        write_json(run.architecture_path, architecture.to_json())
        trained = retrain(
            run, config, architecture, work.load_data(), device=resolve_train_device(config.train_on),
            resume=begun,
        )  # fmt: skip
    return Trained(test_accuracy=trained.test_accuracy, seconds=trained.seconds)


def measure(work: Work) -> Measured:
    """Measure one network on one device that is here: latency, and energy if the device tells."""
    config = work.config
    model = build_onnx(work.needed_architecture, batch_size=config.target.batch_size)
    found = measure_target(model.SerializeToString(), config)
    write_json(work.path / MEASUREMENT, {"samples_ms": list(found.latency.samples_ms)})
    return describe(found, config, target_costs(config.target, needs=["latency"]).cost_model)


KINDS = {"pretrain": pretrain, "evaluate": evaluate, "derive": derive, "train": train, "measure": measure}
