"""The page of a co-design study: the choice first, then what it rests on."""

from __future__ import annotations

from html import escape

from dsonas_hw.report.chart_svg import chart_svg
from dsonas_hw.report.codesign_cross import (
    answers_html,
    carried_html,
    cross_html,
    device_filter,
    operations_html,
)
from dsonas_hw.report.codesign_figures import front_figure
from dsonas_hw.report.codesign_tables import missing_table
from dsonas_hw.report.draw import draw_block
from dsonas_hw.report.draw_network import drawn_blocks
from dsonas_hw.report.explorer import Shown, explorer_html, explorer_json
from dsonas_hw.report.numbers import about, budget_words, cost_text, percent
from dsonas_hw.report.page import facts, figure, notes, page, pairs, paragraph, warning
from dsonas_hw.study.codesign_analysis import preferences
from dsonas_hw.study.codesign_result import CodesignResult, Network

MAX_NOTES = 12
READING = (
    '<ul class="reading"><li><strong>1.25\u202f×</strong> – it takes 1.25 times as long as the fastest of '
    "the column’s own networks that is as accurate (to half a point). <strong>no match</strong>: none of "
    "them is.</li><li><strong>accuracy −2.0\u202fpt</strong> – under the same budget, the best that is left "
    "is so much less accurate if only the row’s networks are there. <strong>no network holds it</strong>: "
    "none of the row’s, or none of the column’s own, holds the budget there.</li></ul>"
)
"""How to read the tables of what is carried."""
UNTRAINED = "No network has been trained yet."


def codesign_page(result: CodesignResult, *, name: str) -> str:
    """The HTML document. name: of the study's directory."""
    sections = [
        ("summary", "Summary", _summary(result)),
        ("cross", "Every network on every device", device_filter(result) + cross_html(result)),
        ("fronts", "Latency against accuracy", _fronts(result)),
        ("carried", "Carried to another device", _carried(result)),
        ("operations", "What each device prefers", _operations(result)),
        ("networks", "Networks", _networks(result)),
        ("setting", "How this was made", _setting(result)),
    ]
    data = ""
    if result.networks:
        data = explorer_json(result.networks[0].architecture.space, _shown(result), start=_best(result))
    return page(
        title=f"Co-design on {_dataset(result)} – {name}",
        header=_header(result, name),
        sections=sections,
        data=data,
    )


def _dataset(result: CodesignResult) -> str:
    data = result.study.config.get("data")
    return str(data.get("dataset", "")) if isinstance(data, dict) else ""


def _header(result: CodesignResult, name: str) -> str:
    devices = ", ".join(device.name for device in result.devices)
    return (
        f"<p>Co-design study “{escape(name)}”</p>"
        f"<h1>Networks for {escape(_dataset(result))}, device by device</h1>"
        f"<p>{escape(devices)} · {escape('; '.join(map(budget_words, result.study.budgets)))}</p>"
    )


# -- summary ---------------------------------------------------------------------------------------------


def _summary(result: CodesignResult) -> str:
    estimated = [d.name for d in result.devices if not d.is_here]
    done = result.num_jobs - len(result.missing)
    best = max((n.accuracy for n in result.networks if n.accuracy is not None), default=None)
    trained = sum(bool(n.accuracies) for n in result.networks)
    parts = []
    if estimated:
        parts.append(
            warning(
                "ESTIMATED, NOT MEASURED",
                f"{', '.join(estimated)}: not on this machine. Latencies there come from a model of the "
                "device and carry its interval; what follows from small differences is not certain.",
            )
        )
    parts.append(answers_html(result))
    parts.append(
        facts(
            [
                ("distinct networks", str(len(result.networks))),
                ("trained", str(trained)),
                ("best test accuracy", percent(best)),
                ("jobs done", f"{done} of {result.num_jobs}"),
            ]
        )
    )
    if result.missing:
        lines = [f"{m.job}: {m.reason}" for m in result.missing[:MAX_NOTES]]
        if len(result.missing) > MAX_NOTES:
            lines.append(f"and {len(result.missing) - MAX_NOTES} more")
        parts.append(
            notes(lines, heading="This study is not complete; start it again to go on. Not done yet:")
        )
    return f'<div class="verdict">{"".join(parts)}</div>'


# -- fronts ----------------------------------------------------------------------------------------------


def _fronts(result: CodesignResult) -> str:
    figures = []
    for device in result.devices:
        chart = front_figure(result, device)
        if chart is not None:
            drawn = figure(chart_svg(chart), chart.caption, title=chart.title)
            figures.append(f'<div data-device="{escape(device.name)}">{drawn}</div>')
    if not figures:
        return paragraph(UNTRAINED)
    space = result.networks[0].architecture.space
    explorer = explorer_html(space, _shown(result), label="Walk through the networks")
    return (
        paragraph("Each dot is a network; it is the same network that is marked on every device.")
        + f'<div class="fronts figures">{"".join(figures)}</div>{explorer}'
    )


def _best(result: CodesignResult) -> int:
    """Position of the most accurate network."""
    return max(range(len(result.networks)), key=lambda i: result.networks[i].accuracy or 0.0)


def _shown(result: CodesignResult) -> list[Shown]:
    return [
        Shown(
            id=number,
            text=_words(result, network),
            blocks=network.architecture.blocks[: network.architecture.space.num_lambda_sets],
        )
        for number, network in enumerate(result.networks)
    ]


def _words(result: CodesignResult, network: Network) -> str:
    latencies = "; ".join(
        f"{device.name} {about(cell.source)}{cost_text('latency_ms', cell.latency_ms)} {cell.source}"
        for device in result.devices
        if (cell := result.cell(network.name, device.name)) is not None
    )
    accuracy = "not trained yet" if network.accuracy is None else f"{percent(network.accuracy)} accuracy"
    return (
        f"Network {network.name}: {accuracy}; {latencies}; mac {cost_text('mac', network.mac)}, flops "
        f"{cost_text('flops', network.flops)}; {network.architecture.width} channels."
    )


# -- the rest --------------------------------------------------------------------------------------------


def _carried(result: CodesignResult) -> str:
    if len(result.devices) < 2:
        return paragraph("There is one device only.")
    if all(network.accuracy is None for network in result.networks):
        return paragraph(UNTRAINED)
    return (
        paragraph(
            "What is lost when networks are not searched for the device they run on. Rows: whom the networks "
            "were found for. Columns: where they run."
        )
        + READING
        + carried_html(result)
    )


def _operations(result: CodesignResult) -> str:
    shares: dict[str, float] = {}
    for row in preferences(result):
        if row.operation.startswith("sep"):
            shares[row.device] = shares.get(row.device, 0.0) + row.share_of_nodes
    if not shares:
        return operations_html(result) or paragraph("No network has been found yet.")
    words = ", ".join(f"{percent(share, 0)} on {device}" for device, share in shares.items())
    return paragraph(
        "Separable convolutions read and write much for what they compute; they suffer where memory "
        f"access binds. Of the operations that are left they are {words}."
    ) + operations_html(result)


def _networks(result: CodesignResult) -> str:
    return "".join(_network(result, network) for network in result.networks) or paragraph("None yet.")


def _network(result: CodesignResult, network: Network) -> str:
    architecture = network.architecture
    drawn = drawn_blocks(architecture)
    figures = "".join(
        figure(draw_block(architecture.space, block, shortcut_conv=conv), "", title=title.capitalize())
        for title, block, conv in drawn
    )
    origins = "; ".join(dict.fromkeys(f"{o.device}, {budget_words(o.budget)}" for o in network.origins))
    return (
        f'<details id="network-{escape(network.name)}"><summary>{escape(network.name)}: '
        f"{percent(network.accuracy)}, found for {escape(origins)}</summary>"
        f"{paragraph(_words(result, network))}"
        f'<div class="figures{" small" if len(drawn) > 2 else ""}">{figures}</div></details>'
    )


def _setting(result: CodesignResult) -> str:
    study = result.study
    items = [
        ("preset, dataset", f"{study.config.get('preset', '')}, {_dataset(result)}"),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("searches", "one per device and budget" if study.search_per_budget else "one per device, steered by "
         "its tightest budget; the others are served from its path"),
        ("pretraining", "one supernet per seed, shared by all searches"),
    ]  # fmt: skip
    for device in result.devices:
        error = (
            "not checked against the device"
            if device.mean_error is None
            else f"mean error of its profile {percent(device.mean_error)}"
        )
        here = "measured here" if device.is_here else device.source
        items.append((device.name, f"{device.title}, {device.runtime}, {here}; {error}"))
    missing = missing_table(result.missing)
    rest = (
        f"<details><summary>All that is missing</summary>{missing.to_html()}</details>"
        if result.missing
        else ""
    )
    return pairs(items) + rest
