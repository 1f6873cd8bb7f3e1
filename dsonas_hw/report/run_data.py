"""What a report shows of a run, checked and typed. Read by `run_load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.budget import QUANTITIES, Budget, Verdict, format_probability
from dsonas_hw.config import RunConfig
from dsonas_hw.report.numbers import NONE
from dsonas_hw.report.run_selection import SelectionRow
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.confusion import Confusion

TIMED = ("latency", "energy")
"""Budgets that only a device can answer; the others are counted on the exported file."""
TIMED_QUANTITIES = tuple(QUANTITIES[name] for name in TIMED)


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """One architecture that the search passed."""

    step: int
    epoch: int
    gamma: float | None
    width: int
    accuracy: float | None
    """With the shared weights; None where it was not scored."""
    costs: Mapping[str, float]
    """Known costs by quantity, e.g. `latency_ms`."""
    blocks: tuple[Block, ...]

    @property
    def num_edges(self) -> int:
        return sum(block.num_edges for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One line of metrics.jsonl: the numbers in it."""

    stage: str
    epoch: int
    values: Mapping[str, float]

    def get(self, name: str) -> float | None:
        return self.values.get(name)


@dataclass(frozen=True, kw_only=True)
class LambdaRow:
    """λ at the end of an epoch: one tuple per λ set, in the order of `SearchSpace.edges`."""

    step: int
    lam: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class BudgetResult:
    """How one budget was answered."""

    name: str
    limit: float
    predicted: float | None
    measured: float | None
    verdict: Verdict | None
    """None: not answered yet, or nothing is known."""
    statistic: str = ""
    """Of a measured latency: which percentile `measured` is."""
    low: float | None = None
    high: float | None = None
    """The interval of `measured`; None: no bound, or the cost is exact."""
    quiet: float | None = None
    """Of a measured latency: what the network takes when nothing disturbs it."""
    probability: float | None = None
    """Of an estimated one: how likely it is to hold."""

    @property
    def answer(self) -> str:
        """The verdict in a word or two: `holds`, `missed`, `holds with 55 %`; a dash where there is none."""
        if self.probability is not None:
            return f"holds with {format_probability(self.probability)}"
        return self.verdict or NONE

    @property
    def quantity(self) -> str:
        """The cost that is limited, e.g. `latency_ms`."""
        return QUANTITIES[self.name]

    @property
    def value(self) -> float | None:
        """What is known of the cost: measured, else predicted."""
        return self.measured if self.measured is not None else self.predicted

    @property
    def relative_error(self) -> float | None:
        """predicted / measured − 1; a predicted latency is of the quiet value."""
        measured = self.quiet if self.quiet is not None else self.measured
        if self.predicted is None or not measured:
            return None
        return self.predicted / measured - 1


@dataclass(frozen=True, kw_only=True)
class LatencyStatistics:
    """The timing behind a measured latency."""

    device_title: str
    values: Mapping[str, float]
    """p50_ms, p95_ms, p99_ms and their intervals, quiet_ms, mean_ms, std_ms, num_rounds, num_samples: what is
    known."""
    samples_ms: tuple[float, ...]
    """In the order they were taken."""
    round_medians_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """validation.json."""

    holds: bool
    budgets: tuple[BudgetResult, ...]
    device: str
    runtime: str
    source: str
    """Of latency and energy: measured, or what stands in for it."""
    caution: str
    """What to say of a latency that was not measured."""
    costs: Mapping[str, float]
    """Quantity → cost of the exported file."""
    latency: LatencyStatistics | None
    warnings: tuple[str, ...]
    max_abs_output_error: float | None
    date: str
    versions: Mapping[str, str]

    @property
    def is_measured(self) -> bool:
        """Whether the device answered, for every budget that only a device can answer."""
        timed = [budget for budget in self.budgets if budget.name in TIMED]
        return self.source == "measured" and all(budget.measured is not None for budget in timed)

    def source_of(self, quantity: str) -> str:
        """Where a cost comes from, in one word: counted, measured, or what stands in for that."""
        if quantity not in TIMED_QUANTITIES:
            return "counted"
        budget = next((b for b in self.budgets if b.quantity == quantity), None)
        if self.source == "measured" and budget is not None and budget.measured is None:
            return "estimated"
        return self.source


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """How the architecture was chosen from the path; stored beside it in architecture.json."""

    budgets: tuple[Budget, ...]
    step: int | None
    """λ steps of the point that it was taken from."""
    predicted: Mapping[str, float]
    """Quantity → cost at the fitted width."""
    probability: Mapping[str, float]
    """Budget → how likely an estimated cost is to hold it."""
    source: str
    """What predicted latency and energy: measured (kernels), calibrated, imported or estimated."""
    caution: str
    """What to say of them if the device itself was not measured."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything a report shows."""

    name: str
    config: RunConfig
    versions: Mapping[str, str]
    config_text: str
    space: SearchSpace | None
    """None when neither an architecture nor the configuration says how the blocks look."""
    architecture: Architecture | None
    derivation: Derivation | None
    path: tuple[PathPoint, ...]
    lam: tuple[LambdaRow, ...]
    epochs: tuple[EpochRow, ...]
    gamma_cost: str
    """What γ went by in the search; empty: not known, or nothing."""
    selection: tuple[SelectionRow, ...]
    """The candidates that were trained briefly; empty: the architecture was derived by rule."""
    validation: Validation | None
    confusion: Confusion | None
    """Which class the test images were taken for by the trained network."""
    trained_accuracy: float | None
    """Test accuracy of the trained weights, if they are this architecture's."""
    notes: tuple[str, ...]
    """What is missing or could not be read, one sentence each."""

    def stage(self, name: str) -> tuple[EpochRow, ...]:
        """Epochs of `pretrain`, `search` or `retrain`."""
        return tuple(row for row in self.epochs if row.stage == name)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Those that the architecture was derived for; before that, the search's."""
        return self.derivation.budgets if self.derivation else self.config.budgets

    @property
    def budget_results(self) -> tuple[BudgetResult, ...]:
        """Every budget as answered so far: validated, else as predicted."""
        if self.validation is not None:
            return self.validation.budgets
        predicted = self.derivation.predicted if self.derivation else {}
        return tuple(
            BudgetResult(
                name=b.name,
                limit=b.limit,
                predicted=predicted.get(b.quantity),
                measured=None,
                verdict=None,
                probability=self.derivation.probability.get(b.name) if self.derivation else None,
            )
            for b in self.budgets
        )

    def final_cost(self, quantity: str) -> float | None:
        """Return what is known of a cost of the chosen network at its final width."""
        answered = next((b.value for b in self.budget_results if b.quantity == quantity), None)
        if answered is not None:
            return answered
        known = self.validation.costs if self.validation else {}
        predicted = self.derivation.predicted if self.derivation else {}
        return known.get(quantity, predicted.get(quantity))

    def source_of(self, quantity: str) -> str:
        """Where a cost comes from, in one word; a prediction from measured kernels is `predicted`."""
        if self.validation is not None:
            return self.validation.source_of(quantity)
        if quantity not in TIMED_QUANTITIES:
            return "counted"
        source = self.derivation.source if self.derivation else ""
        return "predicted" if source in ("", "measured") else source

    @property
    def test_accuracy(self) -> float | None:
        """Of the retrained network; while it trains, after the last epoch that was tested."""
        if self.trained_accuracy is not None:
            return self.trained_accuracy
        tested = [a for row in self.stage("retrain") if (a := row.get("test_accuracy")) is not None]
        return tested[-1] if tested else None

    @property
    def chosen(self) -> PathPoint | None:
        """The point of the path that the architecture was taken from; of several, the last."""
        if self.architecture is None:
            return None
        same = [point for point in self.path if point.blocks == self.architecture.blocks]
        step = self.derivation.step if self.derivation else None
        return next((p for p in same if p.step == step), same[-1] if same else None)
