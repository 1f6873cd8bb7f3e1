"""What is known before fitting: starting values and spreads of the estimate's constants.

A spread is the standard deviation of a constant's (or factor's) logarithm around its starting value (or 1).
"""

from __future__ import annotations

from collections.abc import Mapping

from dsonas_hw.estimate.constants import NEAREST_GENERATION

#: constant → (starting value, spread of its logarithm).
SHARED: dict[str, tuple[float, float]] = {
    "launch_us": (3.0, 0.3),
    "overlap": (3.0, 0.3),
    "tensor_overlap": (4.0, 0.5),
    "choice": (6.0, 0.3),
    "l2_share": (0.5, 0.3),
    "l2_cost": (0.5, 0.3),
    "split_depth": (200.0, 0.4),
    "idle": (1.0, 0.3),
    "implicit_gemm": (0.7, 0.2),
    "gemm": (0.7, 0.2),
    "tensor": (0.6, 0.2),
    "few_channels": (0.8, 0.2),
    "thin": (0.05, 0.4),
    "pointwise": (1.0, 0.3),
    "strided": (0.9, 0.2),
    "unaligned": (0.8, 0.2),
    "tensor_unaligned": (0.5, 0.3),
    "startup_depth": (40.0, 0.4),
    "tensor_startup_depth": (100.0, 0.4),
    "tile_gain": (0.2, 0.25),
    "tensor_tile_gain": (0.3, 0.4),
    "winograd": (0.6, 0.15),
    "winograd_startup_channels": (16.0, 0.4),
    "winograd_gemm": (0.7, 0.2),
    "winograd_launch_us": (10.0, 0.4),
    "bandwidth_winograd": (0.7, 0.2),
    "bandwidth_matrix": (0.7, 0.2),
    "bandwidth_layout": (1.5, 0.4),
    "bandwidth_elementwise": (0.85, 0.1),
    "bandwidth_norm": (0.85, 0.1),
    "bandwidth_move": (0.7, 0.2),
    "bandwidth_reduce": (0.6, 0.2),
    "bandwidth_softmax": (0.6, 0.2),
    "bandwidth_depthwise": (0.7, 0.2),
    "bandwidth_pool": (0.7, 0.2),
    "bandwidth_grouped": (0.6, 0.2),
    "grouped": (0.6, 0.4),
    "depthwise_base": (80.0, 0.4),
    "depthwise_per_tap": (10.0, 0.4),
    "pool_base": (80.0, 0.3),
    "pool_per_tap": (20.0, 0.3),
    "power_exponent": (0.33, 0.15),
}
#: Not fitted: no measurement tells them apart from others, or none exists.
FIXED = {"bandwidth": 1.0, "integer": 1.0, "network_us": 1.0, "concat": 1.0}
#: Prior knowledge. Integer arithmetic of Maxwell and Pascal: an address computation takes about twice the
#: instructions. Bandwidth: what copies reach of the datasheet, relative to Turing's.
FIXED_BY_GENERATION = {
    "Maxwell": {"integer": 0.5, "bandwidth": 0.93},
    "Pascal": {"integer": 0.5, "bandwidth": 0.93},
    "Volta": {"bandwidth": 1.03},
    "Ampere": {"bandwidth": 1.05},
    "Ada": {"bandwidth": 1.05},
}
#: Measured with the software of one time (PyTorch around 1.5, cuDNN 7) wherever whole networks were measured:
#: what those on Turing say about memory and depthwise kernels holds for their neighbours too.
ERA = ("Maxwell", "Pascal", "Volta", "Turing")
PER_ERA = {"bandwidth": 0.2, "depthwise_base": 0.3, "bandwidth_depthwise": 0.3}

#: constant → spread of the logarithm of a generation's factor.
PER_GENERATION: dict[str, float] = {
    "implicit_gemm": 0.12,
    "gemm": 0.15,
    "tensor": 0.15,
    "winograd": 0.12,
    "winograd_gemm": 0.12,
    "thin": 1.0,
    "tile_gain": 0.12,
    "bandwidth": 0.1,
    "bandwidth_matrix": 0.1,
    "bandwidth_layout": 0.2,
    "depthwise_base": 0.1,
    "bandwidth_depthwise": 0.1,
}
#: constant → spread of the logarithm of TensorRT's factor, per precision.
PER_RUNTIME: dict[str, float] = {
    name: 0.4
    for name in (
        "implicit_gemm", "tensor", "winograd", "winograd_gemm", "idle", "bandwidth_matrix",
        "depthwise_base", "depthwise_per_tap", "bandwidth_depthwise", "tile_gain", "tensor_tile_gain",
        "split_depth", "few_channels", "strided", "startup_depth", "tensor_startup_depth", "thin",
        "launch_us", "bandwidth_move", "bandwidth_elementwise", "bandwidth_reduce", "bandwidth_pool",
        "bandwidth_grouped", "grouped",
    )
} | {"network_us": 3.0, "concat": 0.7}  # fmt: skip
#: Host time to launch one kernel from eager PyTorch, in µs; the last one: any kernel from TensorRT.
HOST_US = {
    "conv": 50.0, "depthwise": 50.0, "norm": 35.0, "elementwise": 18.0, "pool": 20.0, "reduce": 25.0,
    "gemm": 40.0, "move": 26.0, "softmax": 20.0, "tensorrt": 3.0,
}  # fmt: skip
HOST_COLUMNS = tuple(HOST_US)
#: Standard deviations of logarithms: of a host's factor on launches around that of its generation (a card
#: sits in a machine, and runs libraries, of its time), of a generation's, and of a table's on GPU times.
HOST_SPREAD, GENERATION_HOST_SPREAD, TABLE_SPREAD = 0.35, 0.3, 0.04
#: MXNet's and TensorFlow's hosts are their own: they say little of PyTorch's.
FRAMEWORK_SPREAD = 0.7
#: Tables of a library of another time than the others: what they say of the scale is their own.
OLD_LIBRARIES = {"paddleclas:t4": 0.6, "nvidia_tx2:": 0.3, "torch2trt:": 0.2}
#: Hosts that do more than launch an engine: Paddle Inference runs TensorRT as a part of its own graph.
OTHER_HOSTS = {"paddleclas:": 1.5}
#: Sources whose times include the copy of the input to the GPU, and how long it takes (5.5 GB/s: PCIe 3 from
#: memory that is not pinned); what the timing of a single kernel adds; the spread of the logarithms of both.
WITH_INPUT_COPY = ("paddleclas:", "torchvision:")
COPY_MS_PER_MB, SINGLE_KERNEL_MS, BESIDES_SPREAD = 0.18, 0.005, 0.5
#: How much slower the CPU of a Jetson module is than a server's (A57, Denver 2, Carmel, A78AE): no
#: measurements but those of the first two, and of them few.
JETSON_HOST = {"Maxwell": 5.0, "Pascal": 3.5, "Volta": 2.4, "Ampere": 1.7, "Ada": 1.7, "Blackwell": 1.5}
GENERATIONS = ("Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada")
#: A network has phases that the host bounds and others that the GPU does. Chosen on cards left out.
SHARPNESS = 3.0
#: Sum of the squared weights of a source of networks, and of one of single kernels: networks are what is
#: predicted. The largest weight of one row; 1 / weight is the error from which on a row counts as an outlier.
VOTE, KERNEL_VOTE, MOST_WEIGHT = 4000.0, 400.0, 5.0


def generation_factors(groups: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """All factors of a generation: prior knowledge, its era's, and its own, or its nearest generation's."""
    found = {}
    for generation in (*ERA, "Ampere", "Ada"):
        own, fitted = generation, True
        while own not in groups and fitted:
            own, fitted = NEAREST_GENERATION.get(own, own), own in NEAREST_GENERATION
        layers = [
            FIXED_BY_GENERATION.get(generation, {}),
            groups.get("era", {}) if generation in ERA else {},
            groups.get(own, {}),
        ]
        product: dict[str, float] = {}
        for layer in layers:
            for name, factor in layer.items():
                product[name] = product.get(name, 1.0) * factor
        found[generation] = product
    return found
