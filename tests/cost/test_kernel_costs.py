"""Costs of single kernels: categories, rows, what lies between them and beyond."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from dsonas_hw.cost.kernel_costs import KernelCosts, category_of, coordinates, features
from dsonas_hw.cost.kernel_fit import fit_categories
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import KernelRow


def conv(
    channels_in: int,
    channels_out: int,
    side: int = 28,
    *,
    size: int = 3,
    stride: int = 1,
    groups: int = 1,
    function: str = "blocked",
) -> Kernel:
    return Kernel(
        op="conv",
        function=function,
        inputs=((1, channels_in, side * stride, side * stride),),
        output=(1, channels_out, side, side),
        kernel_size=(size, size),
        stride=(stride, stride),
        groups=groups,
        num_weights=channels_in * channels_out * size**2 // groups,
        num_bias=channels_out,
    )


def true_ms(kernel: Kernel) -> float:
    """A machine whose speed depends smoothly on the number of channels."""
    channels_in, channels_out = kernel.inputs[0][1], kernel.output[1]
    efficiency = 1 / (1 + 20 / channels_in + 30 / channels_out)
    return 0.004 + 3e-8 * kernel.flops / efficiency + 2e-7 * math.prod(kernel.output)


def rows(count: int = 80, *, noise: float = 0.02, seed: int = 0) -> list[KernelRow]:
    rng = random.Random(seed)
    drawn = [
        conv(
            rng.choice((16, 32, 64, 128, 256)),
            rng.choice((16, 48, 96, 192, 384)),
            rng.choice((7, 14, 28, 56)),
        )
        for _ in range(count)
    ]
    return [
        KernelRow(
            kernel=k, latency_ms=true_ms(k) * math.exp(rng.gauss(0, noise)), source="measured", num_samples=4
        )
        for k in drawn
    ]


def fitted(table: list[KernelRow]) -> KernelCosts:
    return KernelCosts(fit_categories(table), table)


def test_categories_go_from_general_to_special() -> None:
    assert category_of(conv(16, 32)) == ("conv", "dense", "blocked")
    assert category_of(conv(16, 32, size=1, function="")) == ("conv", "pointwise", "plain")
    assert category_of(conv(32, 32, groups=32)) == ("conv", "depthwise", "blocked")
    assert category_of(conv(32, 32, size=1, groups=32)) == ("conv", "scale", "blocked")
    assert category_of(conv(32, 64, groups=4)) == ("conv", "grouped", "blocked")


def test_features_of_a_convolution_follow_from_its_shapes() -> None:
    # 16·28² in, 32·28² out, 16·32·9 weights; flops = weights · 28²; taps = 32·28²·16; nothing spills.
    pixels = 28 * 28
    expected = (
        1,
        0,
        16 * pixels / 1e4,
        32 * pixels / 1e4,
        4608 / 1e4,
        4608 * pixels / 1e6,
        512 * pixels / 1e6,
        0,
    )
    assert features(conv(16, 32)) == pytest.approx(expected)
    wanted = [math.log(value) for value in (16, 32, pixels, 9, 1, 1, 1)]
    assert coordinates(conv(16, 32)) == pytest.approx([*wanted, 0.0])


def test_sizes_between_the_rows_cost_what_their_neighbours_say() -> None:
    costs = fitted(rows())
    for kernel in (conv(48, 96), conv(96, 64, 20), conv(200, 300, 14), conv(20, 150, 40)):
        cost = costs.cost(kernel)
        assert cost.latency_ms == pytest.approx(true_ms(kernel), rel=0.12)
        assert costs.knows(kernel)


def test_a_cost_is_less_certain_the_farther_it_is_from_all_rows() -> None:
    costs = fitted(rows())
    measured, between = costs.cost(conv(64, 96)), costs.cost(conv(90, 130, 20))
    beyond, unrelated = costs.cost(conv(64, 96, 200)), costs.cost(conv(64, 64, groups=64))
    assert measured.deviation <= between.deviation < beyond.deviation
    assert between.deviation < 0.2 < 0.5 <= unrelated.deviation
    assert not costs.knows(conv(64, 96, 800))


def test_a_category_that_was_never_measured_costs_what_its_ancestor_says() -> None:
    costs = fitted(rows())
    plain = conv(64, 96, function="")
    assert not costs.knows(plain)
    assert costs.cost(plain).latency_ms == pytest.approx(true_ms(conv(64, 96)), rel=0.5)
    copy = Kernel(op="copy", function="transpose", inputs=((1, 64, 28, 28),), output=(1, 28, 28, 64))
    assert costs.cost(copy).latency_ms > 0  # the ancestor of all: what any kernel takes for so many elements


def test_a_table_without_rows_says_so() -> None:
    with pytest.raises(KeyError):
        KernelCosts({}, []).cost(conv(16, 16))


def test_many_kernels_at_once_cost_what_each_costs_alone() -> None:
    table = rows()
    kernels = [conv(channels, 64, side) for channels in (16, 24, 100) for side in (7, 9, 28)]
    together, alone = fitted(table), fitted(table)
    together.add(kernels)
    for kernel in kernels:
        first, second = together.cost(kernel), alone.cost(kernel)
        assert first.latency_ms == pytest.approx(second.latency_ms)
        assert first.deviation == pytest.approx(second.deviation)


def test_a_refit_on_fewer_rows_keeps_the_length_scales() -> None:
    table = rows()
    fits = fit_categories(table)
    again = fit_categories(table[:40], like=fits)
    category = category_of(table[0].kernel)
    assert again[category].length_scales == fits[category].length_scales
    assert again[category].coefficients != fits[category].coefficients


def test_one_row_that_was_disturbed_moves_little() -> None:
    table = rows()
    table[7] = replace(table[7], latency_ms=3 * table[7].latency_ms, num_samples=1)
    kernel = conv(40, 80, 20)
    assert fitted(table).latency_ms(kernel) == pytest.approx(true_ms(kernel), rel=0.25)
