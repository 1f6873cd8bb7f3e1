"""What of PyTorch's global state decides which kernels run on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dsonas_hw.runtime.vendor_versions import version_text

_num_open = 0
_was_deterministic = False


@contextmanager
def free_choice_of_kernels() -> Iterator[None]:
    """Inside, PyTorch is not asked for deterministic algorithms, as training does; contexts may overlap."""
    global _num_open, _was_deterministic
    import torch

    if _num_open == 0:
        _was_deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
    _num_open += 1
    try:
        yield
    finally:
        _num_open -= 1
        if _num_open == 0:
            torch.use_deterministic_algorithms(_was_deterministic, warn_only=True)


def gpu_versions() -> dict[str, str]:
    """CUDA and cuDNN of PyTorch, and the switches that decide which kernels run."""
    import torch

    cudnn: Any = torch.backends.cudnn
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": version_text(cudnn.version() or 0),
        "tf32 of convolutions": str(cudnn.allow_tf32),
        "tf32 of matrix products": str(torch.backends.cuda.matmul.allow_tf32),
        "cudnn.benchmark": str(cudnn.benchmark),
    }
