"""Networks of runs and studies side by side: what each is, how accurate, what it costs, and its verdict.

A run is one network. A study is a row per variant and budget, hand-made families and random networks among
them; a co-design study a row per network, device and budget that it was found for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.budget import Budget, holds_with, parse_budgets
from dsonas_hw.config import build_config
from dsonas_hw.report.kind import kind_of, within
from dsonas_hw.report.numbers import cost_text, percent
from dsonas_hw.report.run_data import BudgetResult
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.report.table import Rich, Table, costs, numbers, words
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.study.codesign_analysis import holds
from dsonas_hw.study.codesign_result import CodesignResult, Network, load_result
from dsonas_hw.study.grid import load_grid
from dsonas_hw.study.table import StudyRow

SEARCHED, HAND_MADE, RANDOM = "searched", "hand-made", "random"
COSTS = ("flops", "mac", "params", "memory_bytes")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network, or the mean of a study's networks of one variant."""

    name: str
    """Of the run, or of the network in its study."""
    origin: str
    """The run's or study's directory."""
    kind: str
    """searched, hand-made or random."""
    dataset: str
    device: str
    budget: str
    num_networks: int
    accuracy: float | None
    """On test images; None: not trained."""
    accuracy_std: float | None
    costs: Mapping[str, float | None]
    """Counted costs by quantity."""
    latency_ms: float | None
    latency_source: str
    """measured, or what stands in for that; empty: not known."""
    verdict: str | None
    """holds, missed (does not hold), undecided, or how likely an estimate holds; of several networks how many
    hold. None: not known."""

    def cost(self, quantity: str) -> float | None:
        """A cost; None: not known."""
        return self.latency_ms if quantity == "latency_ms" else self.costs.get(quantity)

    def is_exact(self, quantity: str) -> bool:
        """Whether a cost was counted or measured."""
        return quantity != "latency_ms" or self.latency_source == "measured"

    def text(self, quantity: str) -> str:
        """A cost for people, `~` before what was neither counted nor measured."""
        cost = self.cost(quantity)
        return ("" if cost is None or self.is_exact(quantity) else "~") + cost_text(quantity, cost)


def compare(paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """Read runs and studies, also whole folders of them, and what to know of them, a sentence each.

    Raises:
        UserError: neither a run nor a study, or a damaged one.
    """
    rows, notes = [], []
    for path in itertools.chain.from_iterable(map(within, paths)):
        kind = kind_of(path)
        if kind == "run":
            row, unfinished = _run(path)
            rows.append(row)
            notes += [f"{path}: the search is not finished ({unfinished})."] if unfinished else []
        else:
            rows += _grid(path) if kind == "grid" else _codesign(path)
    if len(datasets := sorted({row.dataset for row in rows})) > 1:
        notes.append(f"The accuracies are on different images: {', '.join(datasets)}.")
    if len(devices := sorted({row.device for row in rows})) > 1:
        notes.append(f"The latencies are on different devices: {', '.join(devices)}.")
    return rows, notes


def _run(path: Path) -> tuple[Row, str]:
    data = load_run_data(RunDirectory(path))
    counted = {} if data.architecture is None else TargetCosts().costs(data.architecture).to_dict()
    predicted = data.derivation.predicted if data.derivation else {}
    known = {**counted, **predicted, **(data.validation.costs if data.validation else {})}
    row = Row(
        name=data.name,
        origin=str(path),
        kind=SEARCHED,
        dataset=data.config.data.dataset,
        device=data.config.target.device,
        budget=",".join(map(str, data.budgets)),
        num_networks=1,
        accuracy=data.test_accuracy,
        accuracy_std=None,
        costs={quantity: known.get(quantity) for quantity in COSTS},
        latency_ms=known.get("latency_ms"),
        latency_source="" if known.get("latency_ms") is None else data.source_of("latency_ms"),
        verdict=_answer(data.budget_results),
    )
    return row, data.unfinished


def _answer(results: Sequence[BudgetResult]) -> str | None:
    """All budgets of a run in a word or two: the worst verdict, or how likely the least likely one holds."""
    chances = [result.probability for result in results if result.probability is not None]
    verdicts = [result.verdict for result in results if result.probability is None]
    if None in verdicts:
        return None
    worst = next((v for v in ("missed", "undecided", "holds") if v in verdicts), None)
    return holds_with(min(chances)) if chances and worst in ("holds", None) else worst


def _grid(path: Path) -> Iterator[Row]:
    result = load_grid(path)
    config = build_config(dict(result.study.jobs[0].config))
    for row in result.rows:
        is_random = row.variant.startswith(RANDOM)
        kind = HAND_MADE if row.variant in result.study.file.hand_made else RANDOM if is_random else SEARCHED
        yield Row(
            name=row.variant,
            origin=str(path),
            kind=kind,
            dataset=config.data.dataset,
            device=config.target.device,
            budget=row.budget,
            num_networks=row.num,
            accuracy=1 - row.test_error_mean,
            accuracy_std=row.test_error_std,
            costs={"flops": row.flops, "mac": row.mac, "params": row.params},
            latency_ms=row.latency_p50_ms or row.latency_ms,
            latency_source="measured" if row.latency_p50_ms else "predicted" if row.latency_ms else "",
            verdict=_num_holding(row),
        )


def _num_holding(row: StudyRow) -> str | None:
    if row.num_holding is None or row.num > 1:
        return None if row.num_holding is None else f"{row.num_holding} of {row.num} hold"
    return "holds" if row.num_holding else "does not hold"


def _codesign(path: Path) -> Iterator[Row]:
    result = load_result(path)
    dataset = build_config(result.study.config).data.dataset
    for network in result.networks:
        for place in {(origin.device, origin.budget): None for origin in network.origins}:
            device, budget = place
            cell = result.cell(network.name, device)
            yield Row(
                name=network.name,
                origin=str(path),
                kind=SEARCHED,
                dataset=dataset,
                device=device,
                budget=budget,
                num_networks=1,
                accuracy=network.accuracy,
                accuracy_std=None,
                costs={quantity: getattr(network.costs, quantity) for quantity in COSTS},
                latency_ms=cell.latency_ms if cell else None,
                latency_source=cell.source if cell else "",
                verdict=_codesign_answer(result, network, device, parse_budgets([budget])),
            )


def _codesign_answer(
    result: CodesignResult, network: Network, device: str, budgets: Sequence[Budget]
) -> str | None:
    cell = result.cell(network.name, device)
    if cell is None or (cell.energy_mj is None and any(b.metric == "energy" for b in budgets)):
        return None
    chance = cell.probability_within(budgets)
    if chance is not None and holds(result, network, device, [b for b in budgets if not b.metric]):
        return holds_with(chance)
    return "holds" if holds(result, network, device, budgets) else "does not hold"


def compare_table(rows: Sequence[Row]) -> Table:
    """The rows as a table; beside a latency stands how it is known, and `~` before one not measured."""
    return Table(
        name="comparison",
        caption="Networks side by side",
        sortable=True,
        columns=(
            *words(network="Network"),
            *numbers(partial(percent, digits=2), accuracy="Test accuracy", accuracy_std="± std"),
            *costs("latency_ms"),
            *words(latency_source="which is", budget="Budget", verdict="Verdict", device="Device"),
            *costs(*COSTS),
            *words(dataset="Images", kind="Kind"),
            *numbers(num_networks="Networks"),
            *words(origin="From"),
        ),
        rows=tuple(
            (
                row.name, row.accuracy, row.accuracy_std,
                Rich(text=row.text("latency_ms"), value=row.latency_ms), row.latency_source,
                row.budget, row.verdict, row.device, *(row.costs.get(key) for key in COSTS), row.dataset,
                row.kind, row.num_networks, row.origin,
            )
            for row in rows
        ),
    )  # fmt: skip
