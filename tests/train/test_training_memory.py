"""Memory of a training step: estimated near what is counted, and refused with an option that helps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.memory import peak_of_batch
from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.config import SearchConfig
from dsonas_hw.errors import UserError
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.memory import check_memory, fitting_batch, format_bytes, free_host_bytes, training_bytes

SPACE = SearchSpace(
    levels=3, stages=(1, 1), channels=16, share=False, width_step=2, input_shape=(3, 16, 16), num_classes=4
)
NETWORK = complete_architecture(SPACE)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_estimate_is_near_what_torch_allocates(checkpointed: bool) -> None:
    search = SearchConfig(checkpoint_activations=checkpointed)
    for batch in (2, 8):
        counted = peak_of_batch(SPACE, search, batch)
        estimated = training_bytes(NETWORK, batch_size=batch, checkpointed=checkpointed)
        assert 0.6 < estimated / counted < 1.6


def test_the_batch_that_is_advised_fits() -> None:
    free = training_bytes(NETWORK, batch_size=20)
    assert fitting_batch(NETWORK, batch_size=16, free_bytes=free) == 16
    check_memory(NETWORK, batch_size=16, free_bytes=free, setting="--set a.b=")
    check_memory(NETWORK, batch_size=10**6, free_bytes=None, setting="--set a.b=")
    with pytest.raises(UserError, match=r"64 images needs about .* and .* are free; give --set a\.b=16$"):
        check_memory(NETWORK, batch_size=64, free_bytes=free, setting="--set a.b=")
    with pytest.raises(UserError, match="smaller images"):
        check_memory(NETWORK, batch_size=64, free_bytes=1000, setting="--set a.b=")


def test_a_control_group_allows_less_than_the_machine_has(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert free_host_bytes(tmp_path) is None
    put("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 2000 kB\n")
    assert free_host_bytes(tmp_path) == 2000 * 1024
    put("sys/fs/cgroup/memory.max", "max\n")
    put("sys/fs/cgroup/memory.current", "500000\n")
    assert free_host_bytes(tmp_path) == 2000 * 1024
    put("sys/fs/cgroup/memory.max", "1000000\n")
    assert free_host_bytes(tmp_path) == 500_000
    put("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 200000\n")
    assert free_host_bytes(tmp_path) == 700_000


def test_bytes_are_readable() -> None:
    assert [format_bytes(n) for n in (2_500_000, 31_240_000_000)] == ["2 MB", "31.2 GB"]
    assert re.fullmatch(r"\d+ MB", format_bytes(training_bytes(NETWORK, batch_size=8)))
