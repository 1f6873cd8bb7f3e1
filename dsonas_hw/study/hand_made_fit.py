"""Fitting the networks of a study with hand-made families to their budgets by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.architecture.graph import block_segments
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.budget import Budget, judge_interval
from dsonas_hw.config import RunConfig
from dsonas_hw.deploy.fit_measured import fit_until_measured, scale_timed
from dsonas_hw.deploy.measure import TargetMeasurement, find_target, measure_on_target, usual_speed_of
from dsonas_hw.deploy.select_measured import select_measured, selects
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.derive import Derived, derive_architecture
from dsonas_hw.search.path import PathPoint
from dsonas_hw.study.codesign_work import no_bar
from dsonas_hw.study.family_width import FamilyWidths
from dsonas_hw.study.hand_made import RANDOM_SEARCH, SEARCHED
from dsonas_hw.study.measured import Measured, describe, measure_target
from dsonas_hw.study.random_points import point_of, random_point
from dsonas_hw.study.spec import RANDOM
from dsonas_hw.study.work import Work
from dsonas_hw.task import Task, target_costs
from dsonas_hw.train.images import space_of_config

if TYPE_CHECKING:
    from dsonas_hw.cost.model import CostModel
    from dsonas_hw.measure.statistics import Estimate
    from dsonas_hw.train.hand_made import HandMade
    from dsonas_hw.train.trainable import Trainable

MAX_DRAWS = 5
"""Random architectures that are fitted for one network: the first may hold the budget at no width."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A network that holds its budgets as far as measuring tells, and what it costs by prediction."""

    network: Trainable
    model: bytes
    """ONNX, random weights."""
    costs: Mapping[str, float | None]
    width: int
    ratio_before_fit: float
    block_flops: tuple[int, ...] = ()
    measurement: TargetMeasurement | None = None
    """By which it holds; None: nothing was measured, or only the search knows."""


def fit_network(work: Work) -> dict[str, Any]:
    """Fit one network to its budget by measurement; the measurement that it held by is its verdict's."""
    config, name = work.config, work.job.network
    started = time.monotonic()
    try:
        if name in (SEARCHED, RANDOM, RANDOM_SEARCH):
            cost_model = work.task.target.cost_model
            fitted = _fit_architecture(work)
        else:
            cost_model = target_costs(config.target).cost_model
            fitted = _fit_family(name, config, cost_model)
    except BudgetError as error:
        return {"reason": str(error), **_search_seconds(work, time.monotonic() - started)}
    selected_s = time.monotonic() - started
    timed = any(budget.metric for budget in config.budgets)
    found = fitted.measurement
    if found is None and (timed or work.job.measure) and find_target(config.target) is not None:
        found = measure_target(fitted.model, config)
    measured = describe(found, config, cost_model) if found else None
    result = {
        "network": fitted.network.to_json(), "width": fitted.width, "costs": dict(fitted.costs),
        "ratio": max((fitted.costs[b.quantity] or 0.0) / b.limit for b in config.budgets),
        "ratio_before_fit": fitted.ratio_before_fit, "block_flops": list(fitted.block_flops),
        "latency_measured": measured.model_dump(mode="json") if measured else None,
        "verdict": _verdict(config.budgets, fitted.costs, measured),
    }  # fmt: skip
    result |= _search_seconds(work, selected_s)
    if name == RANDOM_SEARCH:
        result |= {key: work.needed_result[key] for key in ("num_tried", "search_seconds")}
    return result


def _search_seconds(work: Work, selected_s: float) -> dict[str, float]:
    """Of a searched network, the time of its search and of choosing from it; else nothing."""
    if work.job.network != SEARCHED:
        return {}
    return {"search_seconds": work.needed_result["seconds"] + selected_s}


def _fit_architecture(work: Work) -> Fitted:
    from dsonas_hw.deploy.derive_measured import derive_measured

    job, task, measurement = work.job, work.task, None
    if job.network == SEARCHED:
        if selects(task):
            derived = _select(work)
        else:
            derived = derive_measured(work.needed_run, task, say=print, bar=no_bar)
    elif job.network == RANDOM:
        draws = (random_point(task, seed=f"{job.seed}/{draw}", index=job.index) for draw in range(MAX_DRAWS))
        derived, measurement = _fit_first(draws, task)
    else:
        ranked = work.needed_result["architectures"]
        networks = (architecture_from_json(data, origin=str(job.needs)) for data in ranked)
        derived, measurement = _fit_first((point_of(network, task) for network in networks), task)
    network = derived.architecture
    return Fitted(
        network=network, width=network.width, costs=derived.costs.to_dict(),
        model=build_onnx(network, batch_size=task.config.target.batch_size).SerializeToString(),
        ratio_before_fit=derived.ratio_before_fit,
        block_flops=tuple(int(task.target.block_cost(b, "flops")) for b in block_segments(network)),
        measurement=measurement,
    )  # fmt: skip


def _select(work: Work) -> Derived:
    """The network that `run` would take: several of the path trained briefly, in this job's run directory."""
    run, _ = work.open_run()
    with run.lock():
        run.log_path("path.jsonl").write_bytes(work.needed_run.log_path("path.jsonl").read_bytes())
        return select_measured(run, work.task, work.load_data(), say=print, bar=no_bar)


def _fit_first(points: Iterable[PathPoint], task: Task) -> tuple[Derived, TargetMeasurement | None]:
    """The first of these architectures that holds when it is measured, at some width.

    Raises:
        BudgetError: none does; says what the last one took.
    """
    failure = BudgetError("there is no random architecture to measure")
    for point in points:
        try:
            return _fit_point(point, task)
        except BudgetError as error:
            failure = error
    raise failure


def _fit_point(point: PathPoint, task: Task) -> tuple[Derived, TargetMeasurement | None]:
    """One architecture at the width at which it holds when it is measured, and that measurement."""
    found: dict[Architecture, Derived] = {}
    meter = _Meter(task.config, task.target.cost_model)

    def fit_scaled(scale: float) -> Architecture:
        derived = derive_architecture([point], scale_timed(task.budgets, scale), task.target)
        return found.setdefault(derived.architecture, derived).architecture

    def measure(architecture: Architecture) -> Mapping[str, Estimate | None]:
        model = build_onnx(architecture, batch_size=task.config.target.batch_size)
        return meter.measure(architecture, model.SerializeToString())

    network = fit_until_measured(fit_scaled, task.budgets, measure).architecture
    return found[network], meter.measurements.get(network)


class _Meter:
    """Measures networks for a fit and keeps the measurements."""

    def __init__(self, config: RunConfig, cost_model: CostModel | None) -> None:
        self.target, self.usual = config.target, usual_speed_of(cost_model)
        self.measurements: dict[Trainable, TargetMeasurement] = {}

    def measure(self, network: Trainable, model: bytes) -> Mapping[str, Estimate | None]:
        """Return costs by quantity; none where the target is not here."""
        found = measure_on_target(model, self.target)
        if found is None:
            return {}
        self.measurements[network] = found
        return found.costs(self.target.statistic, self.usual)


def _fit_family(name: str, config: RunConfig, cost_model: CostModel | None) -> Fitted:
    from dsonas_hw.train.hand_made import hand_made_onnx, parse_family

    space = space_of_config(config)
    own = parse_family(name, input_shape=space.input_shape, num_classes=space.num_classes)
    budgets = config.budgets
    timed = any(budget.metric for budget in budgets)
    widths = FamilyWidths(network=own, target=config.target, timed=timed)
    meter = _Meter(config, cost_model)

    def onnx_of(network: HandMade) -> bytes:
        return hand_made_onnx(network, batch_size=config.target.batch_size)

    def measure(network: HandMade) -> Mapping[str, Estimate | None]:
        return meter.measure(network, onnx_of(network))

    fit_scaled: Callable[[float], HandMade] = lambda scale: widths.fit(scale_timed(budgets, scale))  # noqa: E731
    first = fit_scaled(1.0)
    try:
        network = fit_until_measured(
            fit_scaled, budgets, measure, count_flops=lambda n: widths.costs(n)["flops"] or 0.0
        ).architecture
    except BudgetError:
        raise BudgetError(widths.why_none(budgets)) from None
    return Fitted(
        network=network, model=onnx_of(network), costs=widths.costs(network), width=network.width_units,
        ratio_before_fit=widths.ratio(first, budgets), measurement=meter.measurements.get(network),
    )  # fmt: skip


def _verdict(
    budgets: Sequence[Budget], costs: Mapping[str, float | None], measured: Measured | None
) -> str | None:
    """The worst verdict over the budgets; a metric is measured, or else predicted. None: not known."""
    verdicts = []
    for budget in budgets:
        low = getattr(measured, f"{budget.quantity}_low", None)
        if low is not None:
            high = getattr(measured, f"{budget.quantity}_high")
            low_high = (low, inf if high is None else high)
        elif (cost := costs[budget.quantity]) is not None:
            low_high = (cost, cost)
        else:
            return None
        verdicts.append(judge_interval(*low_high, budget.limit))
    return next((v for v in ("missed", "undecided") if v in verdicts), "holds")
