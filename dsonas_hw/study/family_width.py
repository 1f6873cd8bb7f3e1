"""The width of a hand-made family that fills budgets: predicted by short measurements, then measured.

    widths in 32nds of the family's own ─▶ those that differ in a layer ─▶ bisection on cost / limit

Where the target is here, a network's cost for bisection is a second's measurement of its quiet latency,
which no table has to know; elsewhere it is what the target's profile predicts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.costs import BYTES_PER_ELEMENT
from dsonas_hw.architecture.fit import find_widest
from dsonas_hw.budget import Budget, format_quantity
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.measure import measure_on_target
from dsonas_hw.errors import BudgetError, ProfileError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.measure.rounds import QUICK
from dsonas_hw.profile.open import Models, resolve
from dsonas_hw.profile.predict_onnx import predict_onnx

if TYPE_CHECKING:
    from dsonas_hw.train.hand_made import HandMade

LOOK_AHEAD = 2
"""Wider networks than the first that misses that are tried all the same: latency has steps."""

Costs = dict[str, float | None]
"""Quantity (`flops`, `latency_ms`, …) → value; None: it cannot be told."""


@dataclass(kw_only=True)
class FamilyWidths:
    """The networks of a family by width, and what each costs on a target; every cost is found once."""

    network: HandMade
    """At any width."""
    target: DeviceConfig
    timed: bool = True
    """Whether latency or energy is needed."""
    _known: dict[HandMade, Costs] = field(default_factory=dict)

    @cached_property
    def networks(self) -> tuple[HandMade, ...]:
        """One for each width at which a layer changes, the narrowest first."""
        from dsonas_hw.train.hand_made import MAX_WIDTH_UNITS, layer_shapes

        found: dict[object, HandMade] = {}
        for units in range(1, MAX_WIDTH_UNITS + 1):
            network = self.network.with_width(units)
            found.setdefault(layer_shapes(network), network)
        return tuple(found.values())

    def costs(self, network: HandMade) -> Costs:
        """Return what a network costs; latency (quiet) and energy are measured for seconds, or predicted.

        Raises:
            ProfileError: the target is not here, and nothing predicts them there.
        """
        if network not in self._known:
            self._known[network] = self._find_costs(network)
        return self._known[network]

    def _find_costs(self, network: HandMade) -> Costs:
        import onnx

        from dsonas_hw.train.hand_made import hand_made_onnx

        model = hand_made_onnx(network, batch_size=self.target.batch_size)
        proto = onnx.load_from_string(model)
        single = network_from_onnx(proto, batch_size=1)
        at_batch = network_from_onnx(proto, batch_size=self.target.batch_size)
        peak = at_batch.peak_activation_elements
        return {
            **asdict(count_costs(single.kernels)),
            "memory_bytes": peak * BYTES_PER_ELEMENT[self.target.precision] if peak else None,
            **(self._metrics(model) if self.timed else {"latency_ms": None, "energy_mj": None}),
        }

    def _metrics(self, model: bytes) -> Costs:
        found = measure_on_target(model, self.target, plan=QUICK)
        if found is not None:
            energy_mj = found.energy.energy_mj if found.energy else None
            return {"latency_ms": found.latency.quiet_ms, "energy_mj": energy_mj}
        device, runtime = resolve(self.target.device, self.target.runtime)
        models = Models(
            device=device, runtime=runtime, precision=self.target.precision, threads=self.target.threads
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(model)
            predicted = predict_onnx(path, models, batch_size=self.target.batch_size)
        if predicted.latency_ms is None:
            raise ProfileError(str(predicted.why_no_latency))
        return {"latency_ms": predicted.latency_ms, "energy_mj": predicted.energy_mj}

    def ratio(self, network: HandMade, budgets: Sequence[Budget]) -> float:
        """Return the largest cost / limit of a network.

        Raises:
            BudgetError: a budgeted cost that is not known of hand-made networks.
        """
        costs = self.costs(network)
        worst = 0.0
        for budget in budgets:
            cost = costs[budget.quantity]
            if cost is None:
                raise BudgetError(
                    f"the {budget.name} of hand-made networks is not known here; remove hand_made from the "
                    "study, or give another budget"
                )
            worst = max(worst, cost / budget.limit)
        return worst

    def fit(self, budgets: Sequence[Budget]) -> HandMade:
        """Return the widest network that holds the budgets.

        Raises:
            BudgetError: not even the narrowest does; says what it takes.
        """
        networks = self.networks
        widest = find_widest(
            len(networks), lambda index: self.ratio(networks[index], budgets) <= 1, look_ahead=LOOK_AHEAD
        )
        if widest is None:
            raise BudgetError(self.why_none(budgets))
        return networks[widest]

    def why_none(self, budgets: Sequence[Budget]) -> str:
        """Return what to say where no width fits."""
        narrowest = self.networks[0]
        costs = self.costs(narrowest)
        taken = ", ".join(
            f"{b.name} {format_quantity(b.name, cost)}"
            for b in budgets
            if (cost := costs[b.quantity]) is not None
        )
        return (
            f"no width of {self.network.title} fits {', '.join(map(str, budgets))}: "
            f"the narrowest takes {taken}"
        )
