"""Trees: against a slow walk, and what they may touch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.constants import load_constants
from dsonas_hw.estimate.kernel_correction import FEATURES, correction_features, parse_trees
from dsonas_hw.estimate.kernel_features import COLUMNS, category_of, halved, kernel_rows
from dsonas_hw.estimate.machine import machine_of
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.target import Target

DATA = {
    "base": 0.5,
    "trust_thin": True,
    "trees": [
        # log_m ≤ 1 → 0.1, else (log_n ≤ 2 → 0.2, else 0.4)
        [[0, 1.0, 1, 2], [0.1], [1, 2.0, 3, 4], [0.2], [0.4]],
        [[-0.05]],
    ],
}


def _conv(c: int, k: int = 3, groups: int = 1) -> Kernel:
    return Kernel(
        op="conv",
        inputs=((8, c, 14, 14),),
        output=(8, c, 14, 14),
        kernel_size=(k, k),
        groups=groups,
        num_weights=c * (c // groups) * k * k,
    )


def test_leaves_add_up() -> None:
    trees = parse_trees(DATA)
    features = np.zeros((3, len(FEATURES)))
    features[1, :2] = (2.0, 1.0)
    features[2, :2] = (2.0, 3.0)
    # base 0.5, second tree −0.05, and the leaf of the first: 0.1, 0.2, 0.4.
    assert trees.predict(features) == pytest.approx([0.55, 0.65, 0.85])


def test_thin_even_convolutions_are_left_to_the_constants() -> None:
    constants = load_constants().resolve("Turing", Target(runtime="eager"))
    machine = machine_of(load_device("2080ti"), Target(runtime="eager"), constants)
    rows = kernel_rows([_conv(16), _conv(64), _conv(15)])
    shy = parse_trees(DATA | {"trust_thin": False}).factor(rows, machine)
    assert shy[0] == 1.0
    assert shy[1] == pytest.approx(parse_trees(DATA).factor(rows, machine)[1])
    assert shy[2] != 1.0
    assert correction_features(rows, machine).shape == (3, len(FEATURES))


def test_rows_describe_kernels() -> None:
    row = dict(zip(COLUMNS, kernel_rows([_conv(32)])[0], strict=True))
    # 8 images of 14 × 14 outputs = 1568 rows; 32 columns; 32 channels × 9 taps deep.
    assert (row["m"], row["n"], row["k"]) == (1568, 32, 288)
    assert row["can_winograd"] == 1
    assert row["m"] * row["n"] * row["k"] == _conv(32).flops
    assert category_of(_conv(32, groups=32)) == "depthwise"
    assert category_of(_conv(32, groups=4)) == "grouped"


MATRIX = [
    _conv(32),
    _conv(32, k=5),
    Kernel(op="gemm", inputs=((8, 64),), output=(8, 10), num_weights=640),
    Kernel(op="matmul", inputs=((8, 4, 16, 32), (8, 4, 32, 24)), output=(8, 4, 16, 24)),
    Kernel(op="conv_transpose", inputs=((2, 8, 7, 7),), output=(2, 4, 14, 14), kernel_size=(2, 2),
           stride=(2, 2), num_weights=128),
]  # fmt: skip


@pytest.mark.parametrize("kernel", MATRIX)
def test_matrix_sizes_agree_with_flops(kernel: Kernel) -> None:
    row = dict(zip(COLUMNS, kernel_rows([kernel])[0], strict=True))
    assert row["m"] * row["n"] * row["k"] * row["groups"] == kernel.flops


@pytest.mark.parametrize("kernel", MATRIX)
def test_half_of_the_images_is_the_kernel_of_half_the_batch(kernel: Kernel) -> None:
    def halve(shape: Shape) -> Shape:
        return (shape[0] // 2, *shape[1:])

    smaller = dataclasses.replace(
        kernel, inputs=tuple(map(halve, kernel.inputs)), output=halve(kernel.output)
    )
    assert np.array_equal(halved(kernel_rows([kernel])), kernel_rows([smaller]))
