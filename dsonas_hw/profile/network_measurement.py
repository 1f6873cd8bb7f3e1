"""What a bench measures of a whole network: its latency, and its energy where the device has a meter."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsonas_hw.measure.energy import PROFILE_WINDOWS, EnergyMeasurement, EnergyMeter, energy_or_reason
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.runtime.base import Session


@dataclass(frozen=True, kw_only=True)
class NetworkMeasurement:
    """A whole network, as it ran without any profiler."""

    latency: LatencyMeasurement
    """With its remarks, also why a meter that the device has told no energy."""
    energy: EnergyMeasurement | None


def with_energy(
    latency: LatencyMeasurement, session: Session, meter: EnergyMeter | None
) -> NetworkMeasurement:
    """Measure the energy of a network that was timed; meter: None where the device has none."""
    energy, reason = energy_or_reason(
        session.run, session.synchronize, meter=meter, num_windows=PROFILE_WINDOWS
    )
    return NetworkMeasurement(
        latency=replace(latency, remarks=(*latency.remarks, *reason)) if reason else latency, energy=energy
    )
