"""The one way to where networks are timed. One profiler works on all of them.

with open_bench(target) as bench:
    bench.measure(models)           whole networks
    bench.time_kernels(probes)      whole networks, and their kernels in situ
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.profile.bench import Bench
from dsonas_hw.profile.cpu_bench import open_cpu
from dsonas_hw.profile.gpu_bench import open_gpu
from dsonas_hw.target import Target


@contextmanager
def open_bench(target: Target, *, sm_clock_mhz: int | None = None) -> Iterator[Bench]:
    """Get ready to measure on a target.

    sm_clock_mhz: the SM clock of a GPU to hold meanwhile, if the driver permits.

    Raises:
        DeviceError: it is not here, or its runtime cannot run on it.
        ProfileError: more threads of this CPU are asked for than there are cores.
    """
    if target.device == LOCAL:
        yield open_cpu(target)
        return
    with open_gpu(target, sm_clock_mhz=sm_clock_mhz) as gpu:
        yield gpu
