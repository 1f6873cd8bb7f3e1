"""Every ablation takes something away, and gives it back."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from benchmarks import estimator_priors as priors
from benchmarks.ablate_estimator import ABLATIONS, fixed
from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.kernel_features import kernel_rows
from dsonas_hw.estimate.kernel_time import kernel_times_ms
from dsonas_hw.estimate.machine import machine_of
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.target import Target

SHAPE = (4, 40, 14, 14)
KERNELS = [
    Kernel(op="conv", inputs=(SHAPE,), output=SHAPE, kernel_size=(3, 3), num_weights=40 * 40 * 9),
    Kernel(op="conv", inputs=(SHAPE,), output=SHAPE, num_weights=40 * 40),
    Kernel(op="conv", inputs=(SHAPE,), output=SHAPE, kernel_size=(3, 3), groups=40, num_weights=40 * 9),
    Kernel(op="avgpool", inputs=(SHAPE,), output=SHAPE, kernel_size=(3, 3)),
    Kernel(op="unary", inputs=(SHAPE,), output=SHAPE, function="relu"),
]
HOST = "launches on the host"


def _times() -> list[float]:
    """What the priors say of the kernels on two cards and precisions, and of their launches."""
    times = [*priors.HOST_US.values()]
    for name, generation in (("t4", "Turing"), ("p4", "Pascal")):
        constants = {key: start for key, (start, _) in priors.SHARED.items()} | priors.FIXED
        for key, factor in priors.FIXED_BY_GENERATION.get(generation, {}).items():
            constants[key] *= factor
        for precision in ("fp32", "fp16"):
            machine = machine_of(load_device(name), Target(runtime="eager", precision=precision), constants)
            times += kernel_times_ms(kernel_rows(KERNELS), machine, constants).tolist()
    return times


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"nothing", "learned correction"}))
def test_an_ablation_changes_the_model_and_leaves_no_trace(name: str) -> None:
    tables = (priors.SHARED, priors.FIXED, priors.PER_ERA, priors.PER_GENERATION, priors.FIXED_BY_GENERATION)
    before, kept = _times(), copy.deepcopy(tables)
    with ABLATIONS[name]():
        without = _times()
    assert not np.allclose(before, without)
    assert _times() == before
    assert tables == kept


def test_what_is_fixed_is_not_fitted() -> None:
    with fixed(bandwidth_matrix=1.0):
        assert priors.FIXED["bandwidth_matrix"] == 1.0
        assert "bandwidth_matrix" not in priors.SHARED
        assert "bandwidth_matrix" not in priors.PER_GENERATION
