"""What the cross table of a co-design study says: answers, fronts, cost of carrying, preferences.

Notation: lat(n, B) the latency of network n on device B, acc(n) its test accuracy, N(A, b) the networks found
for device A under budget b, N(A) those for any budget. Accuracies within half a point are called equal: ε =
`EQUAL_ACCURACY`; less would be decided by the noise of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dsonas_hw.architecture.architecture import Block
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.measure.energy import NO_ENERGY
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.study.codesign import StudyDevice
from dsonas_hw.study.codesign_result import Cell, CodesignResult, Network

EQUAL_ACCURACY = 0.005


def pareto_front(result: CodesignResult, device: str) -> list[str]:
    """Return the names of the networks that no other beats here in latency and accuracy, fastest first."""
    points = [
        (cell.latency_ms, -network.accuracy, network.name)
        for network in result.networks
        if network.accuracy is not None and (cell := result.cell(network.name, device)) is not None
    ]
    front, best = [], 0.0
    for _, negative, name in sorted(points):
        if negative < best:
            best = negative
            front.append(name)
    return front


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to run on a device under a budget: no other network is both as accurate and faster there."""

    device: str
    budget: str
    network: Network | None
    """The most accurate of all that hold the budget there, found for it or not; of equals the fastest.
    None: no network that is trained holds it."""
    cell: Cell | None
    """The network on the device."""
    probability: float | None
    """How likely the budget's latency and energy are to hold, the less likely of the two; None: they were
    measured, or have no limit."""


def answers(result: CodesignResult) -> list[Answer]:
    """Return the answer of every device and budget, device by device."""
    return [_answer(result, d.name, budget) for d in result.devices for budget in result.study.budgets]


def _answer(result: CodesignResult, device: str, budget: str) -> Answer:
    budgets = parse_budgets([budget])
    held = [
        (network.accuracy, -cell.latency_ms, network, cell)
        for network in result.networks
        if network.accuracy is not None
        and (cell := result.cell(network.name, device)) is not None
        and holds(result, network, device, budgets)
    ]
    if not held:
        return Answer(device=device, budget=budget, network=None, cell=None, probability=None)
    *_, network, cell = max(held, key=lambda one: one[:2])
    return Answer(
        device=device,
        budget=budget,
        network=network,
        cell=cell,
        probability=cell.probability_within(budgets),
    )


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The networks found for `source` under `budget`, run on `target`."""

    source: str
    target: str
    budget: str
    relative_latency: float | None
    """Mean over n in N(A, b) of lat(n, B) / min {lat(m, B): m in N(B), acc(m) ≥ acc(n) − ε}: what n takes on
    B, over the fastest of its own networks that is as accurate. None: none of B's own is as accurate."""
    accuracy_loss: float | None
    """max {acc(m): m in N(B), m holds b on B} − max {acc(n): n in N(A), n holds b on B}: what is lost under
    the same budget if only A's networks were there. None: none of them, or of B's own, holds b on B."""


def carried(result: CodesignResult) -> list[Carried]:
    """Return every ordered pair of devices and every budget; source = target too, where the loss is zero."""
    names = [device.name for device in result.devices]
    return [
        Carried(
            source=source,
            target=target,
            budget=budget,
            relative_latency=_relative_latency(result, source, target, budget),
            accuracy_loss=_accuracy_loss(result, source, target, budget),
        )
        for budget in result.study.budgets
        for source in names
        for target in names
    ]


def _relative_latency(result: CodesignResult, source: str, target: str, budget: str) -> float | None:
    ratios = []
    for network in result.found_for(source, budget):
        latency = _latency_ms(result, network, target)
        own = [
            own_ms
            for other in result.networks
            if other.is_for(target)
            and other.accuracy is not None
            and network.accuracy is not None
            and other.accuracy >= network.accuracy - EQUAL_ACCURACY
            and (own_ms := _latency_ms(result, other, target)) is not None
        ]
        if latency is not None and own:
            ratios.append(latency / min(own))
    return sum(ratios) / len(ratios) if ratios else None


def _accuracy_loss(result: CodesignResult, source: str, target: str, budget: str) -> float | None:
    own = _best_accuracy(result, target, on=target, budget=budget)
    foreign = _best_accuracy(result, source, on=target, budget=budget)
    return None if own is None or foreign is None else own - foreign


def _best_accuracy(result: CodesignResult, found_for: str, *, on: str, budget: str) -> float | None:
    """Of the networks found for one device, under a budget on another."""
    budgets = parse_budgets([budget])
    accuracies = [
        n.accuracy
        for n in result.networks
        if n.is_for(found_for) and n.accuracy is not None and holds(result, n, on, budgets)
    ]
    return max(accuracies, default=None)


def holds(result: CodesignResult, network: Network, device: str, budgets: Iterable[Budget]) -> bool:
    """Return whether a network holds every budget on a device, as far as is known; not if a cost is not.

    A latency or an energy that was measured holds with its whole interval, a predicted one by its value.
    """
    cell = result.cell(network.name, device)
    if cell is None:
        return False
    sure = cell.is_measured
    costs = network.costs.to_dict() | {
        "latency_ms": cell.latency_ms_high if sure else cell.latency_ms,
        "energy_mj": cell.energy_mj_high if sure else cell.energy_mj,
    }
    return all((cost := costs[b.quantity]) is not None and cost <= b.limit for b in budgets)


def _latency_ms(result: CodesignResult, network: Network, device: str) -> float | None:
    cell = result.cell(network.name, device)
    return cell.latency_ms if cell else None


def why_no_energy(result: CodesignResult, device: StudyDevice) -> str | None:
    """Return why no network's energy is known on a device; None: it is known of one at least."""
    cells = [cell for cell in result.cells if cell.device == device.name]
    if any(cell.energy_mj is not None for cell in cells):
        return None
    if not device.is_here:
        return "not on this machine, where it would be measured"
    if not any(cell.is_measured for cell in cells):
        return "not measured yet"
    said = [remark for cell in cells for remark in cell.remarks if remark.startswith(NO_ENERGY)]
    return said[0].removeprefix(NO_ENERGY) if said else "only of GPUs is it read, from their driver (NVML)"


@dataclass(frozen=True, kw_only=True)
class Preference:
    """How much of the networks found for a device is one operation."""

    device: str
    operation: str
    share_of_nodes: float
    """Of all operations that are alive, over the blocks of all its networks; 1/N if none were preferred."""
    share_of_edges: float
    """Of all edges: those into the operation, and from it into the block's output."""


def preferences(result: CodesignResult) -> list[Preference]:
    """Return every device and operation; nothing for a device without networks."""
    rows = []
    for device in result.devices:
        nodes: Counter[str] = Counter()
        edges: Counter[str] = Counter()
        networks = [n for n in result.networks if n.is_for(device.name)]
        for network in networks:
            for block in network.architecture.blocks:
                _count(network.architecture.space, block, nodes, edges)
        if networks and nodes:
            rows += [
                Preference(
                    device=device.name,
                    operation=operation.name,
                    share_of_nodes=nodes[operation.name] / nodes.total(),
                    share_of_edges=edges[operation.name] / edges.total(),
                )
                for operation in networks[0].architecture.space.operation_list
            ]
    return rows


def _count(space: SearchSpace, block: Block, nodes: Counter[str], edges: Counter[str]) -> None:
    for node in block.nodes:
        name = space.operation_of(node).name
        nodes[name] += 1
        edges[name] += len(block.inputs[node - 1]) + (node in block.output)
