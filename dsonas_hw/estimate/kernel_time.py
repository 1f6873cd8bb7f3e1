"""How long a GPU takes for a kernel: the analytic core of the estimate of absent devices.

    time = launch + soft-max(arithmetic, memory traffic)

Arithmetic. A convolution or matrix product of m × n × k multiply-adds runs on tiles that do not fill the
matrix exactly, on SMs that are not all busy when there are few tiles, at an efficiency of the peak; a 3×3
convolution takes the cheapest of implicit GEMM, fused Winograd F(2×2) and non-fused Winograd F(4×4), as
cuDNN's heuristics roughly do. Depthwise convolutions and pools are written as one thread per output that
computes addresses and walks its window: they are bound by integer instructions, which Maxwell and Pascal
execute slowly (no 32-bit integer multiply-add), and Volta and newer on units of their own.

Memory. Bytes over bandwidth × efficiency; tensors that fit in the L2 cache are read faster.

All functions are elementwise over rows of `kernel_features.kernel_rows`. Constants are dimensionless
efficiencies, microseconds or counts, named in `constants.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.estimate.kernel_features import CATEGORIES, COLUMN

Array = NDArray[np.float64]
Constants = Mapping[str, float]

#: (rows, columns) of the output tiles of one thread block.
TILES = ((128, 128), (128, 64), (64, 128), (64, 64), (128, 32), (32, 128), (32, 32))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The datasheet facts the time model uses."""

    generation: str
    num_sms: float
    macs_per_s: float
    """Multiply-adds per second on the units that compute convolutions in this precision."""
    gemm_macs_per_s: float
    """The same for matrix products (eager frameworks keep TF32 off there)."""
    core_macs_per_s: float
    """The same for what never runs on tensor cores: Winograd."""
    on_tensor_cores: bool
    gemm_on_tensor_cores: bool
    integer_per_s: float
    """Integer instructions per second (lanes × clock)."""
    bytes_per_s: float
    l2_bytes: float
    element_bytes: float
    layout_copies: bool
    """Whether convolutions on tensor cores copy their tensors to channels-last and back."""


def kernel_times_ms(rows: Array, machine: Machine, c: Constants) -> Array:
    """Time of every kernel in milliseconds, alone on the GPU, without the host.

    rows: shape (num_kernels, len(COLUMNS)); returns shape (num_kernels,).
    """
    category = rows[:, COLUMN["category"]].astype(int)
    times = np.zeros(len(rows))
    for name, function in _TIMES.items():
        chosen = category == CATEGORIES.index(name)
        if chosen.any():
            times[chosen] = function(rows[chosen], machine, c)
    for name in ("elementwise", "norm", "move", "reduce", "softmax"):
        chosen = category == CATEGORIES.index(name)
        if chosen.any():
            times[chosen] = _memory_s(rows[chosen], machine, c, f"bandwidth_{name}")
    return (times + c["launch_us"] * 1e-6) * 1e3


def _soft_max(a: Array, b: Array, sharpness: float | Array) -> Array:
    high, low = np.maximum(a, b), np.minimum(a, b)
    return np.asarray(high * (1 + (low / np.maximum(high, 1e-30)) ** sharpness) ** (1 / sharpness))


def _soft_min(times: list[Array], sharpness: float) -> Array:
    stacked = np.stack(times)
    best = stacked.min(axis=0)
    return np.asarray(best * ((stacked / best) ** -sharpness).sum(axis=0) ** (-1 / sharpness))


def _column(rows: Array, name: str) -> Array:
    return rows[:, COLUMN[name]]


def _memory_s(rows: Array, machine: Machine, c: Constants, efficiency: str) -> Array:
    """Traffic over bandwidth; a tensor that fits in L2 costs a fraction of its bytes."""
    seconds = np.zeros(len(rows))
    size = machine.element_bytes
    for name in ("inputs", "outputs"):
        moved = _column(rows, name) * size
        held = _column(rows, "largest" if name == "inputs" else "outputs") * size
        resident = 1 / (1 + (held / (c["l2_share"] * machine.l2_bytes)) ** 2)
        seconds += moved * (1 - resident * (1 - c["l2_cost"]))
    seconds += _column(rows, "weights") * size
    return np.asarray(seconds / (machine.bytes_per_s * c["bandwidth"] * c[efficiency]))


def _busy(tiles: Array, machine: Machine, c: Constants) -> Array:
    """Share of the SMs that work: with fewer than about `idle` tiles each, SMs are idle or wait."""
    per_sm = tiles / machine.num_sms
    return np.asarray(per_sm / np.hypot(per_sm, c["idle"]))


def _ceil(a: Array, b: float) -> Array:
    return np.ceil(a / b)


def _matrix_s(rows: Array, machine: Machine, c: Constants) -> Array:
    convolution = _column(rows, "is_convolution") > 0
    memory = _memory_s(rows, machine, c, "bandwidth_matrix")
    tensor = np.where(convolution, machine.on_tensor_cores, machine.gemm_on_tensor_cores)
    rate = np.where(convolution, machine.macs_per_s, machine.gemm_macs_per_s)
    overlap = np.where(tensor, c["tensor_overlap"], c["overlap"])
    times = _soft_max(_gemm_s(rows, machine, c, rate, tensor), memory, overlap)
    if machine.layout_copies:
        copied = 2 * machine.element_bytes * (_column(rows, "inputs") + _column(rows, "outputs"))
        seconds = copied / (machine.bytes_per_s * c["bandwidth"] * c["bandwidth_layout"])
        times = times + np.where(convolution & (tensor > 0), seconds, 0.0)
    # TF32 competes with Winograd in fp32, half precision does not.
    winograd = (_column(rows, "can_winograd") > 0) & (~(tensor > 0) | (machine.element_bytes == 4))
    if winograd.any():
        w = rows[winograd]
        fused = _soft_max(_winograd_fused_s(w, machine, c), memory[winograd], c["overlap"])
        unfused = _winograd_unfused_s(w, machine, c)
        times[winograd] = _soft_min([times[winograd], fused, unfused], c["choice"])
    return times


def _gemm_s(rows: Array, machine: Machine, c: Constants, rate: Array, tensor: NDArray[np.bool_]) -> Array:
    """Implicit GEMM on the best of `TILES`."""
    m, n, k, groups = (_column(rows, name) for name in ("m", "n", "k", "groups"))
    linear = _column(rows, "is_linear_rank") > 0
    efficiency = np.where(tensor, c["tensor"], np.where(linear, c["gemm"], c["implicit_gemm"]))
    narrow = np.where(_column(rows, "input_channels") < 8, c["few_channels"], 1.0)
    narrow = narrow * np.where((_column(rows, "taps") == 1) & ~linear, c["pointwise"], 1.0)
    strided = np.where(_column(rows, "stride") > 1, c["strided"], 1.0)
    even = np.where(tensor, 16 / machine.element_bytes, 4)  # 16 bytes: what one load takes
    aligned = (_column(rows, "input_channels") % even == 0) & (n % even == 0)
    crooked = np.where(aligned, 1.0, np.where(tensor, c["tensor_unaligned"], c["unaligned"]))
    startup = np.where(tensor, c["tensor_startup_depth"], c["startup_depth"])
    gain = np.where(tensor, c["tensor_tile_gain"], c["tile_gain"])
    thin = _thin(rows, c)
    split = 1 + k / c["split_depth"]
    options = []
    for tile_m, tile_n in TILES:
        area = tile_m * tile_n / 128**2
        tiles = _ceil(m, tile_m) * _ceil(n, tile_n) * groups
        macs = tiles * tile_m * tile_n * (k + startup)
        busy = _busy(tiles * split * area**0.5, machine, c)
        options.append(macs / (rate * efficiency * area**gain * narrow * thin * strided * crooked * busy))
    return _soft_min(options, 8.0)


def _thin(rows: Array, c: Constants) -> Array:
    """Share of the efficiency that windowed convolutions keep with fewer than 64 channels (or than 16)."""
    channels = np.clip(_column(rows, "input_channels"), 16.0, 64.0) / 64.0
    thin = np.where(_column(rows, "taps") > 1, c["thin"], 0.0)
    return np.asarray(channels**thin)


def _winograd_fused_s(rows: Array, machine: Machine, c: Constants) -> Array:
    """F(2×2, 3×3) in one kernel: 4 multiplications per output and channel pair instead of 9."""
    n, channels = _column(rows, "n"), _column(rows, "input_channels")
    patches = _column(rows, "images") * _ceil(_column(rows, "height"), 2) * _ceil(_column(rows, "width"), 2)
    padded = _ceil(n, 32) * 32
    tiles = _ceil(patches, 32) * _ceil(n, 32)
    macs = _ceil(patches, 32) * 32 * padded * 16 * (channels + c["winograd_startup_channels"])
    busy = _busy(tiles * (1 + channels / c["split_depth"]), machine, c)
    return np.asarray(macs / (machine.core_macs_per_s * c["winograd"] * _thin(rows, c) * busy))


def _winograd_unfused_s(rows: Array, machine: Machine, c: Constants) -> Array:
    """F(4×4, 3×3): transforms through memory around 36 matrix products."""
    n, channels = _column(rows, "n"), _column(rows, "input_channels")
    patches = _column(rows, "images") * _ceil(_column(rows, "height"), 4) * _ceil(_column(rows, "width"), 4)
    tiles = 36 * _ceil(patches, 64) * _ceil(n, 64)
    macs = tiles * 64 * 64 * (channels + c["winograd_startup_channels"])
    product = macs / (
        machine.core_macs_per_s
        * c["winograd_gemm"]
        * _busy(tiles * (1 + channels / c["split_depth"]), machine, c)
    )
    moved = _column(rows, "inputs") + _column(rows, "outputs") + 36 * patches * (channels + n) * 2
    moved = moved + (9 + 2 * 36) * channels * n
    transforms = (
        moved * machine.element_bytes / (machine.bytes_per_s * c["bandwidth"] * c["bandwidth_winograd"])
    )
    return np.asarray(product + transforms + c["winograd_launch_us"] * 1e-6)


def _walk_s(rows: Array, machine: Machine, c: Constants, name: str) -> Array:
    """One thread per output, `taps` steps each: integer instructions against memory."""
    work = c[f"{name}_base"] + c[f"{name}_per_tap"] * _column(rows, "taps")
    integer = _column(rows, "outputs") * work / (machine.integer_per_s * c["integer"])
    memory = _memory_s(rows, machine, c, f"bandwidth_{name}")
    return _soft_max(integer, memory, c["overlap"])


def _depthwise_s(rows: Array, machine: Machine, c: Constants) -> Array:
    return _walk_s(rows, machine, c, "depthwise")


def _pool_s(rows: Array, machine: Machine, c: Constants) -> Array:
    return _walk_s(rows, machine, c, "pool")


def _grouped_s(rows: Array, machine: Machine, c: Constants) -> Array:
    rate = np.full(len(rows), machine.macs_per_s)
    tensor = np.full(len(rows), machine.on_tensor_cores)
    compute = _gemm_s(rows, machine, c, rate, tensor) / c["grouped"]
    return _soft_max(compute, _memory_s(rows, machine, c, "bandwidth_grouped"), c["overlap"])


_TIMES = {"matrix": _matrix_s, "depthwise": _depthwise_s, "grouped": _grouped_s, "pool": _pool_s}
