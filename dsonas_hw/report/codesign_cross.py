"""The tables of a co-design study that show more than values: cross table, carried, operations."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from dsonas_hw.report.bars import bar
from dsonas_hw.report.draw import operation_colour
from dsonas_hw.report.numbers import NONE, THIN, about, budget_words, cost_text, percent, significant
from dsonas_hw.report.table import Cell as TableCell
from dsonas_hw.report.table import Column, Rich, Table, costs, hidden, numbers, words
from dsonas_hw.space.operations import get_operation
from dsonas_hw.study.codesign_analysis import Carried, carried, pareto_front, preferences
from dsonas_hw.study.codesign_result import Cell, CodesignResult, Network

HEAT = (1.01, 1.1, 1.3)
"""Relative latencies above which a cell is coloured more."""
SAME_ACCURACY = 0.0005


def cross_table(result: CodesignResult) -> Table:
    """Rows are networks, columns devices; in files also where each latency comes from."""
    has_energy = any(cell.energy_mj is not None for cell in result.cells)
    fronts = {device.name: pareto_front(result, device.name) for device in result.devices}
    keys = {device.name: device.name.replace("-", "_").replace(".", "_") for device in result.devices}

    def row(number: int, network: Network) -> tuple[TableCell, ...]:
        cells = {name: result.cell(network.name, name) for name in keys}
        latencies = [
            _latency(cell, network.is_for(name), network.name in fronts[name], has_energy)
            for name, cell in cells.items()
        ]
        found_for = "; ".join(dict.fromkeys(f"{o.device} {o.budget}" for o in network.origins))
        return (
            Rich(text=network.name, value=network.name, order=number, href=f"#network-{network.name}"),
            Rich(text="", value=found_for, small=_origins(network)),
            _accuracy(network),
            *latencies,
            *(cell.source if cell else None for cell in cells.values()),
            *(getattr(network.costs, quantity) for quantity in ("mac", "flops", "params", "memory_bytes")),
        )

    return Table(
        name="cross-table",
        caption="Latency of every network on every device; below it, its interval and where it comes from. "
        "Bold: found for this device. ●: nothing is both faster and more accurate there.",
        columns=(
            *words(network="Network", found_for="Found for"),
            *numbers(accuracy="Accuracy"),
            *(Column(key=f"latency_ms_{k}", heading=f"{name}, ms", device=name) for name, k in keys.items()),
            *hidden(*(f"source_{k}" for k in keys.values())),
            *costs("mac", "flops", "params"),
            *hidden("memory_bytes"),
        ),
        rows=tuple(row(number, network) for number, network in enumerate(result.networks)),
        style="cross",
        sortable=True,
        ids=tuple(range(len(result.networks))),
        devices=tuple(" ".join(dict.fromkeys(o.device for o in n.origins)) for n in result.networks),
    )


def _origins(network: Network) -> tuple[str, ...]:
    """A line per budget: the devices that it was found for."""
    devices: dict[str, list[str]] = {}
    for origin in network.origins:
        devices.setdefault(budget_words(origin.budget), []).append(origin.device)
    return tuple(f"{', '.join(dict.fromkeys(names))}: {budget}" for budget, names in devices.items())


def _accuracy(network: Network) -> Rich:
    spread = max(network.accuracies, default=0.0) - min(network.accuracies, default=0.0)
    several = (f"± {percent(spread / 2)}",) if len(network.accuracies) > 1 else ()
    return Rich(text=percent(network.accuracy), value=network.accuracy, small=several)


def _latency(cell: Cell | None, is_own: bool, on_front: bool, has_energy: bool) -> Rich:
    if cell is None:
        return Rich(text=NONE)
    high = significant(cell.latency_ms_high) if isfinite(cell.latency_ms_high) else "?"
    tail = [f"p{n} {significant(ms)}" for n, ms in ((95, cell.p95_ms), (99, cell.p99_ms)) if ms is not None]
    return Rich(
        text=f"{'● ' if on_front else ''}{about(cell.source)}{significant(cell.latency_ms)}",
        value=cell.latency_ms,
        small=(
            f"{about(cell.source)}{significant(cell.latency_ms_low)}–{high}",
            *([", ".join(tail)] if tail else []),
            cell.source,
            *([_energy(cell)] if has_energy else []),
        ),
        style="own" if is_own else "",
    )


def _energy(cell: Cell) -> str:
    known = cell.energy_mj is not None
    return (about(cell.source) if known else "") + cost_text("energy_mj", cell.energy_mj)


def carried_tables(result: CodesignResult) -> list[Table]:
    """One table per budget: rows are where a network comes from, columns where it runs."""
    rows, names = carried(result), [device.name for device in result.devices]
    return [
        _carried_table(result, [r for r in rows if r.budget == budget], names)
        for budget in result.study.budgets
    ]


def _carried_table(result: CodesignResult, rows: Sequence[Carried], names: Sequence[str]) -> Table:
    found = {(row.source, row.target): _carried_cell(result, row) for row in rows}
    return Table(
        name="carried",
        caption=budget_words(rows[0].budget),
        columns=(
            *words(found_for="Found for"),
            *(Column(key=name, heading=f"on {name}", device=name) for name in names),
        ),
        rows=tuple((source, *(found[source, target] for target in names)) for source in names),
        style="carried",
        devices=tuple(names),
    )


def _carried_cell(result: CodesignResult, row: Carried) -> Rich:
    if row.source == row.target:
        return Rich(text="own", style="quiet")
    compared = [n for n in result.networks if n.is_for(row.source) or n.is_for(row.target)]
    if not result.found_for(row.source, row.budget) or any(n.accuracy is None for n in compared):
        return Rich(text=NONE)
    ratio = row.relative_latency
    heat = sum((ratio or 1.0) > limit for limit in HEAT)
    return Rich(
        text="no match" if ratio is None else f"{ratio:.2f}{THIN}×",
        value=ratio,
        small=(_loss(row.accuracy_loss),),
        fraction=heat / len(HEAT),
    )


def _loss(loss: float | None) -> str:
    if loss is None:
        return "no network holds it"
    if abs(loss) < SAME_ACCURACY:
        return "same accuracy"
    return f"accuracy {'−' if loss > 0 else '+'}{abs(100 * loss):.1f}{THIN}pt"


def operation_table(result: CodesignResult) -> Table | None:
    """Rows are operations, columns devices: a bar for the fraction of nodes; None: there are no networks."""
    rows = preferences(result)
    if not rows:
        return None
    found = {(row.operation, row.device): row for row in rows}
    names = list(dict.fromkeys(row.device for row in rows))

    def cell(operation: str, device: str) -> Rich:
        row = found[operation, device]
        return Rich(
            text=percent(row.share_of_nodes, 0),
            value=row.share_of_nodes,
            small=(f"{percent(row.share_of_edges, 0)} of edges",),
            svg=bar(row.share_of_nodes, operation_colour(get_operation(operation))),
        )

    return Table(
        name="operations",
        caption="Each operation's part of all that are left in the networks found for a device; below it, "
        "its part of the edges",
        columns=(
            *words(operation="Operation"),
            *(Column(key=name, heading=name, numeric=False, device=name) for name in names),
        ),
        rows=tuple(
            (get_operation(operation).label, *(cell(operation, name) for name in names))
            for operation in dict.fromkeys(row.operation for row in rows)
        ),
        style="operations",
    )
