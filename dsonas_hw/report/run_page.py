"""The page of a run: the answer first, then how it came about."""

from __future__ import annotations

from dsonas_hw.report.draw_network import list_steps
from dsonas_hw.report.explorer import Explorer, Shown
from dsonas_hw.report.figures_path import path_figures, shown_points
from dsonas_hw.report.numbers import (
    COST_LABELS,
    METRIC_QUANTITIES,
    about,
    cost_text,
    count_of,
    percent,
    predicted_text,
)
from dsonas_hw.report.parts import (
    Code,
    Details,
    Figures,
    Heading,
    Notes,
    Page,
    Pairs,
    Part,
    Section,
    Steps,
    block_drawings,
)
from dsonas_hw.report.run_classes import class_table, confusion_table
from dsonas_hw.report.run_data import PathPoint, RunData
from dsonas_hw.report.run_figures import (
    lambda_figures,
    latency_figures,
    retrain_figures,
    search_figures,
)
from dsonas_hw.report.run_selection import selection_table
from dsonas_hw.report.run_tables import (
    check_table,
    front_table,
    latency_table,
    prediction_table,
)
from dsonas_hw.report.run_verdict import budgets_in_words, verdict_parts
from dsonas_hw.table.table import LookupTable

FEW_LAMBDA_SETS = 2
FEW_CLASSES = 30
"""Up to so many the confusion is shown; the files have it whole."""


def run_page(data: RunData, profile: LookupTable | None = None) -> Page:
    """The page of a run.

    profile: the lookup table that the predictions came from, for its check.
    """
    config, target = data.config, data.config.target
    details = [
        budgets_in_words(data),
        f"preset {config.preset}",
        *([target.runtime] if target.runtime else []),
    ]
    heading = f"{config.data.dataset} on {target.device}"
    sections = [
        Section(id="verdict", heading="Verdict", parts=verdict_parts(data)),
        Section(id="architecture", heading="Architecture", parts=_architecture(data)),
        Section(id="path", heading="Path of architectures", parts=_path(data)),
        Section(id="search", heading="Search", parts=_search(data)),
        Section(id="selection", heading="Selection", parts=_selection(data)),
        Section(id="prediction", heading="Predicted against measured", parts=_prediction(data, profile)),
        Section(id="retraining", heading="Retraining", parts=_retraining(data)),
        Section(id="environment", heading="Environment", parts=_environment(data, profile)),
    ]
    return Page(
        title=f"{heading} – {data.name}",
        kicker=f"Search run “{data.name}”",
        heading=heading,
        subtitle=" · ".join([*details, f"{target.precision}, batch {target.batch_size}"]),
        sections=[section for section in sections if section.parts],
    )


def _architecture(data: RunData) -> list[Part]:
    architecture = data.architecture
    if architecture is None:
        return ["Nothing has been derived yet: finish the search, then run `dsonas-hw derive`."]
    shared = "The same block everywhere" if architecture.space.share else "Every block of its own"
    return [
        f"{shared}, {architecture.width} channels in the first stage. Colours are operations; an edge has "
        "the colour of where it comes from.",
        Steps(items=list_steps(architecture)),
        block_drawings(architecture),
    ]


# -- path ------------------------------------------------------------------------------------------------


def _path(data: RunData) -> list[Part]:
    charts, front = path_figures(data), front_table(data)
    if not charts:
        return ["No architecture has been scored yet."]
    chosen_by = (
        "brief trainings of several, each at the width that fills the budget"
        if data.selection
        else "how well its own width fills the budget, not by this score"
    )
    return [
        f"Each dot is an architecture that the search passed, {data.path[0].width} channels wide in the "
        "first stage, scored with the shared weights. That tells roughly which of equal cost is the better; "
        "an architecture of fewer edges is wider in the end, so the one with the highest score need not be "
        f"the best. The chosen one was chosen by {chosen_by}. Any other is taken by `dsonas-hw derive RUN "
        "--step STEP`; retraining gives the accuracy.",
        Figures(items=charts, explorer=_explorer(data)),
        *([Details(summary="Best architectures as a table", parts=[front])] if front else []),
    ]


def _explorer(data: RunData) -> Explorer | None:
    """Any architecture of the path; the chosen one is shown first."""
    positions = shown_points(data)
    if data.space is None or not positions:
        return None
    sets = data.space.num_lambda_sets
    points = [data.path[i] for i in positions]
    start = next((p for p, point in enumerate(points) if point is data.chosen), len(points) - 1)
    shown = [
        Shown(id=i, text=_point_words(data, point), blocks=point.blocks[:sets])
        for i, point in zip(positions, points, strict=True)
    ]
    return Explorer(label="Walk along the path", space=data.space, shown=shown, start=start)


def _point_words(data: RunData, point: PathPoint) -> str:
    costs = ", ".join(
        f"{COST_LABELS[q].split(' (')[0]} {predicted_text(q, point.costs[q])}"
        for q in ("mac", "flops", "params", *METRIC_QUANTITIES)
        if q in point.costs
    )
    scored = f"{percent(point.accuracy)} with shared weights" if point.accuracy is not None else "not scored"
    edges = count_of(point.num_edges, "edge")
    if data.space is not None and data.space.share:
        edges = f"{count_of(point.blocks[0].num_edges, 'edge')} per block"
    chosen = f" The chosen one, {_final_words(data)}." if point is data.chosen else ""
    return f"Step {point.step}, epoch {point.epoch}: {scored}; {edges}; {costs}.{chosen}"


def _final_words(data: RunData) -> str:
    """The chosen network as it is in the end."""
    assert data.architecture is not None
    final = [
        f"{COST_LABELS[b.quantity].split(' (')[0]} {about(data.source_of(b.quantity))}"
        f"{cost_text(b.quantity, cost)}"
        for b in data.budgets
        if (cost := data.final_cost(b.quantity)) is not None
    ]
    return ", ".join([f"in the end {count_of(data.architecture.width, 'channel')} wide", *final])


# -- search, selection, prediction, retraining -----------------------------------------------------------


def _search(data: RunData) -> list[Part]:
    lam, others = lambda_figures(data), search_figures(data)
    if not lam and not others:
        return ["The search has not finished an epoch yet."]
    text = (
        "λ scales an edge. The sparsity term, weighted by γ and by what each operation costs on the device, "
        "drives useless λ to exactly zero."
    )
    if len(lam) <= FEW_LAMBDA_SETS:
        return [text, Figures(items=[*lam, *others])]
    return [text, Figures(items=others), Heading(text="λ, block by block"), Figures(items=lam, small=True)]


def _selection(data: RunData) -> list[Part]:
    table = selection_table(data.selection)
    if table is None:
        return []
    return [
        "Networks of the path at the widths at which they fill the budget, trained on the images of W and "
        "scored on those of λ; after every round the better half goes on. No test image was seen.",
        table,
    ]


def _prediction(data: RunData, profile: LookupTable | None) -> list[Part]:
    parts: list[Part] = [prediction_table(data) or "Nothing has been measured yet."]
    error = data.validation.max_abs_output_error if data.validation else None
    if error is not None:
        parts.append(
            f"The exported network's outputs differ from PyTorch's by at most {error:.2g} (absolute)."
        )
    if timing := latency_table(data):
        parts.append(Figures(items=[*latency_figures(data), timing]))
    if check := check_table(profile):
        parts += [Heading(text="How far predictions of this profile can be trusted"), check]
    return parts


def _retraining(data: RunData) -> list[Part]:
    charts = retrain_figures(data)
    if not charts:
        return ["The network has not been retrained yet: `dsonas-hw retrain`."]
    return [Figures(items=charts), *_classes(data)]


def _classes(data: RunData) -> list[Part]:
    if data.confusion is None:
        return []
    table, matrix = class_table(data.confusion), confusion_table(data.confusion)
    heading = Heading(text="Class by class, on the test images")
    if len(table.rows) > FEW_CLASSES:
        return [heading, Details(summary=table.caption, parts=[table])]
    return [heading, table, matrix]


def _environment(data: RunData, profile: LookupTable | None) -> list[Part]:
    config, validation = data.config, data.validation
    items = [
        ("target device", config.target.device),
        ("runtime", validation.runtime if validation else config.target.runtime or "the device's own"),
        ("precision, batch, threads",
         f"{config.target.precision}, {config.target.batch_size}, {config.target.threads}"),
        ("seed", str(config.seed)),
        ("γ goes by", data.gamma_cost),
        ("measured on", validation.latency.device_title if validation and validation.latency else ""),
        ("validated", validation.date if validation else ""),
        *(_profile_facts(profile) if profile else []),
    ]  # fmt: skip
    versions = {**data.versions, **(validation.versions if validation else {})}
    items += [(f"{name} version", version) for name, version in versions.items()]
    return [
        Pairs(items=[(name, value) for name, value in items if value]),
        Details(summary="config.yaml", parts=[Code(text=data.config_text)]),
        Notes(heading="What this run does not have:", items=data.notes),
    ]


def _profile_facts(profile: LookupTable) -> list[tuple[str, str]]:
    header, target = profile.header, profile.header.target
    return [
        ("device fingerprint", header.fingerprint),
        ("profile", f"{target.runtime} {target.precision}, batch {target.batch_size}, {header.source}"),
        ("profiled", header.created),
        *((f"profiled with {name}", version) for name, version in header.versions.items()),
    ]
