"""What a table lacks is measured by whoever needs it, appended, and known from then on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.device.cpu import local_cpu
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.onnx.unknown import work_of
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile import on_demand
from dsonas_hw.profile import predict_onnx as predicting
from dsonas_hw.profile import profile_space as profiling
from dsonas_hw.profile.open import Models, open_table
from dsonas_hw.profile.predict_onnx import predict_onnx
from dsonas_hw.profile.profile_space import complete_table, is_profiled, profile_space, unknown_kernels
from dsonas_hw.profile.profile_space import path_of as table_of_target
from dsonas_hw.profile.profiler import is_finished
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.rows import NetworkRow
from dsonas_hw.table.table import load_table, save_table
from dsonas_hw.table.writer import TableWriter
from dsonas_hw.target import Target

SPACE = SearchSpace(levels=1, operations=("sep3",), stages=(1,), channels=8, input_shape=(1, 8, 8))
OTHER = replace(SPACE, operations=("conv3", "max3"), stages=(1, 1), width_step=2, max_width=18)
"""Has kernels that a table of `SPACE` lacks: another convolution, a pool, reductions."""
TARGET = Target(runtime="ort-cpu")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profiles of this machine on `SPACE`."""
    folder = tmp_path_factory.mktemp("profiles")
    profile_space(SPACE, TARGET, num_networks=4, num_checked=0, profiles_directory=folder)
    return folder


@pytest.fixture
def profiles(measured: Path, tmp_path: Path) -> Path:
    """A copy that a test may add to."""
    return Path(shutil.copytree(measured, tmp_path / "profiles"))


def table_path(profiles: Path) -> Path:
    return table_of_target(TARGET, profiles)


def opened(profiles: Path) -> MeasuredCosts:
    model = open_table(table_path(profiles))
    assert model is not None
    return model


def test_a_space_is_profiled_when_every_kernel_of_it_is_known(profiles: Path) -> None:
    assert is_profiled(SPACE, TARGET, profiles_directory=profiles)
    assert not is_profiled(OTHER, TARGET, profiles_directory=profiles)
    wider = replace(SPACE, max_width=1024)  # the same networks, and much wider ones
    assert not is_profiled(wider, TARGET, profiles_directory=profiles)
    assert not is_profiled(SPACE, replace(TARGET, batch_size=2), profiles_directory=profiles)


def test_a_profile_that_was_interrupted_is_not_finished(profiles: Path) -> None:
    """A network was appended, but the table was not fitted again."""
    path = table_path(profiles)
    assert is_finished(load_table(path))
    with TableWriter(path, load_table(path).header) as writer:
        writer.append(NetworkRow(name="fit-0-more", latency_ms=1.0, kernels={}, flops=1))
    assert not is_finished(load_table(path))
    assert not is_profiled(SPACE, TARGET, profiles_directory=profiles)


def test_a_space_that_the_table_lacks_kernels_of_is_completed_with_one_line_about_it(profiles: Path) -> None:
    lines: list[str] = []
    before = opened(profiles)
    unknown = unknown_kernels(OTHER, before)
    assert unknown
    after = complete_table(OTHER, before, say=lines.append)
    assert isinstance(after, MeasuredCosts)
    assert unknown_kernels(OTHER, after) == []
    (line,) = lines
    assert line.startswith(f"{len(unknown)} kernels are new to the table of local: measuring them, about ")
    assert {*before.table.kernels} < {*after.table.kernels}
    # The next command finds them in the table.
    assert unknown_kernels(OTHER, opened(profiles)) == []
    assert complete_table(OTHER, opened(profiles), say=lines.append).source == "measured"
    assert len(lines) == 1


def test_what_stays_unknown_though_its_networks_were_timed_is_not_measured_again(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the runtime runs other kernels than the lowering says."""
    probes: list[Probe] = []
    monkeypatch.setattr(profiling, "measure_unknown", lambda model, unknown, found, say: probes.extend(found))
    table = load_table(table_path(profiles))
    complete_table(OTHER, MeasuredCosts(table), say=pytest.fail)
    assert probes
    monkeypatch.undo()
    networks = [NetworkRow(name=probe.name, latency_ms=1.0, kernels={}, flops=1) for probe in probes]
    assert table.corrections
    fitted = {
        **table.corrections["latency"].values,
        "num_networks": float(len(table.networks) + len(networks)),
    }
    table = replace(
        table,
        networks=(*table.networks, *networks),
        corrections={"latency": replace(table.corrections["latency"], values=fitted)},
    )
    refuse_to_measure(monkeypatch)
    model = MeasuredCosts(table)
    assert unknown_kernels(OTHER, model)
    assert complete_table(OTHER, model, say=pytest.fail) is model


def test_a_network_from_a_file_is_learnt_and_then_predicted_whole(profiles: Path, tmp_path: Path) -> None:
    file, lines = tmp_path / "other.onnx", list[str]()
    file.write_bytes(model_bytes(complete_architecture(OTHER, width=8)))
    for _ in range(2):  # the second time they are known
        models = Models(device="local", runtime="ort-cpu", profiles_directory=profiles)
        prediction = predict_onnx(file, models, say=lines.append)
        assert prediction.unknown_kernels == ()
        assert prediction.source == "measured"
        assert len(lines) == 1


@pytest.mark.parametrize("kind", ["recurrent", "volume"])
def test_recurrent_layers_and_volumes_are_timed_too(kind: str, profiles: Path, tmp_path: Path) -> None:
    if kind == "recurrent":
        shape, weights = (10, 1, 32), [(1, 256, 32), (1, 256, 64)]
        node = helper.make_node("LSTM", ["x", "w0", "w1"], ["y"], hidden_size=64)
    else:
        shape, weights = (1, 4, 8, 16, 16), [(8, 4, 3, 3, 3)]
        node = helper.make_node("Conv", ["x", "w0"], ["y"])
    stored = [
        helper.make_tensor(f"w{index}", TensorProto.FLOAT, dims, [0.0] * prod(dims))
        for index, dims in enumerate(weights)
    ]
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "network", [taken], [onnx.ValueInfoProto(name="y")], stored)
    file, lines = tmp_path / "network.onnx", list[str]()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    for _ in range(2):
        models = Models(device="local", runtime="ort-cpu", profiles_directory=profiles)
        prediction = predict_onnx(file, models, say=lines.append)
        assert (prediction.source, prediction.unknown_kernels) == ("measured", ())
        assert len(lines) == 1


def save(
    path: Path, nodes: list[onnx.NodeProto], shape: tuple[int, ...], opset: int = 17, **stored: Any
) -> Path:
    """A network of one input `x` and one output `y`."""
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    weights = [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "network", [taken], [onnx.ValueInfoProto(name="y")], weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def attention(path: Path) -> Path:
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"], num_heads=2, domain="com.microsoft")
    return save(path, [node], (1, 16, 32), w=np.ones((32, 96), np.float32), b=np.ones(96, np.float32))


def einsum(path: Path) -> Path:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="...ij,jk->...ik")
    return save(path, [node], (1, 16, 32), w=np.ones((32, 24), np.float32))


def four_bits(path: Path) -> Path:
    sizes = {"K": 32, "N": 24, "bits": 4, "block_size": 32}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    return save(path, [node], (1, 16, 32), w=np.zeros((24, 1, 16), np.uint8), s=np.ones(24, np.float32))


def deformable(path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "o"], ["offsets"]),
        helper.make_node("DeformConv", ["x", "w", "offsets"], ["y"], kernel_shape=[1, 1]),
    ]
    weights = {"o": np.ones((2, 8, 1, 1), np.float32), "w": np.ones((8, 8, 1, 1), np.float32)}
    return save(path, nodes, (1, 8, 12, 12), opset=19, **weights)


@pytest.mark.parametrize("make", [attention, einsum, four_bits, deformable])
def test_what_the_runtime_runs_as_one_is_not_taken_for_plain_products(
    make: Callable[[Path], Path], profiles: Path, tmp_path: Path
) -> None:
    """It is timed though plain products of its sizes are known, and known from then on."""
    file, lines = make(tmp_path / "network.onnx"), list[str]()
    predictions = [
        predict_onnx(
            file, Models(device="local", runtime="ort-cpu", profiles_directory=profiles), say=lines.append
        )
        for _ in range(2)
    ]
    assert len(lines) == 1
    assert predictions[0].unknown_kernels == ()
    assert predictions[0] == predictions[1]
    table = load_table(table_path(profiles))
    timed = table.networks[-1]
    took_ms = table.usual_latency_ms(timed)
    assert predictions[0].latency_ms == pytest.approx(took_ms), "what the whole of it took"
    network = network_from_onnx(file)
    own = {kernel.key for kernel in network.kernels if kernel.function}
    assert own
    assert own <= set(timed.kernels)


def test_the_branch_of_an_if_that_counts_is_timed(profiles: Path, tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node("Conv", ["x", f"w{size}"], [name], pads=[size // 2] * 4)],
            name,
            [],
            [onnx.ValueInfoProto(name=name)],
        )
        for name, size in (("then_branch", 5), ("else_branch", 3))
    }
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["is_bright"]),
        helper.make_node("If", ["is_bright"], ["y"], **branches),
    ]
    weights = {f"w{size}": np.ones((64, 64, size, size), np.float32) for size in (3, 5)}
    file = save(tmp_path / "if.onnx", nodes, (1, 64, 28, 28), zero=np.float32(0), **weights)
    lines: list[str] = []
    for _ in range(2):
        models = Models(device="local", runtime="ort-cpu", profiles_directory=profiles)
        prediction = predict_onnx(file, models, say=lines.append)
        assert (prediction.source, prediction.unknown_kernels, len(lines)) == ("measured", (), 1)
        assert prediction.flops == 64 * 64 * 25 * 28 * 28
        assert prediction.notes[0].startswith("If (y) depends on the input: counted as its then branch")
    assert any("k5x5" in key for key in load_table(table_path(profiles)).networks[-1].kernels)


@pytest.mark.parametrize("missing", [True, False])
def test_weights_beside_the_file_are_not_needed(missing: bool, profiles: Path, tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    file = save(tmp_path / "network.onnx", [node], (1, 16, 24, 24), w=np.ones((48, 16, 7, 7), np.float32))
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="w.bin", size_threshold=0)
    if missing:
        (tmp_path / "w.bin").unlink()
    models = Models(device="local", runtime="ort-cpu", profiles_directory=profiles)
    prediction = predict_onnx(file, models)
    assert (prediction.source, prediction.unknown_kernels) == ("measured", ())
    assert bool(prediction.notes) == missing


def test_what_a_table_does_not_know_is_weighed_by_its_work(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 5 % of the work that is known, the rest stands for the network; above, nothing does."""
    file = tmp_path / "network.onnx"
    file.write_bytes(model_bytes(complete_architecture(SPACE, width=8)))
    kernels = opened(profiles).kernels(network_from_onnx(file).schedule)
    total = sum(map(work_of, kernels))
    monkeypatch.setattr(predicting, "can_be_extended", lambda model: False)
    decided = set()
    for unknown in set(kernels):
        lacking = sum(work_of(kernel) for kernel in kernels if kernel == unknown)
        monkeypatch.setattr(MeasuredCosts, "knows", lambda self, kernel, unknown=unknown: kernel != unknown)
        models = Models(device="local", runtime="ort-cpu", profiles_directory=profiles)
        prediction = predict_onnx(file, models, say=pytest.fail)
        assert prediction.unknown_kernels == (unknown.key,)
        assert (prediction.latency_ms is None) == (lacking > 0.05 * (total - lacking))
        decided.add(prediction.latency_ms is None)
    assert decided == {True, False}


def test_nothing_is_measured_where_the_table_cannot_be_written(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the system's answer, since a test may run as root."""
    monkeypatch.setattr(on_demand.os, "access", lambda path, mode: False)
    refuse_to_measure(monkeypatch)
    model = opened(profiles)
    assert complete_table(OTHER, model, say=pytest.fail) is model
    file = tmp_path / "other.onnx"
    file.write_bytes(model_bytes(complete_architecture(OTHER, width=8)))
    models = Models(device="local", runtime="ort-cpu", profiles_directory=profiles)
    prediction = predict_onnx(file, models, say=pytest.fail)
    assert prediction.latency_ms is None
    assert "its table cannot be added to" in str(prediction.why_no_latency)


def test_nothing_is_measured_into_a_shipped_table(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsonas_hw.profile import open as opening

    monkeypatch.setattr(opening, "shipped_profiles", lambda: profiles)
    refuse_to_measure(monkeypatch)
    model = opened(profiles)
    assert complete_table(OTHER, model, say=pytest.fail) is model


@pytest.mark.parametrize(
    "changes",
    [{"fingerprint": "another"}, {"source": "imported"}, {"target": Target(device="a10", runtime="ort-cpu")}],
)
def test_nor_into_a_table_that_is_not_this_machines(
    changes: dict[str, Any], profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_measure(monkeypatch)
    table = load_table(table_path(profiles))
    assert table.header.fingerprint == local_cpu().fingerprint
    model = MeasuredCosts(replace(table, header=replace(table.header, **changes)))
    assert complete_table(OTHER, model, say=pytest.fail) is model


def test_a_table_of_another_runtime_version_is_left_as_it_is_with_the_reason(profiles: Path) -> None:
    table, lines = load_table(table_path(profiles)), list[str]()
    assert table.corrections
    header = replace(table.header, versions={"onnxruntime": "0.1"})
    save_table(table.path, header, [*table.kernels.values(), *table.networks, *table.corrections.values()])
    content, model = table.path.read_bytes(), opened(profiles)
    assert complete_table(OTHER, model, say=lines.append) is model
    assert table.path.read_bytes() == content
    assert "onnxruntime 0.1" in lines[-1]
    assert lines[-1].startswith("they cannot be measured: ")


def refuse_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsonas_hw.profile import profiler

    monkeypatch.setattr(profiler, "profile_networks", lambda *args, **kwargs: pytest.fail("measured"))
