"""Property tests draw the same examples in every run; `--hypothesis-profile=explore` looks further.

SIGINT is delivered: a shell that starts the tests in the background has it ignored, in them and in every
process they start, and tests of Ctrl-C would wait for ever.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeatable")

LONGEST = ("test_distributed.py", "test_codesign_ray.py", "test_tutorial.py", "test_study_run.py")
"""Files to begin with: with two processes, a long file at the end would leave one of them idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def quick_verdicts() -> Iterator[None]:
    """Measurements for a verdict in a second instead of half a minute: in fewer turns, without pauses."""
    from dsonas_hw.deploy import measure
    from dsonas_hw.profile.rounds import Plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "VERDICT", Plan(num_rounds=6, turns_per_round=2, period_seconds=0.0))
        yield
