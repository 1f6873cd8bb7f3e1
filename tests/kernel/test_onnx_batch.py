"""The batch: open or fixed in the file, replaced on request, baked into target shapes or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_build import Build

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork, network_from_onnx


def shuffle_net(batch: int | str, *, literal: int | None = None) -> Build:
    """Convolution, channel shuffle, pool, linear layer; reshapes name the batch `literal` if given."""
    build = Build(batch, 8, 6, 6)
    lead = -1 if literal is None else literal
    y = build.batchnorm(build.conv("x", 8, 8, 3), 8)
    y = build.add("Transpose", build.add("Reshape", y, build.ints(lead, 2, 4, 6, 6)), perm=[0, 2, 1, 3, 4])
    y = build.add("GlobalAveragePool", build.add("Reshape", y, build.ints(lead, 8, 6, 6)))
    tail = (lead, -1) if literal else (-1, 8)
    y = build.add("Gemm", build.add("Reshape", y, build.ints(*tail)), build.weight(8, 3), build.weight(3))
    build.result = y  # type: ignore[attr-defined]
    return build


def costs(build: Build, batch_size: int | None = None) -> tuple[int, int, int, int | None]:
    network = network_from_onnx(build.model(build.result), batch_size=batch_size)  # type: ignore[attr-defined]
    assert network.unknown == ()
    counted = count_costs(network.kernels)
    weights = sum(k.num_weights for k in network.kernels)
    return counted.flops, counted.mac - weights, counted.params, network.peak_activation_elements


def test_open_batch_is_one_and_fixed_batch_stays() -> None:
    for stated, expected in (("N", 1), (5, 5)):
        build = shuffle_net(stated)
        first, *_ = network_from_onnx(build.model(build.result)).kernels  # type: ignore[attr-defined]
        assert first.batch_size == expected


@pytest.mark.parametrize(("stated", "literal"), [("N", None), (1, 1), (2, 2), (3, None), (4, 4)])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_costs_scale_with_the_batch_and_weights_do_not(
    stated: int | str, literal: int | None, batch_size: int
) -> None:
    flops, moved, params, peak = costs(shuffle_net("N"))
    assert costs(shuffle_net(stated, literal=literal), batch_size) == (
        flops * batch_size,
        moved * batch_size,
        params,
        None if peak is None else peak * batch_size,
    )


def attention(batch: int, tokens: int, heads: int, width: int, *, tokens_first: bool) -> Build:
    """Self-attention as torch exports it at a fixed batch, every target shape a literal."""
    size = width // heads
    build = Build(batch, tokens, width)
    y = "x"
    if tokens_first:  # (tokens, batch · heads, size), the way nn.MultiheadAttention views it
        y = build.add("Transpose", y, perm=[1, 0, 2])
        y = build.add("Add", build.add("MatMul", y, build.weight(width, width)), build.weight(width))
        y = build.add("Reshape", y, build.ints(tokens, batch * heads, size))
        y = build.add("Transpose", y, perm=[1, 0, 2])
        y = build.add("Reshape", y, build.ints(batch, heads, tokens, size))
    else:
        y = build.add("MatMul", y, build.weight(width, width))
        y = build.add("Reshape", y, build.ints(batch, tokens, heads, size))
        y = build.add("Transpose", y, perm=[0, 2, 1, 3])
    scores = build.add("MatMul", y, build.add("Transpose", y, perm=[0, 1, 3, 2]))
    y = build.add("MatMul", build.add("Softmax", scores, axis=-1), y)
    if tokens_first:
        y = build.add(
            "Reshape", build.add("Transpose", y, perm=[2, 0, 1, 3]), build.ints(tokens * batch, width)
        )
        y = build.add("Gemm", y, build.weight(width, width))
        y = build.add("Reshape", y, build.ints(tokens, batch, width))
        y = build.add("Transpose", y, perm=[1, 0, 2])
    else:
        y = build.add(
            "Reshape", build.add("Transpose", y, perm=[0, 2, 1, 3]), build.ints(batch, tokens, width)
        )
    build.result = build.add("Relu", y)  # type: ignore[attr-defined]
    return build


@given(
    batch=st.integers(1, 3),
    batch_size=st.integers(1, 6),
    tokens=st.integers(2, 7),
    heads=st.integers(2, 4),
    size=st.integers(2, 5),
    tokens_first=st.booleans(),
)
def test_a_file_with_a_baked_batch_reads_like_one_exported_at_that_batch(
    batch: int, batch_size: int, tokens: int, heads: int, size: int, tokens_first: bool
) -> None:
    here = attention(batch, tokens, heads, heads * size, tokens_first=tokens_first)
    there = attention(batch_size, tokens, heads, heads * size, tokens_first=tokens_first)
    assert (
        network_from_onnx(here.model(here.result), batch_size=batch_size).kernels  # type: ignore[attr-defined]
        == network_from_onnx(there.model(there.result)).kernels  # type: ignore[attr-defined]
    )


def test_an_open_axis_of_a_target_takes_the_batch() -> None:
    """(tokens, batch, width) to (anything, heads, size): the batch goes where the exporter left room."""
    build = Build(1, 6, 8)
    y = build.add("Reshape", build.add("Transpose", "x", perm=[1, 0, 2]), build.ints(-1, 4, 2))
    kernel = network_from_onnx(build.model(build.add("Softmax", y)), batch_size=3).kernels[-1]
    assert kernel.output == (18, 4, 2)


def test_a_class_token_stored_for_one_image_is_repeated() -> None:
    build = Build(1, 4, 8)
    y = build.add("Concat", build.weight(1, 1, 8), "x", axis=1)
    (kernel,) = network_from_onnx(build.model(build.add("Identity", y)), batch_size=3).kernels
    assert (kernel.output, kernel.num_weights) == ((3, 5, 8), 8)


def test_a_resize_to_literal_sizes_keeps_the_batch() -> None:
    build = Build(1, 8, 4, 4)
    y = build.add("Resize", "x", "", "", build.ints(1, 8, 9, 9), mode="nearest")
    (kernel,) = network_from_onnx(build.model(y), batch_size=3).kernels
    assert kernel.output == (3, 8, 9, 9)


def test_every_input_with_the_same_batch_changes() -> None:
    build = Build(1, 8)
    other = build.input(1, 8)
    (kernel,) = network_from_onnx(build.model(build.add("Add", "x", other)), batch_size=7).kernels
    assert kernel.inputs == ((7, 8), (7, 8))


def test_a_batch_that_cannot_change_is_refused() -> None:
    build = Build(2, 8)
    picked = build.add("Gather", "x", build.ints(0, 1))  # of what the batch is, two rows
    with pytest.raises(ModelFileError, match=r"cannot run at batch size 4.*Gather \(gather0\)"):
        network_from_onnx(build.model(build.add("Relu", picked)), batch_size=4)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_below_one_is_refused(batch_size: int) -> None:
    with pytest.raises(ModelFileError, match="batch size"):
        network_from_onnx(Build(1, 8).model("x"), batch_size=batch_size)


def test_a_file_exported_for_training_reads_at_any_batch() -> None:
    # BatchNormalization then has the running statistics as outputs, which no batch scales.
    build = Build(2, 8, 6, 6)
    operands = [build.weight(8) for _ in range(4)]
    y, *_ = build.add(
        "BatchNormalization", build.conv("x", 8, 8, 3), *operands, num_outputs=3, training_mode=1
    )
    build.result = build.add("Relu", y)  # type: ignore[attr-defined]
    plain = Build(2, 8, 6, 6)
    plain.result = plain.add("Relu", plain.batchnorm(plain.conv("x", 8, 8, 3), 8))  # type: ignore[attr-defined]
    for fuse in (True, False):
        kernels = [
            network_from_onnx(b.model(b.result), batch_size=16, fuse=fuse).kernels  # type: ignore[attr-defined]
            for b in (build, plain)
        ]
        assert kernels[0] == kernels[1]
        assert {kernel.batch_size for kernel in kernels[0]} == {16}


class TestRecurrent:
    """LSTM, GRU and RNN take (time, batch, features): the batch is where the layer takes it."""

    @staticmethod
    def network(*shape: int | str, before: str = "", **attributes: int) -> OnnxNetwork:
        build = Build(*shape)
        source = build.add("Transpose", "x", perm=[1, 0, 2]) if before == "Transpose" else "x"
        source = build.add("MatMul", source, build.weight(16, 16)) if before == "MatMul" else source
        operands = [build.weight(1, 32, 16), build.weight(1, 32, 8)]
        y = build.add("LSTM", source, *operands, hidden_size=8, **attributes)
        return network_from_onnx(build.model(y))

    @pytest.mark.parametrize(
        ("before", "attributes", "batch"),
        [("", {}, 3), ("MatMul", {}, 3), ("Transpose", {}, 7), ("", {"layout": 1}, 7)],
    )
    def test_fixed_sizes(self, before: str, attributes: dict[str, int], batch: int) -> None:
        assert self.network(7, 3, 16, before=before, **attributes).batch_size == batch

    def test_another_batch_leaves_the_time(self) -> None:
        build = Build(7, 3, 16)
        y = build.add("LSTM", "x", build.weight(1, 32, 16), build.weight(1, 32, 8), hidden_size=8)
        network = network_from_onnx(build.model(y), batch_size=5)
        assert (network.batch_size, network.input_shapes) == (5, {"x": (7, 5, 16)})
        assert network.costs.flops == 7 * 5 * 4 * 8 * (16 + 8)

    def test_an_open_batch_is_one_and_the_time_is_asked_for(self) -> None:
        assert self.network(7, "", 16).input_shapes == {"x": (7, 1, 16)}
        with pytest.raises(ModelFileError, match=r"dimension 0 open.* --input-shape x=128x1x16$"):
            self.network("", "", 16)

    def test_a_state_beside_the_sequence(self) -> None:
        build = Build(7, 3, 16)
        states = [build.input(1, 3, 8), build.input(1, 3, 8)]
        operands = [build.weight(1, 32, 16), build.weight(1, 32, 8), "", "", *states]
        y, *_ = build.add("LSTM", "x", *operands, num_outputs=3, hidden_size=8)
        network = network_from_onnx(build.model(y), batch_size=2)
        assert [shape[1] for shape in network.input_shapes.values()] == [2, 2, 2]


def test_a_letter_that_not_all_inputs_have_is_no_batch() -> None:
    """Of RoiAlign, `n` is the number of boxes."""
    build = Build(1, 8, 6, 6)
    build.add("Relu", boxes := build.input("n", 4))
    with pytest.raises(ModelFileError, match=f"'{boxes}' .* leaves dimension 0 open"):
        network_from_onnx(build.model(build.add("Relu", "x")))


@pytest.mark.parametrize("op", ["GroupNormalization", "MeanVarianceNormalization"])
def test_normalisations_whose_shape_onnx_does_not_infer(op: str) -> None:
    build = Build(1, 8, 6, 6, opset=21)
    operands = [build.weight(8), build.weight(8)] if op == "GroupNormalization" else []
    attributes = {"num_groups": 2} if operands else {}
    network = network_from_onnx(build.model(build.conv(build.add(op, "x", *operands, **attributes), 8, 4, 1)))
    assert network.unknown == ()
    assert count_costs(network.kernels).flops >= 4 * 8 * 36
