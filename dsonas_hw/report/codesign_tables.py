"""The tables of a co-design study as plain data; what files and notebooks get."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from dsonas_hw.budget import format_probability
from dsonas_hw.report.numbers import THIN, budget_words, cost_text, finite, percent, plain, significant
from dsonas_hw.report.table import Scalar, Table, numbers, values, words
from dsonas_hw.study.codesign import Pair
from dsonas_hw.study.codesign_analysis import Answer, answers, carried, pareto_front, preferences
from dsonas_hw.study.codesign_result import MEASURED_MS, CodesignResult
from dsonas_hw.study.job_files import Missing


def codesign_tables(result: CodesignResult) -> list[Table]:
    """Every table of a study."""
    return [
        answer_table(result),
        cells_table(result),
        carried_table(result),
        preference_table(result),
        missing_table(result.missing),
    ]


def answer_table(result: CodesignResult) -> Table:
    """One row per device and budget: the network to run there."""

    def row(answer: Answer) -> tuple[Scalar, ...]:
        network, cell = answer.network, answer.cell
        if network is None or cell is None:
            return (answer.device, answer.budget, *[None] * 7)
        return (
            answer.device, answer.budget, network.name, network.accuracy, cell.latency_ms,
            cell.latency_ms_low, finite(cell.latency_ms_high), cell.source, answer.probability,
        )  # fmt: skip

    return Table(
        name="answers",
        caption="The network to run on each device under each budget",
        columns=(
            *words(device="Device", budget="Budget", network="Network"),
            *numbers(percent, accuracy="Accuracy"),
            *numbers(plain, latency_ms="Latency there, ms", latency_ms_low="From", latency_ms_high="To"),
            *words(source="Source"),
            *numbers(lambda value: percent(value, 0), probability="Holds with"),
        ),
        rows=tuple(row(answer) for answer in answers(result)),
    )


def answer_sentences(result: CodesignResult) -> list[str]:
    """For each device which network to run under each budget.

    `For t4: network B, 99.4 %, ~0.361 ms (~0.300 to ~0.434), estimated, holds latency ≤ 0.4 ms with 82 %.`
    """
    return [_sentence(result, device.name) for device in result.devices]


def _sentence(result: CodesignResult, device: str) -> str:
    """Budgets that one network answers are told together."""
    held: dict[str, list[str]] = {}
    for answer in answers(result):
        if answer.device == device:
            network, budget = _answer_words(result, answer)
            held.setdefault(network, []).append(budget)
    return f"For {device}: {'; '.join(f'{one} {_listed(budgets)}' for one, budgets in held.items())}."


def _listed(items: Sequence[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def _answer_words(result: CodesignResult, answer: Answer) -> tuple[str, str]:
    """A network with what is known of it there, and the budget that it holds."""
    budget, network, cell = budget_words(answer.budget), answer.network, answer.cell
    if Pair(device=answer.device, budget=answer.budget) in result.study.skipped:
        return "no network of the space, or every one, serves", budget
    if network is None or cell is None:
        return "no network that is trained holds", budget
    chance = "" if answer.probability is None else f" with {format_probability(answer.probability)}"
    about = "" if cell.is_measured else "~"
    low, high = (f"{about}{significant(v)}" if isfinite(v) else "?"
                 for v in (cell.latency_ms_low, cell.latency_ms_high))  # fmt: skip
    latency = f"{about}{significant(cell.latency_ms)}{THIN}ms ({low} to {high})"
    energy = "" if cell.energy_mj is None else f", {about}{cost_text('energy_mj', cell.energy_mj)}"
    words = f"network {network.name}, {percent(network.accuracy)}, {latency}{energy}, {cell.source}, holds"
    return words, f"{budget}{chance}"


def cells_table(result: CodesignResult) -> Table:
    """One row per network and device, with everything that is known."""
    fronts = {device.name: pareto_front(result, device.name) for device in result.devices}
    return Table(
        name="cells",
        caption="Every network on every device, one row each",
        columns=(
            *words(network="Network", device="Device"),
            *values("latency_ms", "latency_ms_low", "latency_ms_high"),
            *words(source="Source"),
            *values("predicted_ms", *MEASURED_MS, "energy_mj", "energy_mj_low", "energy_mj_high"),
            *words(on_front="On the device's front"),
        ),
        rows=tuple(
            (
                c.network, c.device, c.latency_ms, c.latency_ms_low,
                c.latency_ms_high if isfinite(c.latency_ms_high) else None, c.source, c.predicted_ms,
                *(getattr(c, key) for key in MEASURED_MS), c.energy_mj, c.energy_mj_low, c.energy_mj_high,
                c.network in fronts[c.device],
            )
            for c in result.cells
        ),
    )  # fmt: skip


def carried_table(result: CodesignResult) -> Table:
    """What it costs to run one device's networks on another."""
    return Table(
        name="carried",
        caption="Networks of one device (from) on another (to)",
        columns=(
            *words(budget="Budget", source="From", target="To"),
            *numbers(plain, relative_latency="Latency / own at equal accuracy"),
            *numbers(percent, accuracy_loss="Accuracy lost at equal budget"),
        ),
        rows=tuple(
            (c.budget, c.source, c.target, c.relative_latency, c.accuracy_loss) for c in carried(result)
        ),
    )


def preference_table(result: CodesignResult) -> Table:
    """Which operations the networks of each device are made of."""
    return Table(
        name="operations",
        caption="Share of each operation in the networks found for each device",
        columns=(
            *words(device="Device", operation="Operation"),
            *numbers(percent, share_of_nodes="Of operations", share_of_edges="Of edges"),
        ),
        rows=tuple((p.device, p.operation, p.share_of_nodes, p.share_of_edges) for p in preferences(result)),
    )


def missing_table(missing: tuple[Missing, ...]) -> Table:
    """What is not done."""
    return Table(
        name="missing",
        caption="Not done yet",
        columns=(*words(job="Job", reason="Why"),),
        rows=tuple((m.job, m.reason) for m in missing),
    )
