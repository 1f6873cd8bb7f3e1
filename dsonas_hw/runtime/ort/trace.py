"""ONNX Runtime's own profiler: what it writes, run by run, and the graph that it ran."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.errors import ProfileError
from dsonas_hw.measure.timing import GarbageCollectionOff

EVENT_SUFFIX = "_kernel_time"
"""Behind the name of a node, in that of its event."""
Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class OrtRun:
    """The events of one inference."""

    whole: Event
    nodes: Sequence[Event]
    """In the order they ran; of runs on a GPU, the time in which the CPU started each."""


class OrtProfiler:
    """Switches the profiler of one session on, and reads what it wrote."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.optimised_path = Path(self._folder.name) / "optimised.onnx"
        """The graph that ran, once the session is open."""

    def configure(self, options: Any) -> None:
        """Set the options of a session that is to be profiled."""
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        options.optimized_model_filepath = str(self.optimised_path)

    @contextlib.contextmanager
    def ending(self, session: Any) -> Iterator[list[OrtRun]]:
        """Every inference of an `OrtSession`, which is closed; the optimised graph is there until the end.

        Raises:
            ProfileError: what was written is not understood, here or by whoever reads it.
        """
        try:
            path = Path(session.session.end_profiling())
            session.close()
            with GarbageCollectionOff():  # it would look through all events again and again
                events = json.loads(path.read_text())
            yield split_runs(events)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ProfileError(
                f"ONNX Runtime's profiler wrote something that is not understood ({error!r}); "
                "please report the version of onnxruntime"
            ) from error
        finally:
            self._folder.cleanup()


def split_runs(events: Sequence[Event]) -> list[OrtRun]:
    """The events of a trace, inference by inference."""
    runs: list[OrtRun] = []
    current: list[Event] = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(EVENT_SUFFIX):
            current.append(event)
        elif event["name"] == "model_run":
            runs.append(OrtRun(whole=event, nodes=sorted(current, key=lambda e: e["ts"])))
            current = []
    return runs
