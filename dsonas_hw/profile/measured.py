"""The latency of networks from a measured table: a `cost.model.LatencyModel`.

    latency = constant + Σ over the kernels that run (scale · cost + per_kernel)

The kernels that run are what the runtime makes of the network (`ort_layout`), not what the file says. The
three numbers were fitted on whole networks (`fit.py`); the interval is what 90 % of those networks lay in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsonas_hw.cost.model import LatencyPrediction, Source
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.kernel_costs import FEATURES, KernelCosts
from dsonas_hw.profile.ort_layout import deployed_kernels
from dsonas_hw.profile.table import LatencyTable, TableHeader

SORT_PREFIX = "sort:"


class MeasuredLatency:
    """Predictions from one table.

    Raises:
        ProfileError: the table holds no finished profile.
    """

    def __init__(self, table: LatencyTable) -> None:
        header = table.header
        self.table = table
        self.device = header.device
        self.runtime = header.runtime
        self.precision = header.precision
        self.batch_size = header.batch_size
        self.source: Source = header.source
        self.fuse = header.runtime != "eager"
        if table.correction is None:
            raise ProfileError(
                f"the table {table.path} is not finished (its profile was interrupted); "
                f"go on with: {profile_command(header)}"
            )
        values = table.correction.values
        self.block_size = int(header.settings.get("block_size") or 0)
        self.costs = KernelCosts(_coefficients(values), table.kernels.values())
        try:
            self.scale, self.per_kernel_ms = values["scale"], values["per_kernel_ms"]
            self.constant_ms = values["constant_ms"]
            self._low, self._high = values["interval_low"], values["interval_high"]
        except KeyError as error:
            raise ProfileError(
                f"the correction in {table.path} lacks {error}; profile the device again"
            ) from error
        self._alone: dict[Kernel, float] = {}

    def predict(self, kernels: Sequence[Kernel]) -> LatencyPrediction:
        """Latency of the network that these kernels make up, in the order they run.

        Which kernel reads which is inferred from order and shapes; `predict_schedule` need not guess.

        Raises:
            ProfileError: a kernel of a sort that was never measured, or no kernel at all.
        """
        if not kernels:
            raise ProfileError("a network without kernels has no latency to predict")
        return self.predict_schedule(infer_schedule(kernels))

    def predict_schedule(self, schedule: Schedule) -> LatencyPrediction:
        """Latency of a network whose buffers are known.

        Raises:
            ProfileError: a kernel of a sort that was never measured.
        """
        return self.predict_deployed(self.deploy(schedule))

    def predict_deployed(self, kernels: Sequence[Kernel]) -> LatencyPrediction:
        """Latency of a network, given as what the runtime makes of it (see `deploy`).

        Raises:
            ProfileError: a kernel of a sort that was never measured.
        """
        return self.around(self.constant_ms + self._deployed_ms(kernels))

    def around(self, latency_ms: float) -> LatencyPrediction:
        """A prediction with its interval."""
        latency_ms = max(latency_ms, 1e-6)
        return LatencyPrediction(
            latency_ms=latency_ms,
            latency_ms_low=latency_ms * self._low,
            latency_ms_high=latency_ms * self._high,
            source=self.source,
        )

    def part_ms(self, schedule: Schedule, *, is_first: bool = False) -> float:
        """What a part of a network adds, read and left in the runtime's own layout.

        is_first: it reads the network's input, which is not in that layout.
        """
        return self._deployed_ms(self.deploy(schedule, blocked_inputs=not is_first, is_part=True))

    def unknown(self, schedule: Schedule) -> tuple[str, ...]:
        """Keys of the kernels of a network whose sort was never measured, each once."""
        missing = (kernel.key for kernel in self.deploy(schedule) if not self.costs.knows(kernel))
        return tuple(dict.fromkeys(missing))

    def kernel_latency_ms(self, kernel: Kernel) -> float:
        """The share of a network's latency that this kernel adds, its inputs in the runtime's own layout.

        Raises:
            ProfileError: a kernel of a sort that was never measured.
        """
        found = self._alone.get(kernel)
        if found is None:
            names = tuple(f"input{i}" for i in range(len(kernel.inputs)))
            alone = Schedule(
                kernels=(ScheduledKernel(kernel=kernel, reads=names, writes="output"),),
                inputs=dict(zip(names, kernel.inputs, strict=True)),
                outputs=frozenset(),
            )
            image = len(kernel.inputs[0]) == 4 and kernel.inputs[0][1] < 4
            found = self._alone[kernel] = self.part_ms(alone, is_first=image)
        return found

    def deploy(
        self, schedule: Schedule, *, blocked_inputs: bool = False, is_part: bool = False
    ) -> tuple[Kernel, ...]:
        """The kernels that the runtime runs for a network, or for a part of one."""
        if self.runtime == "ort-cpu":
            return deployed_kernels(
                schedule, block_size=self.block_size, blocked_inputs=blocked_inputs, is_part=is_part
            )
        return tuple(step.kernel for step in schedule.kernels)

    def _deployed_ms(self, kernels: Sequence[Kernel]) -> float:
        latency_ms = self.costs.latency_ms
        try:
            total = sum(latency_ms(kernel) for kernel in kernels)
        except KeyError:
            missing = list(dict.fromkeys(k.key for k in kernels if not self.costs.knows(k)))
            raise ProfileError(
                f"{len(missing)} kernels were never measured on {self.device} with {self.runtime}: "
                f"{'; '.join(missing[:3])}{'; …' if len(missing) > 3 else ''}. "
                f"Measure them with: {profile_command(self.table.header)} --model FILE.onnx"
            ) from None
        return self.scale * total + self.per_kernel_ms * len(kernels)


def profile_command(header: TableHeader) -> str:
    """What to type to measure such a table."""
    parts = [f"dsonas-hw profile --device {header.device}"]
    if header.runtime != "ort-cpu":
        parts.append(f"--runtime {header.runtime}")
    if header.precision != "fp32":
        parts.append(f"--precision {header.precision}")
    if header.batch_size != 1:
        parts.append(f"--batch-size {header.batch_size}")
    if header.threads != 1:
        parts.append(f"--threads {header.threads}")
    return " ".join(parts)


def infer_schedule(kernels: Sequence[Kernel]) -> Schedule:
    """Buffers of kernels given in order: each reads the latest tensors that have the shapes it wants.

    Tensors that nothing has read yet are preferred, so that no branch is left hanging.
    """
    inputs = {"input": kernels[0].inputs[0]}
    made: list[tuple[str, tuple[int, ...]]] = [("input", kernels[0].inputs[0])]
    unread = {"input"}
    steps = []
    for index, kernel in enumerate(kernels):
        reads: list[str] = []
        for shape in kernel.inputs:
            fits = [name for name, size in made if size == shape and name not in reads]
            if not fits:
                fits = [name for name, size in made if _volume(size) == _volume(shape) and name not in reads]
            fresh = [name for name in fits if name in unread]
            if fits:
                reads.append((fresh or fits)[-1])
            else:
                inputs[f"constant{index}.{len(reads)}"] = shape
                reads.append(f"constant{index}.{len(reads)}")
        unread.difference_update(reads)
        name = f"k{index}"
        unread.add(name)
        made.append((name, kernel.output))
        del made[:-64]
        steps.append(ScheduledKernel(kernel=kernel, reads=tuple(reads), writes=name))
    return Schedule(kernels=tuple(steps), inputs=inputs, outputs=frozenset({steps[-1].writes}))


def _volume(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _coefficients(values: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """Sort → coefficients from the flat names of a correction row."""
    found: dict[str, list[float]] = {}
    for name, value in values.items():
        if name.startswith(SORT_PREFIX):
            sort, _, feature = name.removeprefix(SORT_PREFIX).rpartition("/")
            if feature in FEATURES:
                found.setdefault(sort, [0.0] * len(FEATURES))[FEATURES.index(feature)] = value
    return {sort: tuple(coefficients) for sort, coefficients in found.items()}
