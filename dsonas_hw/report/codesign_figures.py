"""The charts of a co-design study: latency against accuracy on each device."""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.budget import parse_budgets
from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans
from dsonas_hw.report.numbers import cost_text, count_of, percent
from dsonas_hw.study.codesign import StudyDevice
from dsonas_hw.study.codesign_analysis import pareto_front
from dsonas_hw.study.codesign_result import CodesignResult


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
