"""What a co-design study found: networks, and what each costs on each device. Read from the study's files.

>>> result = load_result(Path("studies/codesign"))
>>> draw_architecture(result.networks[0].architecture)       # a notebook shows the drawing
>>> result.cell("A", "1080ti").latency_ms
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.architecture.costs import Costs
from dsonas_hw.budget import Budget
from dsonas_hw.cost.model import Prediction
from dsonas_hw.study.codesign import Codesign, StudyDevice, load_codesign
from dsonas_hw.study.codesign_jobs import (
    Derivation,
    derive_name,
    finished_derivations,
    network_jobs,
    search_jobs,
)
from dsonas_hw.study.codesign_records import Trained, load_record
from dsonas_hw.study.job_files import Missing, is_done, missing_jobs
from dsonas_hw.study.measured import Measured

MEASURED_MS = ("p50_ms", "p95_ms", "p99_ms", "quiet_ms")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a network was found for."""

    device: str
    budget: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """A distinct network of the study: a row of the cross table."""

    name: str
    """A, B, …: in the order of budgets and devices."""
    identity: str
    """Hash of the architecture, as in the names of the jobs."""
    architecture: Architecture = field(repr=False)
    origins: tuple[Origin, ...]
    costs: Costs
    """Counted; the metrics in it are of the device that it was derived for first."""
    accuracies: tuple[float, ...]
    """Test accuracy of each training that is done: one per seed that found it."""

    @property
    def accuracy(self) -> float | None:
        """Mean test accuracy; None: not trained yet."""
        return sum(self.accuracies) / len(self.accuracies) if self.accuracies else None

    def is_for(self, device: str) -> bool:
        """Return whether it was found for this device."""
        return any(origin.device == device for origin in self.origins)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A network on a device."""

    network: str
    device: str
    latency_ms: float
    """Measured: the percentile that budgets limit, the median unless told otherwise. Else predicted: what the
    network takes when nothing disturbs it."""
    latency_ms_low: float
    latency_ms_high: float
    """The interval of `latency_ms`: of the measurement, 99 % (infinite: no bound); or of the prediction."""
    source: str
    """measured; predicted from measured kernels; or calibrated, imported, estimated."""
    is_measured: bool
    """This very network, as a whole; False: predicted."""
    predicted_ms: float
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    """Of the wall time of all samples; None: not measured."""
    quiet_ms: float | None = None
    """What it takes when nothing disturbs it, measured: what `predicted_ms` is to be compared with."""
    energy_mj: float | None = None
    """Measured or predicted, as the latency is; None: `codesign_analysis.why_no_energy` tells why."""
    energy_mj_low: float | None = None
    energy_mj_high: float | None = None
    """The interval of `energy_mj`; None: no bound."""
    remarks: tuple[str, ...] = ()
    """What the measurement had to say: clocks that dropped, energy that could not be read."""

    def probability_within(self, budgets: Iterable[Budget]) -> float | None:
        """Return how likely the latency and energy budgets are to hold, of two the less likely.

        None: none of them is guessed here, since they were measured, are not known, or have no limit.
        """
        if self.is_measured:
            return None
        guesses = {
            "latency_ms": (self.latency_ms, self.latency_ms_low, self.latency_ms_high),
            "energy_mj": (self.energy_mj, self.energy_mj_low, self.energy_mj_high),
        }
        found = []
        for budget in budgets:
            value, low, high = guesses.get(budget.quantity, (None, None, None))
            if value is not None:
                guess = Prediction(value=value, low=low or 0.0, high=high or inf, source="estimated")
                found.append(guess.probability_within(budget.limit))
        return min(found, default=None)


@dataclass(frozen=True, kw_only=True)
class CodesignResult:
    """Everything that is known so far."""

    study: Codesign = field(repr=False)
    networks: tuple[Network, ...]
    cells: tuple[Cell, ...] = field(repr=False)
    missing: tuple[Missing, ...]
    num_jobs: int

    @property
    def devices(self) -> tuple[StudyDevice, ...]:
        return self.study.devices

    def network(self, name: str) -> Network:
        """Return the network of a name (A, B, …)."""
        return next(n for n in self.networks if n.name == name)

    def cell(self, network: str, device: str) -> Cell | None:
        """Return a network's cost on a device; None: not derived yet."""
        return next((c for c in self.cells if c.network == network and c.device == device), None)

    def found_for(self, device: str, budget: str) -> tuple[Network, ...]:
        """Return the networks found for a device and a budget, one per seed at most."""
        return tuple(
            n for n in self.networks if any(o.device == device and o.budget == budget for o in n.origins)
        )


def load_result(path: Path) -> CodesignResult:
    """Read a study's directory, finished or not.

    Raises:
        UserError: not a co-design study, or damaged.
    """
    study = load_codesign(path)
    searches = search_jobs(study)
    derivations = finished_derivations(path, searches)
    later = network_jobs(study, derivations)
    done = [job for job in later if is_done(path, job.name)]
    trained: dict[str, list[Trained]] = {}
    for job in done:
        if job.kind == "train":
            trained.setdefault(job.variant, []).append(load_record(path, job.name, Trained))
    measured = {job.name: load_record(path, job.name, Measured) for job in done if job.kind == "measure"}
    networks = _networks(study, derivations, trained)
    jobs = [*searches, *later]
    return CodesignResult(
        study=study,
        networks=networks,
        cells=_cells(study, networks, derivations, measured),
        missing=missing_jobs(path, jobs),
        num_jobs=len(jobs),
    )


def _networks(
    study: Codesign, derivations: Sequence[Derivation], trained: Mapping[str, Sequence[Trained]]
) -> tuple[Network, ...]:
    by_name = {d.job.name: d.result for d in derivations}
    origins: dict[str, list[Origin]] = {}
    for seed in study.seeds:
        for budget in study.budgets:
            for device in study.devices:
                found = by_name.get(derive_name(device.name, budget, seed))
                if found is not None:
                    origin = Origin(device=device.name, budget=budget, seed=seed)
                    origins.setdefault(found.network, []).append(origin)
    first = {d.result.network: d.result for d in reversed(derivations)}
    return tuple(
        Network(
            name=network_name(number),
            identity=identity,
            architecture=architecture_from_json(first[identity].architecture, origin=identity),
            origins=tuple(places),
            costs=first[identity].costs,
            accuracies=tuple(training.test_accuracy for training in trained.get(identity, ())),
        )
        for number, (identity, places) in enumerate(origins.items())
    )


def network_name(number: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _cells(
    study: Codesign,
    networks: Sequence[Network],
    derivations: Sequence[Derivation],
    measured: Mapping[str, Measured],
) -> tuple[Cell, ...]:
    predicted = {d.result.network: d.result.predicted for d in derivations}
    cells = []
    for network in networks:
        for device in study.devices:
            guess = predicted[network.identity].get(device.name)
            if guess is None:
                continue
            found = measured.get(f"measure-{device.name}-{network.identity}")
            values = found or guess
            source = "predicted" if guess.source == "measured" else guess.source
            cells.append(
                Cell(
                    network=network.name,
                    device=device.name,
                    latency_ms=values.latency_ms,
                    latency_ms_low=values.latency_ms_low,
                    latency_ms_high=inf if values.latency_ms_high is None else values.latency_ms_high,
                    source="measured" if found else source,
                    is_measured=found is not None,
                    predicted_ms=guess.latency_ms,
                    **{name: getattr(found, name, None) for name in MEASURED_MS},
                    energy_mj=values.energy_mj,
                    energy_mj_low=values.energy_mj_low,
                    energy_mj_high=values.energy_mj_high,
                    remarks=found.remarks if found else (),
                )
            )
    return tuple(cells)
