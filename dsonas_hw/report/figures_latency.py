"""The samples behind a measured latency, as a chart."""

from __future__ import annotations

from dsonas_hw.report.chart import Axis, Chart, Mark, Series, thin
from dsonas_hw.report.numbers import cost_text
from dsonas_hw.report.run_data import RunData

MAX_SAMPLES = 600


def latency_figures(data: RunData) -> list[Chart]:
    """Every timing in the order it was taken, with the percentiles, the quiet value and the limit."""
    latency = data.validation.latency if data.validation else None
    if latency is None or not latency.samples_ms:
        return []
    samples = thin(list(enumerate(latency.samples_ms, start=1)), MAX_SAMPLES)
    marks = [
        Mark(axis="y", value=budget.limit, label=f"budget {cost_text('latency_ms', budget.limit)}")
        for budget in data.budgets
        if budget.name == "latency"
    ]
    for key, label in (
        ("quiet_ms", "undisturbed"),
        ("p50_ms", "median"),
        ("p95_ms", "p95"),
        ("p99_ms", "p99"),
    ):
        if (value := latency.values.get(key)) is not None:
            marks.append(Mark(axis="y", value=value, label=label))
    # What something else on the machine interrupted must not squeeze all others together.
    ordered = sorted(latency.samples_ms)
    most = min(ordered[int(0.98 * (len(ordered) - 1))], 2 * ordered[len(ordered) // 2])
    high = max(most, *(mark.value for mark in marks), 0.0) * 1.1
    return [
        Chart(
            name="latency-samples",
            title="Every timing of the exported network",
            caption=f"{len(latency.samples_ms)} samples in the order they were taken; those above the axis "
            "are drawn at its end. Percentiles and the undisturbed time are those at the machine's usual "
            "speed. A budget limits the median (or the percentile that was named); a prediction is of what "
            "the device needs when nothing disturbs it.",
            x=Axis(label="sample", whole=True),
            y=Axis(label="latency, ms", low=0.0, high=high),
            series=(
                Series(
                    name="samples",
                    x=tuple(float(i) for i, _ in samples),
                    y=tuple(min(value, high) for _, value in samples),
                    kind="points",
                    size=1.6,
                    opacity=0.6,
                ),
            ),
            marks=tuple(marks),
        )
    ]
