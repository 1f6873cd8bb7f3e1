"""How fast is a step of the search? Against the same network without λ, a per-edge loop, and DARTS.

    python -m benchmarks.search_speed cifar10
    python -m benchmarks.search_speed imagenet --batch-size 2
    python -m benchmarks.search_speed cifar10 --batch-size 128 --device cuda --search amp=bf16

One step on W each (forward, backward, clipping, SGD), interleaved over several rounds in one process, so that
what disturbs the machine disturbs all of them; the smallest time of each counts. Wanted: at most 1.1 times
the same network without λ (`plain sums`), and at most 0.4 times the complete supernet once 30 % of its flops
are left. The networks compared with are in `benchmarks.plain_networks`. Exit code 1 if a ratio is missed.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.plain_networks import DartsNetwork, EdgeNetwork
from benchmarks.train_device import add_device_option
from dsonas_hw.architecture.architecture import Architecture, Block, close_block, complete_block
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.config import SearchConfig, build_config, load_preset, overlay
from dsonas_hw.search.step import Batch, lambda_gradient, weight_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.images import space_of_config
from dsonas_hw.train.loop import keep_freed_memory, seed_everything

COMPLETE, PLAIN, LOOP, PRUNED, DARTS = "complete", "plain sums", "per-edge loop", "pruned", "darts"
LAMBDA = "λ step"
KEPT_FLOPS = 0.3
MOST_OF_PLAIN, MOST_OF_COMPLETE = 1.1, 0.4


def prune_at_random(space: SearchSpace, kept_flops: float, seed: int) -> tuple[Block, ...]:
    """Remove one edge after the other, in random order, until that share of the flops is left."""
    rng = random.Random(seed)
    counted = TargetCosts()

    def flops(blocks: tuple[Block, ...]) -> int:
        per_block = blocks * (space.num_blocks if space.share else 1)
        return counted.costs(Architecture(space=space, blocks=per_block, width=space.channels)).flops

    complete = (complete_block(space),) * space.num_lambda_sets
    limit = kept_flops * flops(complete)
    edges = [(row, edge) for row in range(space.num_lambda_sets) for edge in space.edges]
    rng.shuffle(edges)
    low, high = 0, len(edges)  # removed: enough never at low, always at high
    blocks = complete
    while high - low > 1:
        middle = (low + high) // 2
        gone = set(edges[:middle])
        tried = tuple(
            close_block(space, [edge for edge in space.edges if (row, edge) not in gone])
            for row in range(space.num_lambda_sets)
        )
        if flops(tried) <= limit:
            high, blocks = middle, tried
        else:
            low = middle
    return blocks


def measure_interleaved(
    steps: dict[str, Callable[[], object]],
    *,
    rounds: int,
    synchronize: Callable[[], object] = lambda: None,
    clock_s: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The smallest seconds of each, over rounds in which each runs once, after one that warms up.

    synchronize: waits for the device, before and after every step.
    """
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            synchronize()
            started = clock_s()
            step()
            synchronize()
            if number:
                samples[name].append(clock_s() - started)
    return {name: min(times) for name, times in samples.items()}


def build_steps(
    space: SearchSpace, search: SearchConfig, batch: Batch, *, with_darts: bool
) -> dict[str, Any]:
    """Name → one step, for every network that is compared, on the device that the batch is on."""
    device = batch[0].device

    def on_weights(net: Any) -> Callable[[], object]:
        net.to(device).train()
        optimizer = torch.optim.SGD(
            net.weights(), lr=1e-3, momentum=search.momentum, nesterov=True, weight_decay=search.weight_decay
        )
        return lambda: weight_step(net, optimizer, batch, search)

    complete = Supernet(space, checkpoint_activations=search.checkpoint_activations)
    pruned = copy.deepcopy(complete)
    pruned.prune(prune_at_random(space, KEPT_FLOPS, seed=0))
    steps = {
        COMPLETE: on_weights(complete),
        PLAIN: on_weights(EdgeNetwork(space, "sums")),
        LOOP: on_weights(EdgeNetwork(space, "loop")),
        PRUNED: on_weights(pruned),
        LAMBDA: lambda: lambda_gradient(complete, batch, search),
    }
    if with_darts:
        steps[DARTS] = on_weights(DartsNetwork(space))
    return steps


def values_of(items: Sequence[str]) -> dict[str, Any]:
    """Options written NAME=VALUE, the values as JSON or, where they are none, as text."""
    found: dict[str, Any] = {}
    for name, _, text in (item.partition("=") for item in items):
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def name_of(device: torch.device) -> str:
    """A GPU's own name; cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", default="cifar10", help="whose supernet (default: cifar10)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    add_device_option(parser)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the space")
    parser.add_argument(
        "--search", action="append", default=[], metavar="NAME=VALUE", help="of the search, as amp=bf16"
    )
    parser.add_argument("--without-darts", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    device: torch.device = options.device
    changes = {"space": values_of(options.set), "search": values_of(options.search)}
    config = build_config(overlay(load_preset(options.preset), changes))
    space = space_of_config(config)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    seed_everything(0)
    images = torch.randn(options.batch_size, *space.input_shape).to(device)
    labels = torch.randint(space.num_classes, (options.batch_size,)).to(device)
    steps = build_steps(space, config.search, (images, labels), with_darts=not options.without_darts)
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else (lambda: None)
    seconds = measure_interleaved(steps, rounds=options.rounds, synchronize=wait)
    peak_bytes = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    ratios = {name: s / seconds[PLAIN] for name, s in seconds.items()}
    pruned = seconds[PRUNED] / seconds[COMPLETE]
    holds = ratios[COMPLETE] <= MOST_OF_PLAIN and pruned <= MOST_OF_COMPLETE
    if options.json:
        print(json.dumps({
            "preset": options.preset, "device": name_of(device), "batch_size": options.batch_size,
            "seconds": seconds, "peak_bytes": peak_bytes,
            "relative_to_plain": ratios, "pruned_relative_to_complete": pruned, "holds": holds,
        }, ensure_ascii=False))  # fmt: skip
    else:
        print(f"{options.preset}, batch {options.batch_size}, {options.threads} thread(s), {name_of(device)}")
        for name, s in seconds.items():
            print(f"  {name:14} {1000 * s:9.1f} ms   {ratios[name]:5.2f} × plain sums")
        print(f"  pruned to {KEPT_FLOPS:.0%} of the flops: {pruned:.2f} × complete")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
