"""Latency and energy of networks from a measured table: a `cost.model.CostModel`.

The kernels that run are what the runtime makes of the network (`kernel.deployment`), not what the file says;
what they cost together is `network_costs`. The interval is what 90 % of the networks of the fit lay in when
they were held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsonas_hw.budget import Metric
from dsonas_hw.cost.model import Prediction
from dsonas_hw.cost.network_costs import NetworkCosts, Part, kernel_costs
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.deployment import Deployment
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.energy import energy_unknown
from dsonas_hw.measure.reference import Speed
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.table.commands import directory_of, profile_command
from dsonas_hw.table.rows import NetworkRow, Source
from dsonas_hw.table.table import LookupTable


class MeasuredCosts:
    """Predictions from one table.

    Raises:
        ProfileError: the table holds no finished profile.
    """

    def __init__(self, table: LookupTable, *, profile_options: str = "") -> None:
        """profile_options: of `dsonas-hw profile`, for the space in question; for messages."""
        header = table.header
        self.profile_options = profile_options
        self.table = table
        self.target = header.target
        self.source: Source = header.source
        runtime = get_runtime(header.target.runtime)
        self.deployment = (
            BareDeployment(fuses=runtime.fuses)
            if header.source == "imported"
            else runtime.deployment(header.settings)
        )
        """Which kernels the runtime runs for a network."""
        self.fuse = self.deployment.fuses
        command = profile_command(header.target, directory=directory_of(table.path), options=profile_options)
        if "latency" not in table.corrections:
            raise ProfileError(
                f"the table {table.path} is not finished (its profile was interrupted); go on with: {command}"
            )
        try:
            self._kernels = kernel_costs(table.corrections["latency"], table.kernels.values())
            self._costs = {m: NetworkCosts(found, self._kernels) for m, found in table.corrections.items()}
        except KeyError as error:
            raise ProfileError(
                f"the correction in {table.path} lacks {error}; it was made by another version of dsonas-hw: "
                f"delete it and run: {command}"
            ) from error
        self._alone: dict[tuple[Kernel, Metric], float] = {}

    @property
    def disclaimer(self) -> str:
        """Empty, unless the table is somebody else's, or its kernels were not timed."""
        if self.source == "measured":
            return ""
        if self.source == "calibrated":
            return (
                f"CALIBRATED: {self.target.runtime} does not time kernels, so networks measured on "
                f"{self.target.device} correct the estimate of their kernels"
            )
        what = f"latencies of {self.target.device} come from {self.table.path.name}"
        return f"{self.source.upper()}, NOT MEASURED: {what}, a table that somebody else measured"

    def why_not(self, metric: Metric) -> str:
        """Why the table does not tell a metric, in one line; empty: it does."""
        if metric in self._costs:
            return ""
        remarks = (remark for network in self.table.networks for remark in network.remarks)
        return energy_unknown(self.target, remarks)

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        """The metric of the network that these kernels make up, in the order they run.

        Which kernel reads which is inferred from order and shapes; `predict_schedule` need not guess.

        Raises:
            ProfileError: a category of kernel or a metric that was never measured, or no kernel at all.
        """
        if not kernels:
            raise ProfileError(f"a network without kernels has no {metric} to predict")
        return self.predict_schedule(infer_schedule(kernels), metric)

    def predict_schedule(self, schedule: Schedule, metric: Metric = "latency") -> Prediction:
        """The metric of a network whose buffers are known.

        Raises:
            ProfileError: a category of kernel or a metric that was never measured.
        """
        return self.predict_part(self.part(self.deployment.kernels(schedule), metric), metric)

    def predict_part(self, part: Part, metric: Metric = "latency") -> Prediction:
        """The metric of the network that consists of this part, which was summed up for it."""
        costs = self._costs_of(metric)
        value = costs.value(part)
        low, high = costs.interval(part)
        return Prediction(value=value, low=value * low, high=value * high, source=self.source)

    def _costs_of(self, metric: Metric) -> NetworkCosts:
        costs = self._costs.get(metric)
        if costs is None:
            raise ProfileError(self.why_not(metric))
        return costs

    def part_of(self, schedule: Schedule, metric: Metric = "latency", *, is_first: bool = False) -> Part:
        """What a part of a network contributes, read and left in the runtime's own layout.

        is_first: it reads the network's input, which is not in that layout.

        Raises:
            ProfileError: a kernel of a kind that was never measured.
        """
        deployed = self.deployment.kernels(schedule, blocked_inputs=not is_first, is_part=True)
        return self.part(deployed, metric)

    def part(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Part:
        """The sums over kernels as the runtime runs them (see `deployment`).

        Raises:
            ProfileError: a kernel of a kind that was never measured.
        """
        try:
            return self._costs_of(metric).part(kernels)
        except KeyError:
            missing = list(dict.fromkeys(kernel.key for kernel in kernels if not self.knows(kernel)))
            raise ProfileError(
                f"{len(missing)} kernels were never measured on {self.target.device} with "
                f"{self.target.runtime}: {'; '.join(missing[:3])}{'; …' if len(missing) > 3 else ''}"
            ) from None

    @property
    def usual_speed(self) -> Speed | None:
        """Of the machine while it was profiled, which predictions are stated at; None: it is not known."""
        return self.table.usual_speed

    def unknown(self, kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
        """The kernels, of those that run, that the table does not know; each once."""
        return tuple(dict.fromkeys(kernel for kernel in kernels if not self.knows(kernel)))

    def timed(self, name: str) -> NetworkRow | None:
        """The network that was timed under this name; None if there is none."""
        return next((network for network in self.table.networks if network.name == name), None)

    def kernels(self, schedule: Schedule, timed: NetworkRow | None = None) -> tuple[Kernel, ...]:
        """The kernels that the runtime runs for a network: those that ran if it was timed, else derived."""
        ran = self.table.kernels_of(timed) if timed else ()
        return ran or self.deployment.kernels(schedule)

    def predict_timed(self, network: NetworkRow, metric: Metric = "latency") -> Prediction:
        """The metric of a network that was timed itself: what it took, at the speed that the table states."""
        found = self.predict_part(self.part(self.table.kernels_of(network), metric), metric)
        value = network.energy_mj if metric == "energy" else self.table.usual_latency_ms(network)
        if value is None:
            return found
        ratio = value / found.value
        return replace(found, value=value, low=found.low * ratio, high=found.high * ratio)

    def knows(self, kernel: Kernel) -> bool:
        """Whether a kernel, as the runtime runs it, is of a category that was measured, and near what was."""
        return self._kernels.knows(kernel)

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        """The share of a network's metric that this kernel adds, its inputs in the runtime's own layout.

        Raises:
            ProfileError: a category of kernel or a metric that was never measured.
        """
        found = self._alone.get((kernel, metric))
        if found is None:
            names = tuple(f"input{i}" for i in range(len(kernel.inputs)))
            alone = Schedule(
                kernels=(ScheduledKernel(kernel=kernel, reads=names, writes="output"),),
                inputs=dict(zip(names, kernel.inputs, strict=True)),
                outputs=frozenset(),
            )
            image = len(kernel.inputs[0]) == 4 and kernel.inputs[0][1] < 4
            part = self.part_of(alone, metric, is_first=image)
            found = self._alone[kernel, metric] = self._costs_of(metric).share(part)
        return found


class BareDeployment(Deployment):
    """Whoever times operators times them bare; a fused activation costs next to nothing."""

    def kernels(
        self, schedule: Schedule, *, blocked_inputs: bool = False, is_part: bool = False
    ) -> tuple[Kernel, ...]:
        kernels = super().kernels(schedule, blocked_inputs=blocked_inputs, is_part=is_part)
        return tuple(replace(k, epilogue=tuple(e for e in k.epilogue if e == "add")) for k in kernels)


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
