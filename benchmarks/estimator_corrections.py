"""Fit the learned correction of single kernels: gradient-boosted trees on what the analytic model leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.estimator_model import Data, Fit, device_of
from benchmarks.measurements import Observation
from dsonas_hw.estimate.kernel_correction import FEATURES, correction_features
from dsonas_hw.estimate.kernel_features import CATEGORIES, COLUMN
from dsonas_hw.estimate.machine import machine_of
from dsonas_hw.target import Target

_N_ALIGNMENT = FEATURES.index("n_alignment")
_CHANNEL_ALIGNMENT = FEATURES.index("channel_alignment")


def fit_trees(
    fit: Fit,
    observations: Sequence[Observation],
    *,
    runtime: str,
    precision: str,
    category: str,
    num_trees: int = 80,
    num_leaves: int = 8,
) -> dict[str, Any] | None:
    """Trees for log(measured / analytic), as `kernel_correction.parse_trees` reads them.

    With several tables (source and device) the median of each is taken out first: the correction says which
    shapes are slow, never which cards. None: no observations.
    """
    chosen = [
        o for o in observations if not o.is_network and o.runtime == runtime and o.precision == precision
    ]
    data = Data(chosen)
    constants_of = fit.constants_of(fit.x)
    gpu = data.gpu_ms(constants_of, {})
    inputs, targets, tables = [], [], []
    for (name, _, _), members, rows, counts, _ in data.groups:
        device = device_of(name)
        constants = constants_of(device.architecture, runtime, precision)
        machine = machine_of(device, Target(runtime=runtime, precision=precision), constants)
        rows = rows[np.asarray(counts.argmax(axis=1)).ravel()]
        keep = rows[:, COLUMN["category"]] == CATEGORIES.index(category)
        inputs.append(correction_features(rows, machine)[keep])
        targets.append(np.log(data.latency_ms[members] / gpu[members])[keep])
        tables += [chosen[index].table for index, kept in zip(members, keep, strict=True) if kept]
    if not tables:
        return None
    x, y = np.concatenate(inputs), np.concatenate(targets)
    keys = np.array([" ".join(map(str, table)) for table in tables])
    sizes = Counter(keys)
    if len(sizes) > 1:
        for key in sizes:
            y[keys == key] -= np.median(y[keys == key])
    weights = np.array([sizes[key] ** -0.5 for key in keys])
    # Networks have even channel numbers; most single convolutions that were measured do not.
    even = (x[:, _N_ALIGNMENT] >= 2) & (x[:, _CHANNEL_ALIGNMENT] >= 2)
    weights *= np.where(even, 3.0, 1.0)
    model = HistGradientBoostingRegressor(
        max_iter=num_trees,
        max_leaf_nodes=num_leaves,
        learning_rate=0.12,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    ).fit(x, y, sample_weight=weights / weights.mean())
    return _exported(model) | {"trust_thin": runtime != "eager"}


def _exported(model: HistGradientBoostingRegressor) -> dict[str, Any]:
    trees = []
    for (predictor,) in model._predictors:
        nodes = []
        for node in predictor.nodes:
            if node["is_leaf"]:
                nodes.append([float(f"{node['value']:.4g}")])
            else:
                threshold = float(f"{node['num_threshold']:.5g}")
                nodes.append([int(node["feature_idx"]), threshold, int(node["left"]), int(node["right"])])
        trees.append(nodes)
    return {"base": float(f"{float(np.ravel(model._baseline_prediction)[0]):.4g}"), "trees": trees}
