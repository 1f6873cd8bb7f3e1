"""What a search tells: a row of metrics.jsonl and lambda.jsonl per epoch, and a line for the progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsonas_hw.search.loop import Search


def words_of(search: Search) -> str:
    """Return the progress bar's text, e.g. ``search epoch 3/8, 40 edges, cost 1.20× budget``."""
    cost = f", cost {search.steering.ratio:.2f}× budget" if search.steering.budgets else ""
    return f"{_stage(search)} epoch {search.epoch + 1}/{search.num_epochs}, {_num_edges(search)} edges{cost}"


def log_epoch(search: Search) -> None:
    """Append the epoch that ends now to the run's logs."""
    meter, stage = search.team.meter, _stage(search)
    row: dict[str, Any] = {
        "stage": stage, "epoch": search.epoch, "loss": meter.loss, "accuracy": meter.accuracy,
        "seconds": round(search.elapsed_s, 3),
    }  # fmt: skip
    if stage == "search":
        steering, controller = search.steering, search.steering.controller
        row |= {
            "step": search.lam_step,
            "gamma": steering.gamma,
            "gamma_cost": steering.gamma_cost if search.config.search.is_by_cost else None,
            "cost_ratio": steering.ratio if steering.budgets else None,
            "target_ratio": controller.target(search.lam_step) if controller else None,
            "num_edges": _num_edges(search),
        }
        lam = search.parts.supernet.lam.detach().cpu().tolist()
        rounded = [[float(f"{value:.5g}") for value in values] for values in lam]  # never to zero
        search.run_directory.log(
            "lambda.jsonl", {"stage": stage, "epoch": search.epoch, "step": search.lam_step, "lam": rounded}
        )
    search.run_directory.log("metrics.jsonl", row)


def _stage(search: Search) -> str:
    return "pretrain" if search.is_pretraining else "search"


def _num_edges(search: Search) -> int:
    return sum(block.num_edges for block in search.steering.blocks)
