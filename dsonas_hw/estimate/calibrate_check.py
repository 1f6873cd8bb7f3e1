"""What a calibration refuses: other units than milliseconds, and rows that contradict each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel

Array = NDArray[np.float64]

_WILD = 0.35
"""A cross-validated median error above this means that the rows contradict each other."""
_SLIP = 2.0
"""A row that is off the others by so many powers of ten was not measured as they were."""
_REPEAT = 1.5
"""Two measurements of the same kernels may differ by this factor."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """One row of somebody's measurements."""

    name: str
    kernels: Sequence[Kernel]
    batch_size: int
    latency_ms: float
    family: str = ""
    """Which search space or collection the network is from, where several were measured."""
    importance: float = 1.0
    """How much it counts in the fit: rows of a large table are worth less each."""


def check_units(networks: Sequence[MeasuredNetwork], estimated: Array) -> None:
    """Refuse seconds, microseconds or times per image where milliseconds per batch belong; also in one row.

    A row that is a hundred times off the others is a slip as well.

    Raises:
        ProfileError: names the unit that the numbers look like.
    """
    middle = check_unit_of_all(networks, estimated)
    ratios = np.log10([n.latency_ms / e for n, e in zip(networks, estimated, strict=True)])
    for network, ratio in zip(networks, ratios, strict=True):
        if abs(ratio - middle) > _SLIP:
            unit = "seconds" if ratio < middle else "microseconds"
            is_unit = abs(abs(ratio - middle) - 3) < 0.6
            raise ProfileError(
                f"{network.name}: {network.latency_ms:g} ms is {10 ** abs(ratio - middle):.3g} × "
                f"{'below' if ratio < middle else 'above'} what the other rows suggest; "
                f"{f'is it in {unit}?' if is_unit else 'measure it again, or remove the row'}"
            )


def check_unit_of_all(rows: Sequence[MeasuredNetwork], estimated: Array) -> float:
    """Refuse rows that are all in another unit; returns log10 of the median measured over estimated.

    Raises:
        ProfileError: names the unit that the numbers look like.
    """
    middle = float(np.median(np.log10([row.latency_ms / e for row, e in zip(rows, estimated, strict=True)])))
    per_image = -float(np.median(np.log10([row.batch_size for row in rows])))
    units = [("seconds", -3.0, 1.1), ("microseconds", 3.0, 1.1)]
    if per_image <= -0.9:  # of eight images and more; below, it cannot be told from an estimate's error
        units.append(("milliseconds per image", per_image, 0.35))
    name, power, reach = min(units, key=lambda unit: abs(middle - unit[1]))
    if abs(middle - power) < reach:
        raise ProfileError(
            f"latency_ms looks like {name}: the median row is {10**middle:.2g} × the estimate "
            f"({rows[0].name}: {rows[0].latency_ms:g} given, about {estimated[0]:.3g} expected)"
            f"; convert it to milliseconds per batch"
        )
    if abs(middle) > 1.3:
        raise ProfileError(
            f"the measured latencies are {10**middle:.2g} × the estimate; check the device, the runtime, the "
            f"batch size and the unit (milliseconds per batch)"
        )
    return middle


def check_repeats(networks: Sequence[MeasuredNetwork], *, least: int) -> None:
    """Refuse two measurements of the same kernels that are far apart; and fewer networks than `least`.

    Raises:
        ProfileError: names both rows, or says how many networks there are.
    """
    seen: dict[frozenset[tuple[Kernel, int]], MeasuredNetwork] = {}
    for network in networks:
        other = seen.setdefault(frozenset(Counter(network.kernels).items()), network)
        ratio = network.latency_ms / other.latency_ms
        if not 1 / _REPEAT <= ratio <= _REPEAT:
            raise ProfileError(
                f"{other.name} ({other.latency_ms:g} ms) and {network.name} ({network.latency_ms:g} ms) are "
                f"the same network at batch {network.batch_size}; measure it again and keep one row"
            )
    if len(seen) < least:
        raise ProfileError(
            f"the {len(networks)} rows are of {len(seen)} network{'s'[: len(seen) > 1]}, some measured "
            f"repeatedly; a calibration takes {least} different ones, or more batch sizes of one"
        )


def check_consistent(networks: Sequence[MeasuredNetwork], errors: Array) -> None:
    """Refuse rows that no calibration explains.

    Raises:
        ProfileError: names the rows that fit worst.
    """
    if float(np.median(np.abs(errors))) <= _WILD:
        return
    worst = sorted(zip(np.abs(errors), networks, strict=True), key=lambda pair: -pair[0])[:3]
    named = ", ".join(f"{network.name} (off by {math.exp(error):.1f} ×)" for error, network in worst)
    raise ProfileError(
        f"the measurements contradict each other: held out in turn, half of the networks are off by more "
        f"than {100 * (math.exp(_WILD) - 1):.0f} %; worst: {named}. Check that all rows are of one device, "
        f"runtime and precision, in milliseconds per batch"
    )
