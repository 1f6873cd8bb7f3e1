"""ONNX Runtime's own operations: worked out by hand, and as its optimiser writes them at every level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_build import Build

from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork, network_from_onnx

CONTRIB = "com.microsoft"


def network(build: Build, *outputs: str) -> OnnxNetwork:
    found = network_from_onnx(build.model(*outputs, domains=[(CONTRIB, 1), ("com.microsoft.nchwc", 1)]))
    assert found.unknown == ()
    return found


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_fused_matmul(trans_a: int, trans_b: int) -> None:
    a, b = (1, 4, 16, 32), (1, 4, 32, 24)
    build = Build(*((*a[:2], a[3], a[2]) if trans_a else a))
    other = build.input(*((*b[:2], b[3], b[2]) if trans_b else b))
    y = build.add("FusedMatMul", "x", other, transA=trans_a, transB=trans_b, alpha=0.5, domain=CONTRIB)
    y = build.add("MatMul", y, build.weight(24, 10))
    found = network(build, y)
    assert found.costs.flops == 4 * 16 * 32 * 24 + 4 * 16 * 24 * 10
    assert found.kernels[0].output == (1, 4, 16, 24)


def test_fused_matmul_with_batches_between() -> None:
    # A of (16 tokens, 1 batch, 4 heads ...) as transBatch has it: the first axis moves behind the others
    build = Build(16, 1, 4, 32)
    other = build.input(16, 1, 4, 32)
    y = build.add("FusedMatMul", "x", other, transBatchA=1, transBatchB=1, transB=1, domain=CONTRIB)
    assert network(build, y).kernels[0].output == (1, 4, 16, 16)


def attention_flops(batch: int, tokens: int, width: int) -> int:
    """Query, key, value; scores; weighted sum."""
    return batch * (tokens * width * 3 * width + 2 * tokens * tokens * width)


def test_attention() -> None:
    build = Build(2, 10, 32)
    y = build.add("Attention", "x", build.weight(32, 96), build.weight(96), num_heads=4, domain=CONTRIB)
    found = network(build, y)
    assert (found.costs.flops, found.params) == (attention_flops(2, 10, 32), 32 * 96 + 96)


def test_quantised_attention() -> None:
    build = Build(2, 10, 32)
    build.inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, (2, 10, 32))]
    weight, scale = build.constant(np.zeros((32, 96)), np.int8), build.constant(0.1)
    y = build.add("QAttention", "x", weight, build.weight(96), scale, scale, num_heads=4, domain=CONTRIB)
    found = network(build, build.add("Neg", y))
    assert found.costs.flops == attention_flops(2, 10, 32)
    assert found.kernels[-1].output == (2, 10, 32)
    assert found.precision == "int8"


def test_multi_head_attention() -> None:
    build = Build(2, 10, 32)
    key, value = build.input(2, 7, 32), build.input(2, 7, 48)
    y = build.add("MultiHeadAttention", "x", key, value, num_heads=4, domain=CONTRIB)
    found = network(build, build.add("Neg", y))
    assert found.costs.flops == 2 * 10 * 7 * (32 + 48)
    assert found.kernels[-1].output == (2, 10, 48)


def test_group_query_attention_reads_the_past() -> None:
    build = Build(1, 1, 64)  # 8 heads of 8, 2 of key and value, 15 tokens before this one
    key, value = build.input(1, 1, 16), build.input(1, 1, 16)
    past = [build.input(1, 2, 15, 8) for _ in range(2)]
    lengths = [build.constant([15], np.int32), build.constant(16, np.int32)]
    y = build.add(
        "GroupQueryAttention", "x", key, value, *past, *lengths, num_heads=8, kv_num_heads=2, domain=CONTRIB
    )
    assert network(build, y).costs.flops == 8 * (16 * 8 + 16 * 8)


def test_embedding_and_norms() -> None:
    build = Build(1, 10)
    build.inputs = [helper.make_tensor_value_info("x", TensorProto.INT32, (1, 10))]
    tables = [build.weight(100, 32), build.weight(64, 32), build.weight(2, 32)]
    norm = [build.weight(32), build.weight(32)]
    segment = build.input(1, 10, elem_type=TensorProto.INT32)
    e = build.add("EmbedLayerNormalization", "x", segment, *tables, *norm, domain=CONTRIB)
    y, *_, summed = build.add(
        "SkipLayerNormalization",
        e,
        build.input(1, 10, 32),
        *norm,
        build.weight(32),
        num_outputs=4,
        domain=CONTRIB,
    )
    y = build.add("BiasGelu", y, build.weight(32), domain=CONTRIB)
    y = build.add("FastGelu", build.add("QuickGelu", y, domain=CONTRIB), build.weight(32), domain=CONTRIB)
    found = network(build, build.add("Add", y, summed))
    # the tables, gamma and beta (used twice, stored once), the residual's bias, two biases of activations
    assert found.params == 166 * 32 + 64 + 32 + 64
    assert found.kernels[-1].output == (1, 10, 32)


def test_products_of_integers() -> None:
    build = Build(1, 5, 8)
    scale, zero = build.constant(0.1), build.constant(0, np.uint8)
    w = build.constant(np.zeros((8, 6)), np.uint8)
    y = build.add("DynamicQuantizeMatMul", "x", w, scale, zero, build.weight(6), domain=CONTRIB)
    packed = build.constant(np.zeros((4, 1, 3)), np.uint8)
    y = build.add("MatMulNBits", y, packed, build.weight(4), K=6, N=4, bits=4, block_size=16, domain=CONTRIB)
    found = network(build, build.add("Relu", y))
    assert [(k.output, k.flops, k.params) for k in found.kernels[:2]] == [
        ((1, 5, 6), 5 * 8 * 6, 48 + 6),
        ((1, 5, 4), 5 * 6 * 4, 24),
    ]


def test_quantised_operations_with_the_channels_last() -> None:
    build = Build(1, 6, 6, 8)
    build.inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 6, 6, 8))]
    s, z = build.constant(0.1), build.constant(0, np.uint8)
    w = build.constant(np.zeros((16, 8, 3, 3)), np.int8)
    zw = build.constant(0, np.int8)
    y = build.add(
        "QLinearConv",
        "x",
        s,
        z,
        w,
        s,
        zw,
        s,
        z,
        channels_last=1,
        pads=[1] * 4,
        strides=[2, 2],
        domain=CONTRIB,
    )
    y = build.add("QLinearAdd", y, s, z, y, s, z, s, z, domain=CONTRIB)
    y = build.add("QLinearSigmoid", y, s, z, s, z, domain=CONTRIB)
    y = build.add("QLinearConcat", s, z, y, s, z, y, s, z, axis=3, domain=CONTRIB)
    y = build.add("QLinearGlobalAveragePool", y, s, z, s, z, channels_last=1, domain=CONTRIB)
    y = build.add("DequantizeLinear", build.add("Reshape", y, build.ints(1, 32)), s, z)
    found = network(build, build.add("MatMul", y, build.weight(32, 2)))
    assert found.costs.flops == 9 * 16 * 72 + 64
    assert [k.op for k in found.kernels] == ["conv", "sum", "concat", "global_avgpool", "gemm"]
    assert found.precision == "int8"


def test_convolutions_over_blocks_of_channels() -> None:
    build = Build(1, 3, 12, 12)
    y = build.add(
        "Conv", "x", build.weight(16, 3, 3, 3), build.weight(16), pads=[1] * 4, strides=[2, 2],
        activation="Relu", domain="com.microsoft.nchwc",
    )  # fmt: skip
    y = build.add("Conv", y, build.weight(16, 1, 3, 3), group=16, pads=[1] * 4, domain="com.microsoft.nchwc")
    y = build.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], domain="com.microsoft.nchwc")
    y = build.add("ReorderOutput", y, channels=12, domain="com.microsoft.nchwc")
    y = build.add("ReorderInput", y, domain="com.microsoft.nchwc")
    y = build.add("GlobalAveragePool", y, domain="com.microsoft.nchwc")
    found = network(build, y)
    assert found.costs.flops == 36 * 16 * 27 + 36 * 16 * 9
    assert found.kernels[-1].inputs == ((1, 12, 3, 3),)


# -- as the optimiser writes them ----------------------------------------------------------------------------


def convolutions() -> Build:
    build = Build(1, 16, 12, 12)
    y = build.add("Relu", build.batchnorm(build.conv("x", 16, 32, 3), 32))
    z = build.conv(y, 32, 32, 3, group=32, bias=True)
    y = build.add("Relu", build.add("Add", y, z))
    y = build.add("MaxPool", build.conv(y, 32, 32, 1), kernel_shape=[2, 2], strides=[2, 2])
    y = build.add("ConvTranspose", y, build.weight(32, 16, 2, 2), strides=[2, 2])
    y = build.add("Flatten", build.add("GlobalAveragePool", y))
    build.result = build.add("Relu", build.add("Gemm", y, build.weight(16, 10), build.weight(10)))  # type: ignore[attr-defined]
    return build


def attention() -> Build:
    build = Build(1, 10, 32)
    heads = [
        build.add(
            "Transpose",
            build.add("Reshape", build.add("Add", build.add("MatMul", "x", build.weight(32, 32)),
                                           build.weight(32)), build.ints(1, 10, 4, 8)),
            perm=[0, 2, 1, 3],
        )
        for _ in range(3)
    ]  # fmt: skip
    q, k, v = heads
    scores = build.add("MatMul", q, build.add("Transpose", k, perm=[0, 1, 3, 2]))
    y = build.add("Softmax", build.add("Div", scores, build.constant(2.828)), axis=-1)
    y = build.add("Transpose", build.add("MatMul", y, v), perm=[0, 2, 1, 3])
    y = build.add("Add", "x", build.add("Reshape", y, build.ints(1, 10, 32)))
    y = build.add("LayerNormalization", y, build.weight(32), build.weight(32), axis=-1)
    y = build.add("Add", build.add("MatMul", y, build.weight(32, 64)), build.weight(64))
    half = build.add("Mul", y, build.constant(0.5))
    erf = build.add("Erf", build.add("Div", y, build.constant(1.4142135)))
    build.result = build.add("Mul", half, build.add("Add", erf, build.constant(1.0)))  # type: ignore[attr-defined]
    return build


def quantised() -> Build:
    build = Build(1, 16, 8, 8)
    s, z, zw = build.constant(0.1), build.constant(0, np.uint8), build.constant(0, np.int8)

    def through(name: str) -> str:
        return str(build.add("DequantizeLinear", build.add("QuantizeLinear", name, s, z), s, z))

    def conv(name: str) -> str:
        w = build.add("DequantizeLinear", build.constant(np.ones((16, 16, 3, 3)), np.int8), s, zw)
        return through(str(build.add("Relu", build.add("Conv", name, w, pads=[1] * 4))))

    y = conv(through("x"))
    y = through(str(build.add("Add", y, conv(y))))
    build.result = build.add("GlobalAveragePool", y)  # type: ignore[attr-defined]
    return build


def recurrent() -> Build:
    build = Build(10, 1, 32)
    y = build.add("LSTM", "x", build.weight(1, 256, 32), build.weight(1, 256, 64), hidden_size=64)
    build.result = build.add("Relu", y)  # type: ignore[attr-defined]
    return build


@pytest.mark.parametrize("make", [convolutions, attention, quantised, recurrent])
@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_what_the_optimiser_writes_counts_the_same(make: Any, level: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    build = make()
    onnx.save(build.model(build.result), tmp_path / "plain.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(tmp_path / "plain.onnx"), options, providers=["CPUExecutionProvider"])
    plain, optimised = (network_from_onnx(tmp_path / f"{name}.onnx") for name in ("plain", "optimised"))
    assert optimised.unknown == ()
    assert optimised.costs.flops == plain.costs.flops > 0
    assert optimised.precision == plain.precision
    # what it folds (a batch norm, zero points) is stored no more
    assert 0.9 * plain.params <= optimised.params <= plain.params + 64
