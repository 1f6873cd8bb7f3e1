"""The page of a co-design study: the answers first, then what they rest on."""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.budget import parse_budgets
from dsonas_hw.measure.energy import NO_ENERGY
from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans
from dsonas_hw.report.codesign_cross import carried_tables, cross_table, operation_table
from dsonas_hw.report.codesign_tables import answer_sentences, missing_table
from dsonas_hw.report.explorer import Explorer, Shown
from dsonas_hw.report.numbers import COST_LABELS, THIN, about, budget_words, cost_text, count_of, percent
from dsonas_hw.report.parts import (
    Answers,
    Details,
    DeviceFilter,
    Facts,
    Figures,
    Notes,
    Page,
    Pairs,
    Part,
    Section,
    Warning,
    block_drawings,
    missing_notes,
)
from dsonas_hw.study.codesign import StudyDevice
from dsonas_hw.study.codesign_analysis import pareto_front, preferences, why_no_energy
from dsonas_hw.study.codesign_result import CodesignResult, Network

READING = (
    (
        f"1.25{THIN}×",
        "it takes 1.25 times as long as the fastest of the column’s own networks that is as accurate (to "
        "half a point); “no match”: none of them is",
    ),
    (
        f"accuracy −2.0{THIN}pt",
        "under the same budget, the best that is left is so much less accurate if only the row’s networks "
        "are there; “no network holds it”: none of the row’s, or none of the column’s own, does",
    ),
)
"""How to read the tables of what is carried."""
UNTRAINED = "No network has been trained yet."


def codesign_page(result: CodesignResult, *, name: str) -> Page:
    """The page. name: of the study's directory."""
    devices = [device.name for device in result.devices]
    budgets = "; ".join(map(budget_words, result.study.budgets))
    sections: list[tuple[str, str, list[Part]]] = [
        ("summary", "Summary", _summary(result)),
        ("cross", "Every network on every device", _cross(result)),
        ("fronts", "Latency against accuracy", _fronts(result)),
        ("carried", "Carried to another device", _carried(result)),
        ("operations", "What each device prefers", _operations(result)),
        ("networks", "Networks", [_network(result, n) for n in result.networks] or ["None yet."]),
        ("setting", "How this was made", _setting(result)),
    ]
    return Page(
        title=f"Co-design on {_dataset(result)} – {name}",
        kicker=f"Co-design study “{name}”",
        heading=f"Networks for {_dataset(result)}, device by device",
        subtitle=f"{', '.join(devices)} · {budgets}",
        sections=[Section(id=key, heading=heading, parts=parts) for key, heading, parts in sections],
    )


def _dataset(result: CodesignResult) -> str:
    data = result.study.config.get("data")
    return str(data.get("dataset", "")) if isinstance(data, dict) else ""


def _summary(result: CodesignResult) -> list[Part]:
    devices = [device.name for device in result.devices]
    absent = [device.name for device in result.devices if not device.is_here]
    best = max((n.accuracy for n in result.networks if n.accuracy is not None), default=None)
    warning = Warning(
        heading="ESTIMATED, NOT MEASURED",
        text=f"{', '.join(absent)}: not on this machine. Latencies there come from a model of the device and "
        "carry its interval; what follows from small differences is not certain.",
    )
    facts = [
        ("distinct networks", str(len(result.networks))),
        ("trained", str(sum(bool(n.accuracies) for n in result.networks))),
        ("best test accuracy", percent(best)),
        ("jobs done", f"{result.num_jobs - len(result.missing)} of {result.num_jobs}"),
    ]
    missing = missing_notes([f"{m.job}: {m.reason}" for m in result.missing])
    return [
        *([warning] if absent else []),
        Answers(sentences=list(zip(devices, answer_sentences(result), strict=True))),
        Facts(items=facts),
        *([missing] if result.missing else []),
    ]


def _cross(result: CodesignResult) -> list[Part]:
    """The cross table, of which devices no energy is known and why, and what the measurements had to say."""
    silent: dict[str, list[str]] = {}
    for device in result.devices:
        if result.cells and (reason := why_no_energy(result, device)) is not None:
            silent.setdefault(reason, []).append(device.name)
    remarks = [
        f"{cell.network} on {cell.device}: {remark}"
        for cell in result.cells
        for remark in cell.remarks
        if not remark.startswith(NO_ENERGY)
    ]
    return [
        DeviceFilter(devices=[device.name for device in result.devices]),
        cross_table(result),
        Notes(
            heading="Energy is not known on",
            items=[f"{', '.join(names)}: {reason}" for reason, names in silent.items()],
        ),
        Notes(heading="Remarks of the measurements", items=remarks),
    ]


# -- fronts ----------------------------------------------------------------------------------------------


def codesign_figures(result: CodesignResult) -> list[Chart]:
    """One chart per device that has trained networks."""
    return [chart for device in result.devices if (chart := front_figure(result, device)) is not None]


def front_figure(result: CodesignResult, device: StudyDevice) -> Chart | None:
    """Every trained network on one device, its front joined; None: nothing is trained yet."""
    latency = {c.network: c.latency_ms for c in result.cells if c.device == device.name}
    placed = [i for i, n in enumerate(result.networks) if n.accuracy is not None and n.name in latency]
    if not placed:
        return None
    own = [i for i in placed if result.networks[i].is_for(device.name)]
    foreign = [i for i in placed if i not in own]
    number = {network.name: i for i, network in enumerate(result.networks)}
    front = [number[name] for name in pareto_front(result, device.name)]

    def series(positions: Sequence[int], *, named: bool = True, **style: object) -> Series:
        networks = [result.networks[i] for i in positions]
        return Series(
            x=tuple(latency[n.name] for n in networks),
            y=tuple(n.accuracy for n in networks),
            ids=tuple(positions),
            names=tuple(n.name for n in networks) if named else (),
            hints=tuple(
                f"{n.name}: {cost_text('latency_ms', latency[n.name])}, {percent(n.accuracy)}"
                for n in networks
            ),
            **style,  # type: ignore[arg-type]
        )

    limits = sorted(
        {b.limit for text in result.study.budgets for b in parse_budgets([text]) if b.name == "latency"}
    )
    drawn = [latency[result.networks[i].name] for i in placed]
    how = "measured" if all(c.is_measured for c in result.cells if c.device == device.name) else device.source
    return Chart(
        name=f"front-{device.name}",
        title=f"{device.title}, {how}",
        caption=(
            f"{count_of(len(own), 'network')} found for it, {len(foreign)} found for other devices; those "
            "that no other beats in both are joined."
        ),
        x=Axis(label="latency, ms", log=spans(drawn, 12)),
        y=Axis(label="test accuracy", percent=True),
        series=(
            series(front, named=False, name="front", kind="line", colour="accent", width=1.4),
            series(foreign, name="of other devices", kind="points", colour="muted", size=4.0),
            series(own, name="of this device", kind="points", colour="accent", size=5.0),
        ),
        marks=tuple(Mark(axis="x", value=limit, label=cost_text("latency_ms", limit)) for limit in limits),
        legend=(("found for this device", "accent"), ("found for another", "muted")),
    )  # fmt: skip


def _fronts(result: CodesignResult) -> list[Part]:
    charts = codesign_figures(result)
    if not charts:
        return [UNTRAINED]
    explorer = Explorer(
        label="Walk through the networks",
        space=result.networks[0].architecture.space,
        shown=[_shown(result, number) for number in range(len(result.networks))],
        start=max(range(len(result.networks)), key=lambda i: result.networks[i].accuracy or 0.0),
    )
    return [
        "Each dot is a network; it is the same network that is marked on every device.",
        Figures(
            items=charts, devices=[chart.name.removeprefix("front-") for chart in charts], explorer=explorer
        ),
    ]


def _shown(result: CodesignResult, number: int) -> Shown:
    network = result.networks[number]
    sets = network.architecture.space.num_lambda_sets
    return Shown(id=number, text=_words(result, network), blocks=network.architecture.blocks[:sets])


def _words(result: CodesignResult, network: Network) -> str:
    latencies = "; ".join(
        f"{device.name} {about(cell.source)}{cost_text('latency_ms', cell.latency_ms)} {cell.source}"
        for device in result.devices
        if (cell := result.cell(network.name, device.name)) is not None
    )
    accuracy = "not trained yet" if network.accuracy is None else f"{percent(network.accuracy)} accuracy"
    counted = ", ".join(
        f"{COST_LABELS[name]} {cost_text(name, getattr(network.costs, name))}" for name in ("mac", "flops")
    )
    return (
        f"Network {network.name}: {accuracy}; {latencies}; {counted}; {network.architecture.width} channels."
    )


# -- the rest --------------------------------------------------------------------------------------------


def _carried(result: CodesignResult) -> list[Part]:
    if len(result.devices) < 2:
        return ["There is one device only."]
    if all(network.accuracy is None for network in result.networks):
        return [UNTRAINED]
    return [
        "What is lost when networks are not searched for the device they run on. Rows: whom the networks "
        "were found for. Columns: where they run.",
        Pairs(items=READING),
        *carried_tables(result),
    ]


def _operations(result: CodesignResult) -> list[Part]:
    table = operation_table(result)
    if table is None:
        return ["No network has been found yet."]
    separable: dict[str, float] = {}
    for row in preferences(result):
        if row.operation.startswith("sep"):
            separable[row.device] = separable.get(row.device, 0.0) + row.share_of_nodes
    words = ", ".join(f"{percent(fraction, 0)} on {device}" for device, fraction in separable.items())
    text = (
        "Separable convolutions read and write much for what they compute; they suffer where memory access "
        f"binds. Of the operations that are left they are {words}."
    )
    return [*([text] if separable else []), table]


def _network(result: CodesignResult, network: Network) -> Details:
    origins = "; ".join(dict.fromkeys(f"{o.device}, {budget_words(o.budget)}" for o in network.origins))
    return Details(
        id=f"network-{network.name}",
        summary=f"{network.name}: {percent(network.accuracy)}, found for {origins}",
        parts=[_words(result, network), block_drawings(network.architecture)],
    )


def _setting(result: CodesignResult) -> list[Part]:
    study = result.study
    searches = (
        "one per device and budget" if study.search_per_budget
        else "one per device, steered by its tightest budget; the others are served from its path"
    )  # fmt: skip
    items = [
        ("preset, dataset", f"{study.config.get('preset', '')}, {_dataset(result)}"),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("searches", searches),
        ("pretraining", "one supernet per seed, shared by all searches"),
    ]
    for device in result.devices:
        error = "not checked against the device"
        if device.mean_error is not None:
            error = f"mean error of its profile {percent(device.mean_error)}"
        here = "measured here" if device.is_here else device.source
        items.append((device.name, f"{device.title}, {device.runtime}, {here}; {error}"))
    missing = [Details(summary="All that is missing", parts=[missing_table(result.missing)])]
    return [Pairs(items=items), *(missing if result.missing else [])]
