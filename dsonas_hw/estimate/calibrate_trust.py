"""How far a calibration carries: all the way beside the networks it rests on, not at all far from them.

    log latency = trust · log calibrated + (1 - trust) · log estimate
    trust = exp(-½ (distance / reach)²)            to the nearest measured network

The distance is Euclidean in the logarithms of a network's work: multiply-adds and elements moved, both for
one image. A larger batch does not move a network, so that the mixture grows with the batch as both parts do.

Read as two hypotheses, "the calibration holds here" with probability `trust` and "the estimate does", the
variance of the logarithm is that of the mixture (`mixed`): far away it is the estimate's, and in between it
covers both, however much they disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.estimate.calibrate_residual import similarity, spread_out
from dsonas_hw.kernel.spec import Kernel

Array = NDArray[np.float64]
Moments = tuple[float, float]
"""Mean and variance of the logarithm of a latency."""

REACHES = (1.0, 2.0, 4.0)
"""Distances over which trust may fade; which one is decided by networks of families that were held out."""
USUAL_REACH = 2.0
"""Where there are no families: work seven times less, or more, is a reach away."""
MAX_POINTS = 60


@dataclass(frozen=True)
class Evidence:
    """Where measured networks lie; without any, nothing is trusted."""

    points: Array = field(default_factory=lambda: np.zeros((0, 2)))
    """Shape (points, 2): work vectors."""
    reach: float = USUAL_REACH

    def trust(self, work: Array) -> Array:
        """From 0 to 1, of work vectors of shape (networks, 2)."""
        if not len(self.points):
            return np.zeros(len(work))
        return np.asarray(similarity(work / self.reach, self.points / self.reach).max(axis=1))


def work_vector(kernels: Sequence[Kernel]) -> tuple[float, float]:
    """Logarithms of the multiply-adds and of the elements moved, for one image."""
    multiply_adds = sum(kernel.flops for kernel in kernels)
    elements = sum(kernel.mac - kernel.num_weights for kernel in kernels)
    images = kernels[0].batch_size
    return math.log(1 + multiply_adds / images), math.log(1 + elements / images)


def collect_evidence(work: Array, reach: float) -> Evidence:
    """Points so that no measured network is far from one of them; work: shape (networks, 2)."""
    return Evidence(work[spread_out(work, MAX_POINTS)], reach)


def mixed(trust: float, calibrated: Moments, estimated: Moments) -> Moments:
    """Mean and variance of what is distributed in one way with probability `trust`, else in the other."""
    apart = calibrated[0] - estimated[0]
    return (
        trust * calibrated[0] + (1 - trust) * estimated[0],
        trust * calibrated[1] + (1 - trust) * estimated[1] + trust * (1 - trust) * apart**2,
    )
