"""Volumes, recurrent layers, the bodies of If, Loop and Scan: counted as often as they run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_build import Build

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx import loops
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.recurrent import unrolled


def info(name: str, elem_type: int = TensorProto.FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


class TestRecurrent:
    @pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    @pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
    def test_flops_and_params(self, op: str, gates: int, direction: str) -> None:
        steps, batch, features, hidden = 10, 2, 32, 64
        ways = 2 if direction == "bidirectional" else 1
        build = Build(steps, batch, features)
        operands = [
            build.weight(ways, gates * hidden, features),
            build.weight(ways, gates * hidden, hidden),
            build.weight(ways, 2 * gates * hidden),
        ]
        y, *_ = build.add(op, "x", *operands, num_outputs=2, hidden_size=hidden, direction=direction)
        network = network_from_onnx(build.model(build.add("Relu", y)))
        # every step and direction multiplies the input and the state with `gates` matrices each
        flops = steps * batch * ways * gates * hidden * (features + hidden)
        params = ways * gates * hidden * (features + hidden + 2)
        assert (network.costs.flops, network.costs.params, network.unknown) == (flops, params, ())
        layer = network.kernels[0]
        assert layer.output == (steps, batch, ways * hidden)
        apart = unrolled(network.kernels)
        assert sum(kernel.flops for kernel in apart) == flops
        assert len(apart) == 1 + 2 * steps * ways + 1  # products with the input, two a step, the ReLU

    def test_the_golden_one(self) -> None:
        build = Build(10, 1, 32)
        y = build.add("LSTM", "x", build.weight(1, 256, 32), build.weight(1, 256, 64), hidden_size=64)
        # 10 · 4 · 64 · (32 + 64)
        assert network_from_onnx(build.model(y)).costs.flops == 245_760

    def test_a_weight_that_does_not_fit_is_refused(self) -> None:
        build = Build(10, 1, 32)
        y = build.add("LSTM", "x", build.weight(1, 256, 31), build.weight(1, 256, 64), hidden_size=64)
        with pytest.raises(ModelFileError, match=r"LSTM \(lstm0\)"):
            network_from_onnx(build.model(y))


def if_model(*, constant: bool | None = None, bad_else: bool = False) -> onnx.ModelProto:
    """x through a convolution of 8 or of 4 filters, and back to 8 channels: the branches differ in cost."""

    def branch(filters: int, name: str) -> onnx.GraphProto:
        channels = 7 if bad_else and name == "else" else 8
        nodes = [
            helper.make_node("Conv", ["x", f"{name}_a"], [f"{name}_c"], pads=[1] * 4),
            helper.make_node(
                "Conv", [f"{name}_c", "shared" if name == "then" else f"{name}_b"], [f"{name}_y"]
            ),
        ]
        stored = [weight(f"{name}_a", filters, channels, 3, 3)]
        if name == "else":
            stored.append(weight(f"{name}_b", 8, filters, 1, 1))
        return helper.make_graph(nodes, name, [], [info(f"{name}_y")], stored)

    build = Build(1, 8, 6, 6)
    if constant is None:
        build.inputs.append(info("flag", TensorProto.BOOL, []))
        condition = "flag"
    else:
        condition = build.constant(constant, "bool")
    build.initializers.append(weight("shared", 8, 8, 1, 1))
    y = build.add("If", condition, then_branch=branch(8, "then"), else_branch=branch(4, "else"))
    return build.model(build.add("Conv", y, "shared"))


class TestIf:
    # then: 36 · 8 · (8·9 + 8); else: 36 · (4·8·9 + 8·4); then 36 · 8 · 8 behind it
    THEN, ELSE, BEHIND = 36 * 8 * (72 + 8), 36 * (288 + 32), 36 * 64

    def test_the_costlier_branch_counts_and_both_are_stored(self) -> None:
        network = network_from_onnx(if_model())
        assert network.unknown == ()
        assert network.costs.flops == self.THEN + self.BEHIND
        # then_a, shared (used twice, stored once), else_a, else_b
        assert network.params == 576 + 64 + 288 + 32
        assert network.notes == (
            "If (if0) depends on the input: counted as its then branch, the other costs no more",
        )

    @pytest.mark.parametrize(("constant", "flops"), [(True, THEN), (False, ELSE)])
    def test_a_constant_condition_takes_its_branch(self, constant: bool, flops: int) -> None:
        network = network_from_onnx(if_model(constant=constant))
        assert (network.costs.flops, network.notes) == (flops + self.BEHIND, ())

    def test_a_branch_for_other_sizes_is_not_taken(self) -> None:
        network = network_from_onnx(if_model(bad_else=True))
        assert network.costs.flops == self.THEN + self.BEHIND
        assert network.params == 576 + 64 + 4 * 7 * 9 + 32

    def test_at_another_batch(self) -> None:
        assert network_from_onnx(if_model(), batch_size=3).costs.flops == 3 * (self.THEN + self.BEHIND)


def loop_model(trips: Any, *, condition: Any = None, goes_on: str = "", state: Any = None) -> onnx.ModelProto:
    """`state ← state · W` as often as the loop runs, and every state stacked."""
    nodes = [
        helper.make_node("MatMul", ["state", "W"], ["next"]),
        helper.make_node("Relu", ["next"], ["part"]),
    ]
    if goes_on:  # while the iteration number is below it
        nodes += [helper.make_node("Less", ["i", goes_on], ["still"])]
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("state", 1, (1, 8))],
        [info("still" if goes_on else "go", TensorProto.BOOL, []), info("next"), info("part")],
    )
    build = Build(1, 8)
    build.initializers.append(weight("W", 8, 8))
    build.initializers.append(numpy_helper.from_array(np.asarray(4), "four"))
    start = "x" if state is None else build.weight(1, 8)
    limit = build.constant(trips, "int64") if trips is not None else ""
    go = build.constant(condition, "bool") if condition is not None else ""
    final, stacked = build.add("Loop", limit, go, start, num_outputs=2, body=body)
    return build.model(build.add("Relu", final), build.add("Relu", stacked))


class TestLoop:
    @pytest.mark.parametrize("trips", [0, 1, 7])
    def test_a_constant_number_of_iterations(self, trips: int) -> None:
        network = network_from_onnx(loop_model(trips))
        assert network.unknown == ()
        assert network.costs.flops == trips * 64
        assert network.params == (64 if trips else 0), "the weight is stored once"
        if trips:
            assert network.kernels[-1].output == (trips, 1, 8)
            assert f"its body is counted {trips} times" in network.notes[0]

    def test_a_while_loop_over_constants(self) -> None:
        # iterations 0, 1, 2, 3 end with "go on", iteration 4 with "stop"
        network = network_from_onnx(loop_model(None, condition=True, goes_on="four"))
        assert (network.unknown, network.costs.flops) == ((), 5 * 64)

    def test_a_state_that_begins_with_zeros_is_no_constant(self) -> None:
        assert network_from_onnx(loop_model(3, state=0)).costs.flops == 3 * 64

    def test_a_loop_without_end_is_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loops, "MAX_UNROLLED", 500)
        assert not network_from_onnx(loop_model(100)).unknown
        network = network_from_onnx(loop_model(None, condition=True))
        assert network.unknown[0] == "Loop (loop0)"
        assert not network.is_known


def test_scan() -> None:
    steps = 12
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["frame", "W"], ["in"]),
            helper.make_node("MatMul", ["state", "R"], ["back"]),
            helper.make_node("Add", ["in", "back"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("Identity", ["next"], ["out"]),
        ],
        "body",
        [info("state", 1, (2, 5)), info("frame", 1, (2, 3))],
        [info("next", 1, (2, 5)), info("out", 1, (2, 5))],
    )
    build = Build(2, steps, 3)
    build.initializers += [weight("W", 3, 5), weight("R", 5, 5)]
    _, y = build.add(
        "Scan", build.weight(2, 5), "x", num_outputs=2, body=body, num_scan_inputs=1, scan_input_axes=[1],
        scan_output_axes=[1],
    )  # fmt: skip
    network = network_from_onnx(build.model(build.add("Relu", y)))
    assert network.unknown == ()
    assert network.costs.flops == steps * 2 * (3 * 5 + 5 * 5)
    assert network.params == 15 + 25
    assert network.kernels[-1].output == (2, steps, 5)
