"""Whether the weights of a block's 1×1 convolution take over what their λ lose: their norms in a search.

    python -m benchmarks.output_weights --preset digits --budget mac=100k --seed 0 [--set KEY=VALUE …]

An edge from operation n to the output adds λ_n·W_n·h_n; λ/1000 with 1000·W_n is the same function. After
every epoch, over the output edges that are alive: the mean λ; the mean norm of W_n, against its value when
the search proper began; the mean product of the two (what an edge contributes; 1 in the beginning); and the
correlation of log λ with log ‖W_n‖ among the edges of a block. A W that makes up for its λ has a correlation
near −1 and a product near 1.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path

from dsonas_hw.cli.options import config_from_options
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.loop import Search
from dsonas_hw.task import prepare_task
from dsonas_hw.train.images import load_data, space_of_config

Edges = dict[tuple[int, int], tuple[float, float]]
"""(block, node) → λ and the norm of W of its output edge."""


def output_edges(search: Search) -> Edges:
    """Read λ and ‖W‖ of every output edge that is alive."""
    net, space = search.parts.supernet, search.space
    position = {edge: i for i, edge in enumerate(space.edges)}
    found: Edges = {}
    for number, block in enumerate(net.blocks()):
        lam = net.lam.detach()[0 if space.share else number]
        for name, weights in block.merge.items():
            value = float(lam[position[int(name), space.num_nodes + 1]])
            if value > 0:
                found[number, int(name)] = (value, float(weights.detach().norm()))
    return found


def correlation(edges: Edges) -> float | None:
    """Mean over the blocks of the correlation of log λ with log ‖W‖; None where no block has three edges."""
    found = []
    for block in {block for block, _ in edges}:
        pairs = [(math.log(lam), math.log(w)) for (b, _), (lam, w) in edges.items() if b == block]
        lams, norms = ([pair[i] for pair in pairs] for i in (0, 1))
        if len(pairs) >= 3 and min(statistics.pstdev(lams), statistics.pstdev(norms)) > 0:
            found.append(statistics.correlation(lams, norms))
    return statistics.mean(found) if found else None


def row(label: str, edges: Edges, start: Edges) -> str:
    """One line of the table."""
    if not edges:
        return f"{label:>12} {0:6d}"
    lam = statistics.mean(value for value, _ in edges.values())
    norm = statistics.mean(w / start[key][1] for key, (_, w) in edges.items())
    product = statistics.mean(value * w / start[key][1] for key, (value, w) in edges.items())
    related = correlation(edges)
    shown = "" if related is None else f"{related:+.2f}"
    return f"{label:>12} {len(edges):6d} {lam:8.3f} {norm:8.3f} {product:8.3f} {shown:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--budget", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    args = parser.parse_args()
    config = config_from_options(
        preset=args.preset, config_file=None, settings=tuple(args.settings), budget=tuple(args.budget),
        seed=args.seed,
    )  # fmt: skip
    task = prepare_task(config, space_of_config(config))
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        run.create(config)
        search = Search(run, config, task.space, load_data(config), task.target, budgets=task.budgets)
        search.pretrain(resume=False)
        start, last = output_edges(search), search.epoch
        print(f"{'epoch':>12} {'edges':>6} {'λ':>8} {'‖W‖':>8} {'λ·‖W‖':>8} {'corr.':>8}")
        print(row("pretrained", start, start))

        def note(done: int, total: int, text: str) -> None:
            nonlocal last
            if search.epoch > last:
                last = search.epoch
                print(row(str(last - config.search.pretrain_epochs), output_edges(search), start), flush=True)

        search.progress = note
        search.run(resume=True)
        print(row("end", output_edges(search), start))


if __name__ == "__main__":
    main()
