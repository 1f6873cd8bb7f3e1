"""From a datasheet to the numbers the time model divides by."""

from __future__ import annotations

from collections.abc import Mapping

from dsonas_hw.device.datasheet import Device
from dsonas_hw.errors import DeviceError
from dsonas_hw.estimate.kernel_time import Machine
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.target import Target

ELEMENT_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0}

#: 32-bit integer lanes of one SM, by compute capability (CUDA programming guide, arithmetic throughput).
#: Maxwell and Pascal have no 32-bit multiply-add; the generation's constant `integer` says what that costs.
_INTEGER_LANES = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64}

#: What a generation's chips run at under sustained load: (board watts per CUDA core, GHz), typical of one
#: card each (Titan X, 1080 Ti, Titan V, 2080 Ti, RTX 3090, RTX 4090, H100, RTX 5090).
_TYPICAL_LOAD = {
    "Maxwell": (0.081, 1.15),
    "Pascal": (0.070, 1.80),
    "Volta": (0.049, 1.65),
    "Turing": (0.057, 1.78),
    "Ampere": (0.033, 1.78),
    "Ada": (0.0275, 2.65),
    "Hopper": (0.041, 1.75),
    "Blackwell": (0.0264, 2.55),
}


def machine_of(device: Device, target: Target, constants: Mapping[str, float]) -> Machine:
    """The machine that runs kernels of the target's runtime in its precision.

    Raises:
        DeviceError: the precision is unknown, or the datasheet states no peak for it.
    """
    how, precision = get_runtime(target.runtime), target.precision
    if precision not in ELEMENT_BYTES:
        raise DeviceError(f"cannot estimate precision {precision!r}; known: {', '.join(ELEMENT_BYTES)}")
    clock = sustained_clock(device, constants)
    fp32 = _peak(device, "fp32")
    tensor: float | None = None
    cores = fp32
    if precision in ("fp32", "tf32"):
        # TF32 is what cuDNN, ONNX Runtime and TensorRT use for fp32 convolutions from Ampere on.
        tensor = device.peak("tf32_tensor")
    elif precision in ("fp16", "bf16"):
        tensor = device.peak("fp16_tensor")
        # Eager frameworks accumulate in fp32: without tensor cores half precision is no faster.
        half = device.peak("fp16") if precision == "fp16" and how.fuses else None
        cores = max(fp32, half or 0.0)
    else:
        int8 = device.peak("int8")
        if int8 is None:
            raise DeviceError(f"{device.name} has no int8 peak in its datasheet: cannot estimate int8")
        tensor = int8
    gemm_tensor = tensor if (precision != "fp32" or how.uses_tf32_in_products) else None
    has_tensor_cores = device.compute_capability >= ((7, 2) if precision == "int8" else (7, 0))
    per_tflop = clock * 1e12 / 2
    return Machine(
        generation=device.architecture,
        num_sms=float(device.num_sms),
        macs_per_s=(tensor or cores) * per_tflop,
        gemm_macs_per_s=(gemm_tensor or cores) * per_tflop,
        core_macs_per_s=(cores * _shared_issue(device) if has_tensor_cores and tensor else tensor or cores)
        * per_tflop,
        on_tensor_cores=tensor is not None and has_tensor_cores,
        gemm_on_tensor_cores=gemm_tensor is not None and has_tensor_cores,
        integer_per_s=device.num_sms * integer_lanes(device) * device.boost_clock_mhz * 1e6 * clock,
        bytes_per_s=device.memory_bandwidth_gb_s * 1e9,
        l2_bytes=float(device.l2_bytes),
        element_bytes=ELEMENT_BYTES[precision],
        layout_copies=tensor is not None and has_tensor_cores and how.reorders_for_tensor_cores,
    )


def _shared_issue(device: Device) -> float:
    """Share of the fp32 peak that arithmetic with addresses reaches where half of the lanes are shared with
    integers (128 cores an SM since GA102)."""
    return 0.7 if device.cuda_cores_per_sm == 128 and device.compute_capability >= (8, 0) else 1.0


def integer_lanes(device: Device) -> int:
    """Integer instructions that one SM issues per clock."""
    if device.compute_capability in _INTEGER_LANES:
        return _INTEGER_LANES[device.compute_capability]
    return 64 if device.compute_capability >= (8, 0) and device.compute_capability < (10, 0) else 128


def sustained_clock(device: Device, constants: Mapping[str, float]) -> float:
    """Clock under load relative to the datasheet's boost clock.

    Power grows with about the cube of the clock, so a board with few watts for its cores (T4, L4) settles
    below its boost clock. Desktop cards exceed theirs as far as power allows; data-centre cards never do.
    """
    watts, clock_ghz = _TYPICAL_LOAD.get(device.architecture, _TYPICAL_LOAD["Blackwell"])
    watts_per_core = device.power_w / (device.num_sms * device.cuda_cores_per_sm)
    allowed_ghz = clock_ghz * (watts_per_core / watts) ** constants["power_exponent"]
    allowed = allowed_ghz * 1e3 / device.boost_clock_mhz
    desktop = any(word in device.title.lower() for word in ("geforce", "titan"))
    limit = 1.25 if desktop else 1.0
    return float((allowed**-8 + limit**-8) ** -0.125) if not desktop else min(allowed, limit)


def _peak(device: Device, precision: str) -> float:
    peak = device.peak(precision)
    if peak is None:
        raise DeviceError(f"{device.name} states no {precision} peak: cannot estimate it")
    return peak
