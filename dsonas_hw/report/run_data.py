"""What a report shows of a run, checked and typed. Read by `run_load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.budget import QUANTITIES, Budget
from dsonas_hw.config import RunConfig
from dsonas_hw.space.space import SearchSpace


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
    holds: bool | None

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
        """predicted / measured − 1."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class Validation:
    """validation.json."""

    holds: bool
    budgets: tuple[BudgetResult, ...]
    device: str
    runtime: str
    source: str
    """measured, or what stands in for it."""
    max_abs_output_error: float | None
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The file as it is, for fields that only some runs have."""

    @property
    def is_measured(self) -> bool:
        return self.source == "measured"


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """How the architecture was chosen from the path; stored beside it in architecture.json."""

    budgets: tuple[Budget, ...]
    step: int | None
    """λ steps of the point that it was taken from."""
    predicted: Mapping[str, float]
    """Quantity → cost at the fitted width."""


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
    validation: Validation | None
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
                name=b.name, limit=b.limit, predicted=predicted.get(b.quantity), measured=None, holds=None
            )
            for b in self.budgets
        )

    @property
    def test_accuracy(self) -> float | None:
        """Of the retrained network, after the last epoch that was tested."""
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
