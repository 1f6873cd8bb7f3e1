"""A learned factor on top of the analytic time: what tiling, alignment and algorithm choice leave over.

Small gradient-boosted regression trees on dimensionless features, fitted by `benchmarks/fit_estimator.py` to
the logarithm of measured over analytic time of single kernels. They only see shapes and ratios, no device, so
that they carry over to devices that were not measured; they return a number near 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.estimate.kernel_features import CATEGORIES, COLUMN, halved
from dsonas_hw.estimate.kernel_time import Array, Constants, Machine, kernel_times_ms

#: Categories of kernels that a correction may be fitted for, and its features.
FEATURES = (
    "log_m",
    "log_n",
    "log_k",
    "log_channels",
    "log_height",
    "log_intensity",  # arithmetic time over memory time, both at the datasheet's peak
    "log_tiles_per_sm",
    "log_macs_s",
    "n_alignment",
    "channel_alignment",
    "height_alignment",
    "taps",
    "stride",
    "n_fill_128",
    "n_fill_32",
    "wave_fill",
    "height_fill_4",
    "fast_integer",
)

_LIMIT = 1.2
"""A correction is at most exp(±1.2)."""


def correction_features(rows: Array, machine: Machine) -> Array:
    """Features of kernels on a machine, shape (len(rows), len(FEATURES))."""

    def column(name: str) -> Array:
        return rows[:, COLUMN[name]]

    m, n, k, height = (np.maximum(column(name), 1.0) for name in ("m", "n", "k", "height"))
    channels = np.maximum(column("input_channels"), 1.0)
    macs_s = m * n * k * column("groups") / machine.macs_per_s
    moved = column("inputs") + column("outputs") + column("weights")
    memory_s = moved * machine.element_bytes / machine.bytes_per_s
    tiles = np.ceil(m / 128) * np.ceil(n / 64) * column("groups") / machine.num_sms
    return np.stack(
        [
            np.log(m),
            np.log(n),
            np.log(k),
            np.log(channels),
            np.log(height),
            np.log(macs_s / memory_s),
            np.log(tiles),
            np.log(macs_s),
            _alignment(n),
            _alignment(channels),
            _alignment(height),
            column("taps"),
            column("stride"),
            n / (np.ceil(n / 128) * 128),
            n / (np.ceil(n / 32) * 32),
            tiles / np.ceil(tiles),
            height / (np.ceil(height / 4) * 4),
            np.full(len(rows), float(machine.generation not in ("Maxwell", "Pascal"))),
        ],
        axis=1,
    )


def _alignment(values: Array) -> Array:
    """How many of 2, 4, 8, 32 divide a size."""
    return np.asarray(np.sum([values % divisor == 0 for divisor in (2, 4, 8, 32)], axis=0), dtype=np.float64)


@dataclass(frozen=True)
class Trees:
    """An ensemble whose trees are stored one after the other; a leaf points at itself."""

    base: float
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Array
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: Array
    depth: int
    trust_thin: bool
    """Whether kernels with few, even channels were measured too."""

    def predict(self, features: Array) -> Array:
        """Sum of the leaves that each row of features falls into."""
        at = np.broadcast_to(self.roots, (len(features), len(self.roots))).copy()
        row = np.arange(len(features))[:, None]
        for _ in range(self.depth):
            goes_left = features[row, self.feature[at]] <= self.threshold[at]
            at = np.where(goes_left, self.left[at], self.right[at])
        return np.asarray(self.base + self.value[at].sum(axis=1))

    def factor(self, rows: Array, machine: Machine) -> Array:
        """What to multiply analytic times with."""
        logarithm = self.predict(correction_features(rows, machine))
        if not self.trust_thin:
            logarithm = logarithm * _trust(rows)
        return np.asarray(np.exp(np.clip(logarithm, -_LIMIT, _LIMIT)))


def _trust(rows: Array) -> Array:
    """Share of the correction to apply to even channel numbers: none below 16 channels, all from 64 on.

    Measured single kernels hardly have such shapes, whole networks do, and the constants were fitted to
    those. Even: a multiple of 8.
    """
    n, channels = rows[:, COLUMN["n"]], rows[:, COLUMN["input_channels"]]
    ramp = np.clip((np.log2(np.maximum(channels, 1.0)) - 4) / 2, 0.0, 1.0)
    even = (n % 8 == 0) & (channels % 8 == 0) & (rows[:, COLUMN["is_convolution"]] > 0)
    return np.where(even, ramp, 1.0)


def parse_trees(data: Mapping[str, Any]) -> Trees:
    """Read `{"base", "trust_thin", "trees": [[[feature, threshold, left, right] or [value], …], …]}`.

    Raises:
        ValueError: a node points outside its tree, or names a feature that does not exist.
    """
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    value: list[float] = []
    roots: list[int] = []
    depth = 0
    for tree in data["trees"]:
        start = len(feature)
        roots.append(start)
        depth = max(depth, _depth(tree))
        for index, node in enumerate(tree):
            is_leaf = len(node) == 1
            if not is_leaf and not (
                node[0] < len(FEATURES) and index < min(node[2:]) <= max(node[2:]) < len(tree)
            ):
                raise ValueError(f"damaged tree node {node!r}")
            feature.append(0 if is_leaf else int(node[0]))
            threshold.append(0.0 if is_leaf else float(node[1]))
            left.append(start + (index if is_leaf else int(node[2])))
            right.append(start + (index if is_leaf else int(node[3])))
            value.append(float(node[0]) if is_leaf else 0.0)
    return Trees(
        base=float(data["base"]),
        roots=np.array(roots, dtype=np.int64),
        feature=np.array(feature, dtype=np.int64),
        threshold=np.array(threshold),
        left=np.array(left, dtype=np.int64),
        right=np.array(right, dtype=np.int64),
        value=np.array(value),
        depth=depth,
        trust_thin=bool(data["trust_thin"]),
    )


def corrected_times_ms(
    rows: Array, machine: Machine, constants: Constants, corrections: Mapping[str, Trees]
) -> Array:
    """Analytic times of kernels, times the correction of their category where there is one.

    Trees have steps, so that twice the images might get a shorter time: a kernel takes at least as long as
    the same kernel on half of its images.
    """
    times = kernel_times_ms(rows, machine, constants) * correction_factors(rows, machine, corrections)
    even = np.isin(rows[:, COLUMN["category"]], [CATEGORIES.index(category) for category in corrections])
    even &= (rows[:, COLUMN["images"]] > 1) & (rows[:, COLUMN["images"]] % 2 == 0)
    if even.any():
        half_ms = corrected_times_ms(halved(rows[even]), machine, constants, corrections)
        times[even] = np.maximum(times[even], half_ms)
    return times


def correction_factors(rows: Array, machine: Machine, corrections: Mapping[str, Trees]) -> Array:
    """The correction of every kernel, 1 where its category has none; no constant but the clock moves it."""
    factors = np.ones(len(rows))
    for category, trees in corrections.items():
        chosen = rows[:, COLUMN["category"]] == CATEGORIES.index(category)
        if chosen.any():
            factors[chosen] = trees.factor(rows[chosen], machine)
    return factors


def _depth(tree: Sequence[Sequence[float]]) -> int:
    depth = [0] * len(tree)
    for index, node in enumerate(tree):
        if len(node) > 1:
            for child in (int(node[2]), int(node[3])):
                depth[child] = depth[index] + 1
    return max(depth, default=0)
