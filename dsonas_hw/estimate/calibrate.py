"""Sharpen the estimate of a device with networks that somebody measured on it.

    log measured ≈ log estimate(factors) + residual       factors: shrunk towards 1, robust to outliers

A factor multiplies the GPU time of one group of kernels, or the launch time of the host; two constants
stand for what every network spends besides (a copy of the input, kernels that an exported file hides). Priors
(`calibrate_fit`) say how far each may plausibly be from 1 (0 for the constants), so that three networks move
little more than the overall scale while thirty also tell pools from convolutions. With many networks, what
the factors leave is learned from the networks nearby (`calibrate_residual`). For networks whose work is far
from that of all measured ones the estimate stands (`calibrate_trust`). Whether more than one plain scale
factor pays is decided by cross-validation, and so are the noise that is assumed, the residual and the reach:
every network is predicted by a calibration that did not see it at any batch size, and that error is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.calibrate_check import (
    MeasuredNetwork,
    check_consistent,
    check_repeats,
    check_units,
)
from dsonas_hw.estimate.calibrate_fit import FACTORS, NO_ADJUSTMENT, Array, Streams
from dsonas_hw.estimate.calibrate_select import Fitted, choose_fit
from dsonas_hw.estimate.calibrate_trust import work_vector
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.estimate.kernel_features import category_of
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.target import Target

__all__ = ["MAX_ROWS", "MIN_ROWS", "Calibration", "MeasuredNetwork", "calibrate", "group_of", "streams_of"]

MIN_ROWS, MAX_ROWS = 3, 50
"""Of a user's file; what is shipped rests on more."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors on an estimate, and how well they predict networks that were held out."""

    device: str
    runtime: str
    precision: str
    factors: Mapping[str, float]
    image_ms: float
    """Per million elements of the images that a network takes: timings of others often include their copy."""
    network_ms: float
    """Per network, on the host."""
    num_networks: int
    mape: float
    """Cross-validated mean absolute relative error; 0.03 is 3 %."""
    mape_before: float
    """Of the estimate without calibration, on the same networks."""
    relative_sd: float
    """Robust standard deviation of the logarithm of the cross-validated ratios."""
    mape_other_family: float | None = None
    """The same error where a network is predicted without all others of its family; None: one family."""
    relative_sd_far: float | None = None
    """As `relative_sd`, without the network's family."""
    anchors: tuple[tuple[float, ...], ...] = ()
    """Feature vectors of `calibrate_residual`, and the weight of each last."""
    work: tuple[tuple[float, ...], ...] = ()
    """Work vectors of `calibrate_trust` of what was measured."""
    reach: float = 1.0
    """Distance of work vectors over which the calibration gives way to the estimate."""
    outliers: tuple[str, ...] = ()
    """Networks that the fit could not explain; their weight was lowered."""
    base: str = ""
    """Fingerprint of the estimate that the factors belong to."""
    created: str = field(default="")
    measured_by: str = ""
    """Who published the measurements, under which licence; empty: the user's own."""

    @property
    def target(self) -> Target:
        """What it is of, at any batch size."""
        return Target(device=self.device, runtime=self.runtime, precision=self.precision)


def group_of(kernel: Kernel) -> str:
    """Which factor a kernel's GPU time is multiplied with, besides "gpu"."""
    category = category_of(kernel)
    if category == "matrix" and kernel.kind == "conv":
        if max(kernel.kernel_size) == 1:
            return "point_conv"
        return "thin_conv" if kernel.inputs[0][1] <= 16 else "window_conv"
    if category == "matrix":
        return "product"
    if category in ("depthwise", "grouped"):
        return "depthwise"
    if category in ("pool", "reduce"):
        return "pool"
    return "norm" if category in ("norm", "softmax") else "elementwise"


def streams_of(model: EstimatedLatency, networks: Sequence[MeasuredNetwork]) -> Streams:
    """The estimate of every network, split into what the factors multiply."""
    gpu = np.zeros((len(networks), len(FACTORS)))
    host = np.zeros(len(networks))
    for index, network in enumerate(networks):
        for kernel, (gpu_ms, host_ms) in zip(network.kernels, model.times(network.kernels), strict=True):
            gpu[index, FACTORS.index(group_of(kernel))] += gpu_ms
            host[index] += host_ms
    return Streams(
        gpu,
        host,
        np.full(len(networks), model.network_ms),
        np.array([float(network.batch_size) for network in networks]),
        np.array([million_image_elements(network.kernels) for network in networks]),
    )


def million_image_elements(kernels: Sequence[Kernel]) -> float:
    """Of the largest tensor of at most four channels that a kernel reads, in millions; 0: none does."""
    shapes = [shape for kernel in kernels for shape in kernel.inputs if len(shape) == 4 and shape[1] <= 4]
    return max(map(prod, shapes), default=0) / 1e6


def calibrate(
    model: EstimatedLatency, networks: Sequence[MeasuredNetwork], *, measured_by: str = ""
) -> Calibration:
    """Fit the factors, and cross-validate.

    measured_by: who published the measurements; they may then be of several machines, so that two of one
    network may differ, and of any number.

    Raises:
        ProfileError: too few or too many rows, a unit slip, or rows that contradict each other.
    """
    most = math.inf if measured_by else MAX_ROWS
    if not MIN_ROWS <= len(networks) <= most:
        raise ProfileError(f"{len(networks)} measured networks; a calibration takes {MIN_ROWS} to {MAX_ROWS}")
    rows = Fitted(
        streams_of(model, networks),
        np.array([network.latency_ms for network in networks]),
        np.array([network.importance for network in networks]),
        np.array([work_vector(network.kernels) for network in networks]),
        model.sharpness,
    )
    measured, before = rows.measured, rows.latency_ms(NO_ADJUSTMENT)
    check_units(networks, before)
    if not measured_by:
        check_repeats(networks, least=MIN_ROWS)
    chosen = choose_fit(rows, _held_out_together(rows), [network.family for network in networks])
    check_consistent(networks, chosen.alone)
    fit = chosen.plan.fit(rows)
    logs = np.log(measured / fit.predict(rows))
    limit = max(0.15, 5 * float(np.median(np.abs(logs))))
    far = chosen.with_family
    weights = rows.importance / rows.importance.sum()
    return Calibration(
        device=model.target.device,
        runtime=model.target.runtime,
        precision=model.target.precision,
        factors=dict(zip(FACTORS, np.exp(fit.adjustment.logs).tolist(), strict=True)),
        image_ms=fit.adjustment.image_ms,
        network_ms=fit.adjustment.network_ms,
        num_networks=len(networks),
        mape=relative_error(chosen.alone, weights),
        mape_before=float(np.abs(before / measured - 1) @ weights),
        relative_sd=spread(chosen.alone, weights),
        mape_other_family=None if far is None else relative_error(far, weights),
        relative_sd_far=None if far is None else spread(far, weights),
        anchors=tuple(
            (*anchor, weight)
            for anchor, weight in zip(
                fit.residual.anchors.tolist(), fit.residual.weights.tolist(), strict=True
            )
        ),
        work=tuple(map(tuple, fit.evidence.points.tolist())),
        reach=fit.evidence.reach,
        base=model.fingerprint,
        outliers=tuple(n.name for n, left in zip(networks, np.abs(logs), strict=True) if left > limit),
        measured_by=measured_by,
    )


def _held_out_together(rows: Fitted) -> list[tuple[float, ...]]:
    """The network of every row at any batch size; with fewer than `MIN_ROWS` networks, every row."""
    networks = [tuple(work) for work in rows.work.tolist()]
    if len(set(networks)) >= MIN_ROWS:
        return networks
    return [(*network, batch) for network, batch in zip(networks, rows.streams.batch.tolist(), strict=True)]


def relative_error(errors: Array, weights: Array) -> float:
    """Mean of |predicted / measured − 1| from errors = log(measured / predicted); weights add up to 1."""
    return float(np.abs(np.expm1(-errors)) @ weights)


def spread(errors: Array, weights: Array) -> float:
    """Robust standard deviation around 0: from the 68th percentile of the absolute values."""
    order = np.argsort(np.abs(errors))
    reached = np.cumsum(weights[order])
    middle = int(np.searchsorted(reached, 0.68 * reached[-1]))
    return max(0.02, float(np.abs(errors)[order][min(middle, len(errors) - 1)]))
