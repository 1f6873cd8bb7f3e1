"""The page of a run: the answer first, then how it came about."""

from __future__ import annotations

from html import escape

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.report.chart import Chart
from dsonas_hw.report.chart_svg import chart_svg
from dsonas_hw.report.draw import draw_block
from dsonas_hw.report.draw_network import drawn_blocks, list_steps
from dsonas_hw.report.figures_epochs import retrain_figures, search_figures
from dsonas_hw.report.figures_lambda import lambda_figures
from dsonas_hw.report.figures_latency import latency_figures
from dsonas_hw.report.figures_path import path_figures
from dsonas_hw.report.numbers import count_of
from dsonas_hw.report.page import figure, notes, page, pairs, paragraph
from dsonas_hw.report.run_data import RunData
from dsonas_hw.report.run_explorer import explorer, explorer_data
from dsonas_hw.report.run_selection import selection_table
from dsonas_hw.report.run_tables import (
    ProfileSummary,
    check_table,
    class_table,
    confusion_table,
    front_table,
    latency_table,
    prediction_table,
)
from dsonas_hw.report.run_verdict import budgets_in_words, verdict

FEW_LAMBDA_SETS = 2
FEW_CLASSES = 30
"""Up to so many the confusion is shown; the files have it whole."""


def run_page(data: RunData, profile: ProfileSummary | None = None) -> str:
    """The HTML document of a run.

    profile: the latency table that the predictions came from, for its check.
    """
    sections = [
        ("verdict", "Verdict", verdict(data)),
        ("architecture", "Architecture", _architecture(data)),
        ("path", "Path of architectures", _path(data)),
        ("search", "Search", _search(data)),
        *([("selection", "Selection", _selection(data))] if data.selection else []),
        ("prediction", "Predicted against measured", _prediction(data, profile)),
        ("retraining", "Retraining", _retraining(data)),
        ("environment", "Environment", _environment(data, profile)),
    ]
    return page(
        title=f"{data.config.data.dataset} on {data.config.target.device} – {data.name}",
        header=_header(data),
        sections=sections,
        data=explorer_data(data),
    )


def _header(data: RunData) -> str:
    config, target = data.config, data.config.target
    details = [f"preset {config.preset}", f"{target.precision}, batch {target.batch_size}"]
    if target.runtime:
        details.insert(1, target.runtime)
    heading = f"{config.data.dataset} on {target.device}"
    return (
        f"<p>Search run “{escape(data.name)}”</p><h1>{escape(heading)}</h1>"
        f"<p>{escape(budgets_in_words(data))} · {escape(' · '.join(details))}</p>"
    )


# -- architecture ----------------------------------------------------------------------------------------


def _architecture(data: RunData) -> str:
    architecture = data.architecture
    if architecture is None:
        return paragraph("Nothing has been derived yet: finish the search, then run dsonas-hw derive.")
    space = architecture.space
    shared = "The same block everywhere" if space.share else "Every block of its own"
    text = (
        f"{shared}, {architecture.width} channels in the first stage. Colours are operations; an edge has "
        "the colour of where it comes from."
    )
    return paragraph(text) + _steps(architecture) + _blocks(architecture)


def _steps(architecture: Architecture) -> str:
    items = "".join(
        f"<li><div{' class=stage' if what.endswith(('block', 'blocks')) else ''}>"
        f"<strong>{escape(what)}</strong> <span>{escape(shape)}</span></div></li>"
        for what, shape in list_steps(architecture)
    )
    return f'<ol class="steps" aria-label="Layers from image to classes">{items}</ol>'


def _blocks(architecture: Architecture) -> str:
    drawn = drawn_blocks(architecture)
    figures = [
        figure(
            draw_block(architecture.space, block, shortcut_conv=conv),
            _count_words(block),
            title=_capital(title),
        )
        for title, block, conv in drawn
    ]
    if len(figures) == 1:
        return figures[0]
    return f'<div class="figures{" small" if len(figures) > 2 else ""}">{"".join(figures)}</div>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count_words(block: Block) -> str:
    if block.is_identity:
        return "Pruned to the identity."
    return f"{count_of(len(block.nodes), 'operation')}, {count_of(block.num_edges, 'edge')}."


# -- path ------------------------------------------------------------------------------------------------


def _path(data: RunData) -> str:
    charts = path_figures(data)
    if not charts:
        return paragraph("No architecture has been scored yet.")
    figures = "".join(_chart(chart) for chart in charts)
    front = front_table(data)
    table = (
        f"<details><summary>Best architectures as a table</summary>{front.to_html()}</details>"
        if front
        else ""
    )
    return (
        paragraph(
            f"Each dot is an architecture that the search passed, {data.path[0].width} channels wide in the "
            "first stage, scored with the shared weights: they rank architectures; retraining gives the "
            "accuracy."
        )
        + f'<div class="side-by-side"><div class="figures">{figures}</div>{explorer(data)}</div>'
        + table
    )


# -- search, prediction, retraining ----------------------------------------------------------------------


def _search(data: RunData) -> str:
    lam, others = lambda_figures(data), search_figures(data)
    if not lam and not others:
        return paragraph("The search has not finished an epoch yet.")
    text = paragraph(
        "λ scales an edge. The sparsity term, weighted by γ and by what each operation costs on the device, "
        "drives useless λ to exactly zero."
    )
    if len(lam) <= FEW_LAMBDA_SETS:
        return text + f'<div class="figures">{"".join(map(_chart, [*lam, *others]))}</div>'
    panels = "".join(map(_chart, lam))
    return (
        text
        + f'<div class="figures">{"".join(map(_chart, others))}</div>'
        + f'<h3>λ, block by block</h3><div class="figures small">{panels}</div>'
    )


def _prediction(data: RunData, profile: ProfileSummary | None) -> str:
    table, check = prediction_table(data), check_table(profile)
    parts = [table.to_html() if table else paragraph("Nothing has been measured yet.")]
    error = data.validation.max_abs_output_error if data.validation else None
    if error is not None:
        parts.append(
            paragraph(
                f"The exported network's outputs differ from PyTorch's by at most {error:.2g} (absolute)."
            )
        )
    if timing := latency_table(data):
        parts.append(
            f'<div class="figures top">{"".join(map(_chart, latency_figures(data)))}{timing.to_html()}</div>'
        )
    if check is not None:
        parts.append(f"<h3>How far predictions of this profile can be trusted</h3>{check.to_html()}")
    return "".join(parts)


def _selection(data: RunData) -> str:
    table = selection_table(data.selection)
    assert table is not None
    return paragraph(
        "Networks of the path at the widths at which they fill the budget, trained on the images of W and "
        "scored on those of λ; after every round the better half goes on. No test image was seen."
    ) + table.to_html(sortable=True)


def _retraining(data: RunData) -> str:
    charts = retrain_figures(data)
    if not charts:
        return paragraph("The network has not been retrained yet: dsonas-hw retrain.")
    return f'<div class="figures">{"".join(map(_chart, charts))}</div>{_classes(data)}'


def _classes(data: RunData) -> str:
    table, matrix = class_table(data.confusion), confusion_table(data.confusion)
    if table is None or matrix is None:
        return ""
    heading = "<h3>Class by class, on the test images</h3>"
    if len(table.rows) > FEW_CLASSES:
        return f"{heading}<details><summary>{table.caption}</summary>{table.to_html(sortable=True)}</details>"
    return heading + table.to_html(sortable=True) + matrix.to_html()


def _environment(data: RunData, profile: ProfileSummary | None) -> str:
    config = data.config
    runtime = data.validation.runtime if data.validation else config.target.runtime or "the device's own"
    items = [
        ("target device", config.target.device),
        ("runtime", runtime),
        ("precision, batch, threads",
         f"{config.target.precision}, {config.target.batch_size}, {config.target.threads}"),
        ("seed", str(config.seed)),
        *([("γ goes by", data.gamma_cost)] if data.gamma_cost else []),
    ]  # fmt: skip
    if (validation := data.validation) is not None:
        if validation.latency is not None:
            items.append(("measured on", validation.latency.device_title))
        items.append(("validated", validation.date))
    if profile is not None:
        items += profile.facts
    versions = {**data.versions, **(data.validation.versions if data.validation else {})}
    items += [(f"{name} version", version) for name, version in versions.items()]
    return (
        pairs([(name, value) for name, value in items if value])
        + f"<details><summary>config.yaml</summary><pre>{escape(data.config_text)}</pre></details>"
        + notes(data.notes, heading="What this run does not have:")
    )


def _chart(chart: Chart) -> str:
    return figure(chart_svg(chart), chart.caption, title=chart.title)
