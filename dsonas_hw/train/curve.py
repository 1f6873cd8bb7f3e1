"""Whether a training was long enough (a curve that still rises at its end says no), and taught anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

LAST = 5
"""The last fifth of the epochs is held against the fifth before it."""
RISE = 0.01
SATURATED = 0.99
"""Training accuracy from which on nothing more is to be had by going on."""


def rise_at_end(train_accuracy: Sequence[float], test_accuracy: Sequence[float | None]) -> float | None:
    """Return by how much the training accuracy rose in the end; None: it, or the test's, has levelled off.

    train_accuracy, test_accuracy: of every epoch, 0 to 1; None where it was not tested. Each side of the
        comparison is at least two epochs.
    """
    width = max(2, len(train_accuracy) // LAST)
    if len(train_accuracy) < 2 * width or train_accuracy[-1] >= SATURATED:
        return None
    rise = fmean(train_accuracy[-width:]) - fmean(train_accuracy[-2 * width : -width])
    last = [x for x in test_accuracy[-width:] if x is not None]
    before = [x for x in test_accuracy[-2 * width : -width] if x is not None]
    tested = fmean(last) - fmean(before) if last and before else rise
    return rise if min(rise, tested) > RISE else None


def guessing_accuracy(num_images: Sequence[int]) -> float:
    """Return the test accuracy that a network which has learned nothing may reach by luck.

    num_images: of each class in the test. Naming the largest class always is right for a fraction p of n
    images; three standard deviations above that, √(p·(1 − p) / n), is luck no more.
    """
    total = sum(num_images)
    p = max(num_images) / total
    return min(p + 3 * math.sqrt(p * (1 - p) / total), 1.0)
