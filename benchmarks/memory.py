"""How much memory does a step of the search take? Counted on the CPU, batch by batch, or read from a GPU.

    python -m benchmarks.memory imagenet --batch-size 32 --limit 11GB
    python -m benchmarks.memory imagenet --batch-size 32 --limit 80GB --device cuda

Steps on W and on λ of the whole supernet at small batches, every allocation and release counted by torch's
profiler: the peak grows by the same bytes for every image (a third batch checks that), so the wanted batch
follows. Weights, momentum and gradients are in it, but not what the libraries of a GPU need for themselves;
with `--device cuda` the wanted batch itself runs, and the peak is that of torch's allocator there.
Exit code 1 if even the most saving of the options needs more than --limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.train_device import add_device_option
from dsonas_hw.config import SearchConfig, build_config, load_preset, overlay
from dsonas_hw.search.step import lambda_gradient, weight_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.images import space_of_config
from dsonas_hw.train.loop import seed_everything

OPTIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"amp": "bf16"},
    "fp32, checkpointed": {"checkpoint_activations": True},
    "bf16, checkpointed": {"amp": "bf16", "checkpoint_activations": True},
}
BATCHES = (1, 2, 4)
"""Two give the line, the third checks it."""


def peak_bytes(step: Callable[[], object]) -> int:
    """The most bytes that are allocated at once in `step`, above those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    most = now = 0
    for _, num_bytes in changes:
        now += num_bytes
        most = max(most, now)
    return most


def bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def peak_on_gpu(space: SearchSpace, search: SearchConfig, batch_size: int, device: torch.device) -> int:
    """The most bytes that torch had allocated on a GPU at once, in two steps on W and one on λ."""
    seed_everything(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    net = Supernet(space, checkpoint_activations=search.checkpoint_activations).to(device).train()
    optimizer = torch.optim.SGD(net.weights(), lr=1e-3, momentum=0.9, nesterov=True)
    images = torch.randn(batch_size, *space.input_shape).to(device)
    batch = (images, torch.zeros(batch_size, dtype=torch.int64, device=device))
    for _ in range(2):  # the second has momentum
        weight_step(net, optimizer, batch, search)
    lambda_gradient(net, batch, search)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def peak_of_batch(space: SearchSpace, search: SearchConfig, batch_size: int) -> int:
    """Peak bytes of a step on W and of one on λ: weights, momentum, gradients, activations, temporaries."""
    seed_everything(0)
    net = Supernet(space, checkpoint_activations=search.checkpoint_activations).train()
    optimizer = torch.optim.SGD(net.weights(), lr=1e-3, momentum=0.9, nesterov=True)
    batch = (torch.randn(batch_size, *space.input_shape), torch.zeros(batch_size, dtype=torch.int64))
    weight_step(net, optimizer, batch, search)  # from now on there is momentum
    momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
    kept = bytes_of([*net.state_dict().values(), *momentum, batch[0]])
    net.zero_grad()
    return kept + max(
        peak_bytes(lambda: weight_step(net, optimizer, batch, search)),
        peak_bytes(lambda: lambda_gradient(net, batch, search)),
    )


def extrapolate(peaks: dict[int, int], batch_size: int) -> tuple[float, float]:
    """Bytes at a batch, by the line through the first and last peak, and how far one between lies off it."""
    (low, at_low), *between, (high, at_high) = sorted(peaks.items())
    slope = (at_high - at_low) / (high - low)

    def line(batch: int) -> float:
        return at_low + slope * (batch - low)

    return line(batch_size), max((abs(peak / line(b) - 1) for b, peak in between), default=0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", default="imagenet", help="whose supernet (default: imagenet)")
    parser.add_argument("--batch-size", type=int, default=32, help="images of a device")
    parser.add_argument("--limit", default="11GB", help="memory of the device")
    add_device_option(parser)
    parser.add_argument("--options", nargs="*", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the space")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    limit = float(options.limit.upper().removesuffix("GB")) * 1e9
    changes = {n: json.loads(v) for n, _, v in (item.partition("=") for item in options.set)}
    device: torch.device = options.device
    rows = []
    for name in options.options:
        config = build_config(
            overlay(load_preset(options.preset), {"space": changes, "search": OPTIONS[name]})
        )
        space = space_of_config(config)
        if device.type == "cpu":
            peaks = {batch: peak_of_batch(space, config.search, batch) for batch in BATCHES}
            wanted, off = extrapolate(peaks, options.batch_size)
        else:
            wanted, off = peak_on_gpu(space, config.search, options.batch_size, device), 0.0
            peaks = {options.batch_size: round(wanted)}
        rows.append({
            "option": name, "batch_size": options.batch_size, "peak_bytes": round(wanted),
            "measured_bytes": peaks, "off_the_line": off, "fits": wanted <= limit,
        })  # fmt: skip
        if options.json:
            print(json.dumps(rows[-1]))
        else:
            counted = "measured"
            if device.type == "cpu":
                per_image = (peaks[BATCHES[-1]] - peaks[BATCHES[0]]) / (BATCHES[-1] - BATCHES[0])
                counted = f"{per_image / 1e6:.0f} MB an image, line holds to {off:.1%}"
            print(
                f"{name:20} {wanted / 1e9:6.2f} GB at batch {options.batch_size}   ({counted})   "
                f"{'fits' if wanted <= limit else 'does not fit'} in {options.limit}"
            )
    return 0 if any(row["fits"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
