"""What a kernel takes in a network, from what a profiler says of it."""

from __future__ import annotations

import pytest

from dsonas_hw.profile.profiler import kernel_costs_ms


def test_the_profilers_own_work_is_taken_out() -> None:
    assert kernel_costs_ms([0.105, 0.205], 0.3, 0.006) == pytest.approx([0.1, 0.2])
    assert kernel_costs_ms([0.1, 0.2], 0.3, 0.006) == pytest.approx([0.1, 0.2])
    # At most so much for a kernel, and never more than four fifths of what it took.
    assert kernel_costs_ms([0.106, 0.206], 0.29, 0.006) == pytest.approx([0.1, 0.2])
    assert kernel_costs_ms([0.005, 0.005], 0.0019, 0.006) == pytest.approx([0.001, 0.001])


def test_kernels_that_another_process_slowed_take_what_the_network_took() -> None:
    """Seen beside other work: 44 ms of kernels in a network of 3.9 ms; one such bent a whole table."""
    costs_ms = kernel_costs_ms([32.0, 8.0, 4.0], 3.9, 0.006)
    assert sum(costs_ms) == pytest.approx(3.9)
    assert costs_ms[0] / costs_ms[2] == pytest.approx(8.0, rel=1e-2)
