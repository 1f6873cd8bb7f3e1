"""Commands on a machine whose GPU is made up: `metered_card.py '[["devices", "--json"], …]'`.

Run with the compiled stub of NVML as its driver: the stub's energy counter moves every tenth of a second of
the made-up clock, by what the networks that ran are made up to take. Prints [[exit code, stdout, stderr], …].
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import sys
from functools import partial
from typing import Any

from stand_in import Clock, StandIn, StandInSession

from dsonas_hw.cli.main import main
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure import energy
from dsonas_hw.measure.loaded import measure_loaded
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.profile import profile_space
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.registry import register
from dsonas_hw.target import Target

TICK_S = 0.1
CONSTANT_MS, CONSTANT_MJ = 0.2, 5.0
"""What a network takes besides its kernels."""


def made_up_ms(kernel: Kernel) -> float:
    return 0.05 + 1e-5 * kernel.flops + 4e-5 * kernel.mac


def made_up_mj(kernel: Kernel) -> float:
    """At 90 W a convolution that is no depthwise one, at 30 W everything else."""
    watts = 90.0 if kernel.kind == "conv" and kernel.groups == 1 else 30.0
    return watts * made_up_ms(kernel)


class Board(Clock):
    """The clock and the meter; both go on only when something runs."""

    def __init__(self) -> None:
        super().__init__()
        self.spent_mj = 0.0
        self._stub = ctypes.CDLL("libnvidia-ml.so.1")

    def spend(self, seconds: float, millijoules: float) -> None:
        ticks = self.now_s // TICK_S
        self.advance(seconds)
        self.spent_mj += millijoules
        if self.now_s // TICK_S != ticks:
            self._stub.stub_set_energy_mj(ctypes.c_ulonglong(int(self.spent_mj)))


BOARD = Board()


class MeteredSession(StandInSession):
    """Takes the energy that its kernels are made up to take, too."""

    def __init__(self, model: bytes, target: Target) -> None:
        super().__init__(model, target, BOARD, made_up_ms, CONSTANT_MS)
        self.energy_mj = CONSTANT_MJ + sum(map(made_up_mj, self.kernels))

    def run(self) -> object:
        BOARD.spend(self.seconds, self.energy_mj)
        return None


class Metered(StandIn):
    def open_stand_in(self, model: bytes, target: Target) -> MeteredSession:
        return MeteredSession(model, target)

    def measure(self, session: Session, **options: Any) -> LatencyMeasurement:
        options.pop("with_cuda_graph", None)
        return measure_loaded(
            session, clock_s=BOARD, **{name: value for name, value in options.items() if value is not None}
        )


def call(arguments: list[str]) -> tuple[int, str, str]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    register(Metered())
    energy.measure_energy = partial(energy.measure_energy, clock_s=BOARD)
    profile_space.profile_space = partial(profile_space.profile_space, num_networks=12, num_checked=4)
    print(json.dumps([call(arguments) for arguments in json.loads(sys.argv[1])]))
