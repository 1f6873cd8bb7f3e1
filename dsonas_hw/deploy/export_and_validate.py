"""The stages of a run that deploy its network, each from and to files of the run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.budget import Budget
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.export import ExportResult, export_onnx
from dsonas_hw.deploy.measure import Progress, TargetMeasurement, measure_on_target, silent
from dsonas_hw.deploy.validate import Validation, load_training, save_validation, validate
from dsonas_hw.errors import ModelFileError
from dsonas_hw.files import write_json
from dsonas_hw.profile.open import resolve_target
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.runtime.registry import get_runtime

if TYPE_CHECKING:
    from dsonas_hw.train.data import Dataset

ENGINE_NAME = "model.engine"
TIMING_CACHE_NAME = "timing.cache"
_TRAINING_NAME = "retrain.json"


def export_network(
    run: RunDirectory,
    architecture: Architecture,
    dataset: Dataset,
    *,
    batch_size: int | None,
    with_preprocessing: bool = False,
    softmax: bool = False,
) -> ExportResult:
    """Write model.onnx from weights.npz, and infer.py beside it.

    The accuracy of a network of `save_network` is not known yet: it is tested first.
    batch_size: the target's; None makes it symbolic.
    with_preprocessing, softmax: as of `export_onnx`.

    Raises:
        RunError: the network has not been retrained.
        UserError: its output is not PyTorch's.
    """
    from dsonas_hw.train.weights import WEIGHTS_NAME, load_weights

    arrays = load_weights(run.path / WEIGHTS_NAME, architecture)
    training = load_training(run.path / _TRAINING_NAME) or {}
    if training.get("saved") and training.get("test_accuracy") is None:
        training |= _test(run, architecture, arrays, dataset)
        write_json(run.path / _TRAINING_NAME, training)
    facts = {
        name: json.dumps(value) for name, value in training.items() if name in ("test_accuracy", "epochs")
    }
    return export_onnx(
        run.model_path,
        architecture,
        arrays,
        dataset,
        batch_size=batch_size,
        with_preprocessing=with_preprocessing,
        softmax=softmax,
        metadata=facts,
    )


def _test(
    run: RunDirectory, architecture: Architecture, arrays: Mapping[str, Array], dataset: Dataset
) -> dict[str, Any]:
    """Write confusion.csv of the test images; return what retrain.json says of the test."""
    import torch

    from dsonas_hw.train.confusion import CONFUSION_NAME, save_confusion
    from dsonas_hw.train.data_batches import Batches
    from dsonas_hw.train.evaluate import accuracy_of, count_confusion
    from dsonas_hw.train.network import DerivedNetwork

    network = DerivedNetwork(architecture)
    network.load_named_arrays(arrays)
    batches = Batches(images=dataset.test, dataset=dataset, batch_size=64, shuffle=False)
    confusion = count_confusion(
        network, batches.epoch(0), num_classes=dataset.num_classes, device=torch.device("cpu")
    )
    save_confusion(run.path / CONFUSION_NAME, dataset.class_names, confusion.tolist())
    accuracy = accuracy_of(confusion)
    return {"dataset": dataset.name, "test_accuracy": accuracy, "test_error": 1 - accuracy}


def build_engine(run: RunDirectory, target: DeviceConfig, runtime: str) -> Any:
    """Write model.engine, its description and timing.cache from model.onnx, on the GPU that is here.

    runtime: one that makes engines. Returns the engine's description, which lies beside it as JSON.

    Raises:
        DeviceError, MissingDependencyError: no GPU, or no library that serves it.
        ModelFileError: nothing is exported yet.
    """
    if not run.model_path.is_file():
        raise ModelFileError(f"{run.model_path} does not exist; export it as ONNX first")
    where = resolve_target(target.model_copy(update={"runtime": runtime}))
    return get_runtime(runtime).build_engine(
        run.model_path, run.path / ENGINE_NAME, where, timing_cache_path=run.path / TIMING_CACHE_NAME
    )


def validate_network(
    run: RunDirectory,
    architecture: Architecture,
    budgets: Sequence[Budget],
    costs: TargetCosts,
    target: DeviceConfig,
    *,
    progress: Progress = silent,
) -> Validation:
    """Write validation.json from model.onnx; a runtime that makes engines times model.engine if there is one.

    Raises:
        RunError: nothing is exported, or another architecture is.
        DeviceError: the device is here, but the runtime cannot run.
    """
    engine = run.path / ENGINE_NAME

    def measure(model: Path, target: DeviceConfig) -> TargetMeasurement | None:
        return measure_on_target(
            model, target, engine_path=engine if engine.is_file() else None, progress=progress
        )

    validation = validate(
        run.model_path,
        architecture,
        budgets,
        costs,
        target,
        training=load_training(run.path / _TRAINING_NAME),
        measure=measure,
    )
    save_validation(run.validation_path, validation)
    return validation
