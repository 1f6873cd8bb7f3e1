"""The tables of a co-design study as plain data; what files and notebooks get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from dsonas_hw.budget import format_probability
from dsonas_hw.report.numbers import THIN, budget_words, cost_text, finite, percent, plain, significant
from dsonas_hw.report.table import Column, Scalar, Table
from dsonas_hw.study.codesign import Pair
from dsonas_hw.study.codesign_analysis import Answer, answers, carried, pareto_front, preferences
from dsonas_hw.study.codesign_result import MEASURED_MS, CodesignResult, Network
from dsonas_hw.study.missing import Missing

COUNTED = ("flops", "mac", "params", "memory_bytes")


def codesign_tables(result: CodesignResult) -> list[Table]:
    """Every table of a study."""
    return [
        answer_table(result),
        cross_table(result),
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
            Column(key="device", heading="Device", numeric=False),
            Column(key="budget", heading="Budget", numeric=False),
            Column(key="network", heading="Network", numeric=False),
            Column(key="accuracy", heading="Accuracy", text=percent),
            Column(key="latency_ms", heading="Latency there, ms", text=plain),
            Column(key="latency_ms_low", heading="From", text=plain),
            Column(key="latency_ms_high", heading="To", text=plain),
            Column(key="source", heading="Source", numeric=False),
            Column(key="probability", heading="Holds with", text=lambda value: percent(value, 0)),
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
    words = f"network {network.name}, {percent(network.accuracy)}, {latency}, {cell.source}, holds"
    return words, f"{budget}{chance}"


def cross_table(result: CodesignResult) -> Table:
    """One row per network; latency of every device beside each other."""
    devices = [device.name for device in result.devices]

    def latency(name: str) -> list[Column]:
        key = name.replace("-", "_").replace(".", "_")
        return [
            Column(key=f"latency_ms_{key}", heading=f"{name}, ms", text=plain),
            Column(key=f"source_{key}", heading="Source", numeric=False),
        ]

    rows = []
    for network in result.networks:
        cells = [result.cell(network.name, name) for name in devices]
        rows.append(
            (
                network.name,
                found_for(network),
                network.accuracy,
                *(getattr(network, name) for name in COUNTED),
                *(value for c in cells for value in ((c.latency_ms, c.source) if c else (None, None))),
            )
        )
    return Table(
        name="cross-table",
        caption="Every network on every device",
        columns=(
            Column(key="network", heading="Network", numeric=False),
            Column(key="found_for", heading="Found for", numeric=False),
            Column(key="accuracy", heading="Accuracy", text=percent),
            *(Column(key=name, heading=name, text=cost_column_text(name)) for name in COUNTED),
            *(column for name in devices for column in latency(name)),
        ),
        rows=tuple(rows),
    )


def cost_column_text(quantity: str) -> Callable[[Any], str]:
    """How a cost is written in a column of its own."""
    return lambda value: cost_text(quantity, value)


def found_for(network: Network) -> str:
    """Devices and budgets, e.g. `1080ti latency=3ms; v100 latency=5ms`."""
    return "; ".join(dict.fromkeys(f"{o.device} {o.budget}" for o in network.origins))


def cells_table(result: CodesignResult) -> Table:
    """One row per network and device, with everything that is known."""
    fronts = {device.name: pareto_front(result, device.name) for device in result.devices}
    return Table(
        name="cells",
        caption="Every network on every device, one row each",
        columns=(
            Column(key="network", heading="Network", numeric=False),
            Column(key="device", heading="Device", numeric=False),
            *(
                Column(key=key, heading=key, text=plain)
                for key in ("latency_ms", "latency_ms_low", "latency_ms_high")
            ),
            Column(key="source", heading="Source", numeric=False),
            Column(key="predicted_ms", heading="predicted_ms", text=plain),
            *(Column(key=key, heading=key, text=plain) for key in MEASURED_MS),
            Column(key="energy_mj", heading="energy_mj", text=plain),
            Column(key="on_front", heading="On the device's front", numeric=False),
        ),
        rows=tuple(
            (
                c.network, c.device, c.latency_ms, c.latency_ms_low,
                c.latency_ms_high if isfinite(c.latency_ms_high) else None, c.source, c.predicted_ms,
                *(getattr(c, key) for key in MEASURED_MS), c.energy_mj, c.network in fronts[c.device],
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
            Column(key="budget", heading="Budget", numeric=False),
            Column(key="source", heading="From", numeric=False),
            Column(key="target", heading="To", numeric=False),
            Column(key="relative_latency", heading="Latency / own at equal accuracy", text=plain),
            Column(key="accuracy_loss", heading="Accuracy lost at equal budget", text=percent),
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
            Column(key="device", heading="Device", numeric=False),
            Column(key="operation", heading="Operation", numeric=False),
            Column(key="share_of_nodes", heading="Of operations", text=percent),
            Column(key="share_of_edges", heading="Of edges", text=percent),
        ),
        rows=tuple((p.device, p.operation, p.share_of_nodes, p.share_of_edges) for p in preferences(result)),
    )


def missing_table(missing: tuple[Missing, ...]) -> Table:
    """What is not done."""
    return Table(
        name="missing",
        caption="Not done yet",
        columns=(
            Column(key="job", heading="Job", numeric=False),
            Column(key="reason", heading="Why", numeric=False),
        ),
        rows=tuple((m.job, m.reason) for m in missing),
    )
