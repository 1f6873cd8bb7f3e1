"""A card and a runtime that nobody makes: networks take what they are made up to, by a clock of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.base import NetworkTiming, NodeTiming, ProfiledSession, Runtime, Session
from dsonas_hw.runtime.libraries import Library
from dsonas_hw.target import Target

NAME = "stand-in"
CARD = "made-up"
"""A GPU that only tests know, too."""
TINY = {
    "preset": "digits",
    "data": {"subset": 256, "test_subset": 50},
    "space": {"levels": 2, "stages": [1, 1], "channels": 8, "operations": ["sep3", "max3"]},
    "search": {"pretrain_epochs": 0, "epochs": 4, "batch_size": 16, "path_interval": 3, "path_images": 32},
    "retrain": {"epochs": 1, "batch_size": 32},
}
"""A run of a second or two."""


def write_card(home: Path, *, has_energy_counter: bool) -> None:
    """Describe the card in a data directory."""
    (home / "devices").mkdir(parents=True)
    (home / "devices" / f"{CARD}.toml").write_text(
        f"""
title = "a card that nobody makes"
aliases = []
nvml_names = ["Made Up 1"]
architecture = "Ampere"
compute_capability = "8.6"
num_sms = 10
cuda_cores_per_sm = 128
boost_clock_mhz = 1500
memory_bandwidth_gb_s = 300.0
l2_bytes = 4194304
memory_bytes = 8589934592
power_w = 100
has_energy_counter = {str(has_energy_counter).lower()}
sources = ["this test"]

[peak_tflops]
fp32 = 3.84
"""
    )


class Clock:
    """Goes on only when something is run."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class StandInSession(Session):
    """Takes as long as its kernels are made up to take, and a constant, and tells its kernels."""

    runtime = NAME
    versions = {NAME: "1.0"}  # noqa: RUF012

    def __init__(
        self,
        model: bytes,
        target: Target,
        clock: Clock,
        kernel_ms: Callable[[Kernel], float],
        constant_ms: float,
    ) -> None:
        network = network_from_onnx(onnx.load_model_from_string(model), batch_size=target.batch_size)
        self.kernels = [step.kernel for step in network.schedule.kernels]
        self.clock, self.kernel_ms = clock, kernel_ms
        self.seconds = 1e-3 * (constant_ms + sum(map(kernel_ms, self.kernels)))

    def run(self) -> object:
        self.clock.advance(self.seconds)
        return None

    def synchronize(self) -> None:
        """Nothing runs on by itself."""

    def close(self) -> None:
        """Nothing to give back."""

    def finish(self, turns: Sequence[Turn], speeds: Sequence[float] = ()) -> NetworkTiming:
        return NetworkTiming(
            nodes=tuple(
                NodeTiming(kernel=kernel, latency_ms=self.kernel_ms(kernel)) for kernel in self.kernels
            )
        )


class StandIn(Runtime):
    """Opens what `open_stand_in` returns, plain and profiled."""

    name = NAME
    title = "made-up times"
    distributions = (NAME,)
    module = "stand_in"

    def library(self) -> Library:
        return Library(distribution=self.name, version="1.0", folder=Path(), cuda=None)

    def open_stand_in(self, model: bytes, target: Target) -> StandInSession:
        raise NotImplementedError

    def open_session(self, model: bytes, target: Target) -> Session:
        return self.open_stand_in(model, target)

    def why_untimed(self, target: Target) -> str:
        return ""

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        return self.open_stand_in(model, target)
