"""What a report shows of a run, checked and typed. Read by `run_load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, SkipValidation

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.budget import METRICS, QUANTITIES, Budget, holds_with
from dsonas_hw.config import RunConfig
from dsonas_hw.report.fields import (
    Answer,
    BudgetName,
    Costs,
    Fraction,
    Known,
    Lines,
    Number,
    Numbers,
    Samples,
    Text,
    Texts,
)
from dsonas_hw.report.numbers import METRIC_QUANTITIES, NONE
from dsonas_hw.report.run_selection import SelectionRow
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.confusion import Confusion


class _Read(BaseModel):
    """Something read from a file; what is not in the class is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PathPoint(_Read):
    """One architecture that the search passed."""

    step: int
    epoch: int
    gamma: Number = None
    width: int
    accuracy: Fraction = None
    """With the shared weights; None where it was not scored."""
    costs: Costs
    """Known costs by quantity, e.g. `latency_ms`."""
    blocks: Annotated[tuple[Block, ...], SkipValidation]

    @property
    def num_edges(self) -> int:
        return sum(block.num_edges for block in self.blocks)


class EpochRow(_Read):
    """One line of metrics.jsonl: the numbers in it."""

    stage: str
    epoch: int
    values: Numbers

    def get(self, name: str) -> float | None:
        return self.values.get(name)


class LambdaRow(_Read):
    """λ at the end of an epoch: one tuple per λ set, in the order of `SearchSpace.edges`."""

    step: int
    lam: tuple[tuple[Known, ...], ...]


class BudgetResult(_Read):
    """How one budget was answered."""

    name: BudgetName
    limit: Known
    predicted: Number = None
    measured: Number = None
    verdict: Answer = None
    """None: not answered yet, or nothing is known."""
    statistic: Text = ""
    """Which percentile of the latency `measured` is, or the mean energy; empty: it is a count."""
    low: Number = None
    high: Number = None
    """The interval of `measured`; None: no bound, or the cost is exact."""
    quiet: Number = None
    """Of a measured latency: what the network takes when nothing disturbs it."""
    probability: Fraction = None
    """Of an estimated one: how likely it is to hold."""

    @property
    def answer(self) -> str:
        """The verdict in a word or two: `holds`, `missed`, `holds with 55 %`; a dash where there is none."""
        if self.probability is not None:
            return holds_with(self.probability)
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


class LatencyStatistics(_Read):
    """The timing behind a measured latency."""

    device_title: Text = ""
    values: Numbers
    """p50_ms, p95_ms, p99_ms and their intervals, quiet_ms, mean_ms, std_ms, num_rounds, num_samples: what is
    known."""
    samples_ms: Samples = ()
    """In the order they were taken."""


class Validation(_Read):
    """validation.json."""

    holds: bool
    budgets: tuple[BudgetResult, ...] = ()
    device: Text = ""
    runtime: Text = ""
    source: Text = "estimated"
    """Of latency and energy: measured, or what stands in for it."""
    disclaimer: Text = ""
    """What to say of a latency that was not measured."""
    costs: Costs = {}
    """Quantity → cost of the exported file."""
    latency: LatencyStatistics | None = None
    warnings: Lines = ()
    max_abs_output_error: Number = None
    date: Text = ""
    versions: Texts = {}

    @property
    def is_measured(self) -> bool:
        """Whether the device answered, for every budget that only a device can answer."""
        timed = [budget for budget in self.budgets if budget.name in METRICS]
        return self.source == "measured" and all(budget.measured is not None for budget in timed)

    def source_of(self, quantity: str) -> str:
        """Where a cost comes from, in one word: counted, measured, or what stands in for that."""
        if quantity not in METRIC_QUANTITIES:
            return "counted"
        budget = next((b for b in self.budgets if b.quantity == quantity), None)
        if self.source == "measured" and budget is not None and budget.measured is None:
            return "estimated"
        return self.source


class Derivation(_Read):
    """How the architecture was chosen from the path; stored beside it in architecture.json."""

    limits: dict[BudgetName, Known]
    step: Number = None
    """λ steps of the point that it was taken from."""
    predicted: Costs
    """Quantity → cost at the fitted width."""
    probability: Numbers = {}
    """Budget → how likely an estimated cost is to hold it."""
    source: Text = ""
    """What predicted latency and energy: measured (kernels), calibrated, imported or estimated."""
    disclaimer: Text = ""
    """What to say of them if the device itself was not measured."""

    @property
    def budgets(self) -> tuple[Budget, ...]:
        return tuple(Budget(name=name, limit=limit) for name, limit in self.limits.items())


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
    unfinished: str
    """How far a search has come that has not ended, as `5 of 8 epochs`; empty: it has, or is unknown."""

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
        if quantity not in METRIC_QUANTITIES:
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
