"""The tables of a co-design page that hold more than text: cross table, choice, carried, operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from math import isfinite

from dsonas_hw.device.energy import NO_ENERGY
from dsonas_hw.report.codesign_tables import answer_sentences
from dsonas_hw.report.draw import operation_colour
from dsonas_hw.report.numbers import NONE, THIN, budget_words, cost_text, percent, significant
from dsonas_hw.report.page import notes
from dsonas_hw.space.operations import get_operation
from dsonas_hw.study.codesign_analysis import (
    Carried,
    carried,
    pareto_front,
    preferences,
    why_no_energy,
)
from dsonas_hw.study.codesign_result import Cell, CodesignResult, Network

_COSTS = ("mac", "flops", "params")
HEAT = (1.01, 1.1, 1.3)
"""Relative latencies above which a cell is coloured more."""
SAME_ACCURACY = 0.0005


def device_filter(result: CodesignResult) -> str:
    """Boxes that hide devices; hidden itself until the script makes it work."""
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(d.name)}" checked> {escape(d.name)}</label>'
        for d in result.devices
    )
    return f'<fieldset class="filter" data-filter hidden><legend>Show devices</legend>{boxes}</fieldset>'


def cross_html(result: CodesignResult) -> str:
    """Rows are networks, columns devices; sortable by every column once the script is there."""
    has_energy = any(cell.energy_mj is not None for cell in result.cells)
    fronts = {device.name: pareto_front(result, device.name) for device in result.devices}
    head = (
        '<th scope="col">Network</th><th scope="col">Found for</th><th scope="col" class="num">Accuracy</th>'
        + "".join(
            f'<th scope="col" class="num" data-device="{escape(d.name)}">{escape(d.name)}, ms</th>'
            for d in result.devices
        )
        + "".join(f'<th scope="col" class="num">{label}</th>' for label in _COSTS)
    )
    body = "".join(_cross_row(result, number, fronts, has_energy) for number in range(len(result.networks)))
    return (
        "<p>Latency of every network on every device; below it, its interval and where it comes from. Bold: "
        'found for this device. <span class="front">●</span> Nothing is both faster and more accurate there.'
        '</p><div class="scroll"><table class="cross" data-sortable>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{_energy_words(result)}{_remarks(result)}"
    )


def _energy_words(result: CodesignResult) -> str:
    """Of which devices no energy is known, and why; devices of one reason together."""
    devices: dict[str, list[str]] = {}
    for device in result.devices:
        if result.cells and (reason := why_no_energy(result, device)) is not None:
            devices.setdefault(reason, []).append(device.name)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in devices.items()]
    return notes(reasons, heading="Energy is not known on")


def _remarks(result: CodesignResult) -> str:
    """What the measurements had to say, but for energy."""
    said = [
        f"{cell.network} on {cell.device}: {remark}"
        for cell in result.cells
        for remark in cell.remarks
        if not remark.startswith(NO_ENERGY)
    ]
    return notes(said, heading="Remarks of the measurements")


def _cross_row(result: CodesignResult, number: int, fronts: dict[str, list[str]], has_energy: bool) -> str:
    network = result.networks[number]
    devices = dict.fromkeys(origin.device for origin in network.origins)
    accuracy = "" if network.accuracy is None else f"{network.accuracy:.6f}"
    cells = [
        f'<th scope="row" data-value="{number}"><a href="#network-{escape(network.name)}">'
        f"{escape(network.name)}</a></th>",
        f'<td class="origins">{_origins(network)}</td>',
        f'<td class="num" data-value="{accuracy}">{_accuracy(network)}</td>',
    ]
    for device in result.devices:
        cell = result.cell(network.name, device.name)
        on_front = network.name in fronts[device.name]
        cells.append(_latency_cell(cell, device.name, network.is_for(device.name), on_front, has_energy))
    cells += [
        f'<td class="num" data-value="{value}">{cost_text(name, value)}</td>'
        for name, value in ((name, getattr(network, name)) for name in _COSTS)
    ]
    names = escape(" ".join(devices))
    return f'<tr data-devices="{names}" data-select="{number}">{"".join(cells)}</tr>'


def _origins(network: Network) -> str:
    budgets: dict[str, list[str]] = {}
    for origin in network.origins:
        budgets.setdefault(origin.device, []).append(origin.budget)
    return "<br>".join(
        f"{escape(device)} <small>{escape(', '.join(map(budget_words, dict.fromkeys(texts))))}</small>"
        for device, texts in budgets.items()
    )


def _accuracy(network: Network) -> str:
    if network.accuracy is None:
        return NONE
    spread = max(network.accuracies) - min(network.accuracies)
    several = f"<small>± {percent(spread / 2)}</small>" if len(network.accuracies) > 1 else ""
    return percent(network.accuracy) + several


def _latency_cell(cell: Cell | None, device: str, is_own: bool, on_front: bool, has_energy: bool) -> str:
    opening = f'<td class="num{" own" if is_own else ""}" data-device="{escape(device)}"'
    if cell is None:
        return f'{opening} data-value="">{NONE}</td>'
    loud, about = ("", "") if cell.is_measured else (' class="unsure"', "~")
    energy = f"<small>{cost_text('energy_mj', cell.energy_mj)}</small>" if has_energy else ""
    mark = '<span class="front" title="on this device’s front">●</span> ' if on_front else ""
    high = significant(cell.latency_ms_high) if isfinite(cell.latency_ms_high) else "?"
    tail = [f"p{n} {significant(ms)}" for n, ms in ((95, cell.p95_ms), (99, cell.p99_ms)) if ms is not None]
    percentiles = f"<small>{', '.join(tail)}</small>" if tail else ""
    return (
        f'{opening} data-value="{cell.latency_ms!r}">{mark}{about}{significant(cell.latency_ms)}'
        f"<small>{about}{significant(cell.latency_ms_low)}–{high}</small>{percentiles}"
        f"<small{loud}>{escape(cell.source)}</small>{energy}</td>"
    )


def answers_html(result: CodesignResult) -> str:
    """A sentence per device; the names of networks lead to their drawings."""

    def linked(sentence: str) -> str:
        return re.sub(r"network ([A-Z]+),", r'<a href="#network-\1">network \1</a>,', escape(sentence))

    rows = [
        f'<li data-device="{escape(device.name)}">{linked(sentence)}</li>'
        for device, sentence in zip(result.devices, answer_sentences(result), strict=True)
    ]
    return f'<ul class="answers">{"".join(rows)}</ul>'


def carried_html(result: CodesignResult) -> str:
    """One table per budget: rows are where a network comes from, columns where it runs."""
    rows = carried(result)
    return "".join(_carried_table(result, budget, rows) for budget in result.study.budgets)


def _carried_table(result: CodesignResult, budget: str, rows: Sequence[Carried]) -> str:
    found = {(r.source, r.target): r for r in rows if r.budget == budget}
    names = [device.name for device in result.devices]
    head = '<th scope="col">Found for</th>' + "".join(
        f'<th scope="col" class="num" data-device="{escape(name)}">on {escape(name)}</th>' for name in names
    )
    body = ""
    for source in names:
        cells = "".join(
            _carried_cell(found[source, target], _is_known(result, source, target, budget))
            for target in names
        )
        body += f'<tr data-devices="{escape(source)}"><th scope="row">{escape(source)}</th>{cells}</tr>'
    return (
        f'<div class="scroll"><table class="carried"><caption>{escape(budget_words(budget))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _is_known(result: CodesignResult, source: str, target: str, budget: str) -> bool:
    """Whether there are networks to carry, and all that are compared have been trained."""
    compared = [n for n in result.networks if n.is_for(source) or n.is_for(target)]
    return bool(result.found_for(source, budget)) and all(n.accuracy is not None for n in compared)


def _carried_cell(carried: Carried, is_known: bool) -> str:
    opening = f'<td class="num" data-device="{escape(carried.target)}"'
    if carried.source == carried.target:
        return f'{opening}><span class="quiet">own</span></td>'
    if not is_known:
        return f"{opening}>{NONE}</td>"
    heat = sum((carried.relative_latency or 1.0) > limit for limit in HEAT)
    opening = opening.replace('"num"', f'"num heat-{heat}"') if heat else opening
    relative, loss = _relative(carried.relative_latency), _loss(carried.accuracy_loss)
    return f"{opening}>{relative}<small>{loss}</small></td>"


def _relative(ratio: float | None) -> str:
    return "no match" if ratio is None else f"{ratio:.2f}{THIN}×"


def _loss(loss: float | None) -> str:
    if loss is None:
        return "no network holds it"
    if abs(loss) < SAME_ACCURACY:
        return "same accuracy"
    return f"accuracy {'−' if loss > 0 else '+'}{abs(100 * loss):.1f}{THIN}pt"


def operations_html(result: CodesignResult) -> str:
    """Rows are operations, columns devices: a bar for the share of nodes."""
    rows = preferences(result)
    devices = [d.name for d in result.devices if any(r.device == d.name for r in rows)]
    operations = list(dict.fromkeys(r.operation for r in rows))
    if not rows:
        return ""
    share = {(r.device, r.operation): r for r in rows}
    head = '<th scope="col">Operation</th>' + "".join(
        f'<th scope="col" data-device="{escape(name)}">{escape(name)}</th>' for name in devices
    )
    body = ""
    for name in operations:
        operation = get_operation(name)
        colour = operation_colour(operation)
        cells = "".join(
            f'<td data-device="{escape(row.device)}">{_bar(row.share_of_nodes, colour)}'
            f"{percent(row.share_of_nodes, 0)}<small>{percent(row.share_of_edges, 0)} of edges</small></td>"
            for row in (share[device, name] for device in devices)
        )
        body += f'<tr><th scope="row">{escape(operation.label)}</th>{cells}</tr>'
    return (
        '<div class="scroll"><table class="operations"><caption>Share of each operation among all that are '
        "left in the networks found for a device; below it, its share of the edges</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _bar(share: float, colour: str) -> str:
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="100" height="8" rx="1" fill="currentColor" opacity=".08"/>'
        f'<rect width="{100 * share:.1f}" height="8" rx="1" fill="{colour}"/></svg>'
    )
