"""The exported file computes what PyTorch computes, says what it is, and is written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.export import export_onnx, read_metadata
from dsonas_hw.deploy.export_and_validate import build_engine
from dsonas_hw.errors import DeviceError, MissingDependencyError, ModelFileError, UserError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import normalise
from dsonas_hw.train.identity import architecture_hash
from dsonas_hw.train.network import DerivedNetwork


@pytest.mark.parametrize("batch_size", [1, 3, 100, None])
def test_the_file_computes_what_torch_computes(
    tmp_path: Path,
    architecture: Architecture,
    arrays: dict[str, Array],
    digits: Dataset,
    batch_size: int | None,
) -> None:
    result = export_onnx(tmp_path / "model.onnx", architecture, arrays, digits, batch_size=batch_size)
    assert result.relative_output_error < 1e-4
    assert result.num_checked_images == 64
    assert result.num_bytes == (tmp_path / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [batch_size or "batch", 1, 8, 8]
    images = torch.randn(batch_size or 5, 1, 8, 8)
    network = DerivedNetwork(architecture).eval()
    network.load_named_arrays(arrays)
    with torch.no_grad():
        expected = network(images).numpy()
    np.testing.assert_allclose(
        session.run(None, {"input": images.numpy()})[0], expected, rtol=1e-3, atol=1e-5
    )


def test_batch_norms_are_folded_and_costs_are_the_architecture_s(
    tmp_path: Path, architecture: Architecture, arrays: dict[str, Array], digits: Dataset
) -> None:
    export_onnx(tmp_path / "model.onnx", architecture, arrays, digits)
    kernels = network_from_onnx(tmp_path / "model.onnx").kernels
    assert count_costs(kernels) == count_costs(lower(architecture))
    model = onnx.load(tmp_path / "model.onnx")
    # Pools and the head keep theirs: there is no convolution before them.
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) == 2 * 2 + 1


def test_the_file_says_what_it_is(
    tmp_path: Path, architecture: Architecture, arrays: dict[str, Array], digits: Dataset
) -> None:
    path = tmp_path / "model.onnx"
    result = export_onnx(path, architecture, arrays, digits, metadata={"test_accuracy": "0.5"})
    facts = read_metadata(path)
    assert facts["architecture_hash"] == architecture_hash(architecture)
    assert facts["dataset"] == "digits"
    assert facts["class_names"] == [str(digit) for digit in range(10)]
    assert facts["max_abs_output_error"] == result.max_abs_output_error
    assert facts["test_accuracy"] == 0.5
    # Normalising as the file says is normalising as the training did.
    pixels = digits.test.images[:4]  # type: ignore[union-attr]
    by_file = (pixels.float() / 255 - torch.tensor(facts["mean"])) / torch.tensor(facts["std"])
    torch.testing.assert_close(by_file, normalise(pixels, digits.mean, digits.std))


def test_metadata_that_is_not_ours_is_left_out(tmp_path: Path) -> None:
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])],
        )
    )
    onnx.helper.set_model_props(model, {"good": json.dumps([1]), "bad": "{", "deep": "[" * 100_000})
    onnx.save(model, tmp_path / "model.onnx")
    assert read_metadata(tmp_path / "model.onnx") == {"good": [1]}


def test_a_wrong_output_is_refused_and_the_old_file_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: Architecture,
    arrays: dict[str, Array],
    digits: Dataset,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr("dsonas_hw.architecture.onnx.BN_EPS", 0.1)
    with pytest.raises(UserError, match=r"differ from PyTorch's by .*model\.onnx was not written"):
        export_onnx(path, architecture, arrays, digits)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(
    tmp_path: Path, architecture: Architecture, arrays: dict[str, Array], digits: Dataset, value: float
) -> None:
    broken = {**arrays, "head.fc.bias": np.full(10, value, np.float32)}
    with pytest.raises(UserError, match=r"not finite \(head\.fc\.bias\)"):
        export_onnx(tmp_path / "model.onnx", architecture, broken, digits)
    assert not list(tmp_path.iterdir())


def test_denormal_weights_become_zero(
    tmp_path: Path, architecture: Architecture, arrays: dict[str, Array], digits: Dataset
) -> None:
    weight = arrays["stem.conv.weight"].copy()
    weight[0] = 1e-39
    export_onnx(tmp_path / "model.onnx", architecture, {**arrays, "stem.conv.weight": weight}, digits)
    for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer:
        values = np.abs(onnx.numpy_helper.to_array(tensor))
        assert not ((values > 0) & (values < 1e-30)).any()


def test_an_engine_needs_what_this_machine_may_not_have(tmp_path: Path) -> None:
    run, target = RunDirectory(tmp_path), DeviceConfig()
    with pytest.raises(ModelFileError, match="export it as ONNX first"):
        build_engine(run, target, "tensorrt")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises((DeviceError, MissingDependencyError)) as caught:
        build_engine(run, target, "tensorrt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.engine").exists()
