"""Which units compute, and at what clock."""

from __future__ import annotations

import pytest

from dsonas_hw.device.spec import list_devices, load_device
from dsonas_hw.estimate.constants import load_constants
from dsonas_hw.estimate.machine import integer_lanes, machine_of, sustained_clock
from dsonas_hw.target import Target


def _machine(name: str, runtime: str, precision: str):  # type: ignore[no-untyped-def]
    device = load_device(name)
    constants = load_constants().resolve(device.architecture, Target(runtime=runtime, precision=precision))
    return machine_of(device, Target(runtime=runtime, precision=precision), constants)


@pytest.mark.parametrize(
    ("name", "runtime", "precision", "convolutions", "products"),
    [
        ("1080ti", "eager", "fp32", False, False),
        ("1080ti", "tensorrt", "int8", False, False),  # dp4a
        ("v100", "tensorrt", "int8", False, False),  # its tensor cores know fp16 only
        ("t4", "tensorrt", "int8", True, True),
        ("v100", "eager", "fp16", True, True),
        ("2080ti", "eager", "fp32", False, False),
        ("rtx3090", "eager", "fp32", True, False),  # TF32: on for convolutions, off for products
        ("rtx3090", "tensorrt", "fp32", True, True),
    ],
)
def test_tensor_cores(name: str, runtime: str, precision: str, convolutions: bool, products: bool) -> None:
    machine = _machine(name, runtime, precision)
    assert (machine.on_tensor_cores, machine.gemm_on_tensor_cores) == (convolutions, products)
    assert machine.layout_copies is (convolutions and runtime == "eager")


def test_rates_are_the_datasheets_at_the_sustained_clock() -> None:
    machine, device = _machine("v100", "eager", "fp32"), load_device("v100")
    clock = sustained_clock(device, load_constants().resolve("Volta", Target(runtime="eager")))
    # 15.7 TFLOPS are 7.85 T multiply-adds a second at the boost clock.
    assert machine.macs_per_s == pytest.approx(7.85e12 * clock, rel=1e-3)
    assert machine.bytes_per_s == 900e9
    assert integer_lanes(device) == 64
    assert integer_lanes(load_device("1080ti")) == 128


def test_clocks_are_plausible_and_follow_power() -> None:
    shared = load_constants().shared
    clocks = {device.name: sustained_clock(device, shared) for device in list_devices()}
    assert all(0.3 < clock <= 1.25 for clock in clocks.values()), clocks
    assert clocks["t4"] < clocks["quadro-rtx-8000"] < 1  # one chip family: 70 W against 260 W
    assert clocks["2080ti"] > 1  # desktop cards exceed their datasheet
