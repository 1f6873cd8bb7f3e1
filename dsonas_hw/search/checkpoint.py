"""A search's checkpoints: everything that the rest of the search depends on, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsonas_hw.errors import UserError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.pretraining import copy_pretraining_log, load_pretrained
from dsonas_hw.train.loop import random_state, restore_random_state

if TYPE_CHECKING:
    from dsonas_hw.search.loop import Search


def save_search(search: Search) -> None:
    """Write a checkpoint of the search as it stands between two steps."""
    state = {
        **search.parts.state_dict(),
        **search.steering.state_dict(),
        "epoch": search.epoch,
        "iteration": search.iteration,
        "lam_step": search.lam_step,
        "last_scored": search.path.last_scored,
        "elapsed_s": search.elapsed_s,
        "meter": search.team.meter.state_dict(),
        "random": random_state(search.device),
    }
    number = search.epoch * 1000 + min(999, 1000 * search.iteration // max(1, len(search.parts.w_batches)))
    search.run_directory.save_checkpoint("search", number, state)


def restore_search(search: Search) -> None:
    """Put a search where its newest readable checkpoint stands, and cut its logs off there.

    Raises:
        UserError: the checkpoint is of another search.
    """
    run = search.run_directory
    state, _ = run.load_checkpoint("search")
    if state is None:
        run.truncate_logs({})
        return
    _load(search, state, run)
    if search.epoch < search.num_epochs:  # else what follows was logged by later stages
        run.truncate_logs(state.get("log_sizes"))
    search.path.reload()


def start_from(search: Search, pretrained: RunDirectory) -> None:
    """Take over a pretrained supernet and what was logged of its pretraining.

    Raises:
        RunError: it was pretrained otherwise, or not to the end.
    """
    state = load_pretrained(pretrained, search.config)
    _load(search, {**state, "controller": None}, pretrained)
    copy_pretraining_log(pretrained, search.run_directory)


def _load(search: Search, state: dict[str, Any], origin: RunDirectory) -> None:
    try:
        search.parts.load_state_dict(state)
        search.steering.load_state_dict(state)
        search.epoch, search.iteration = int(state["epoch"]), int(state["iteration"])
        search.lam_step, search.elapsed_s = int(state["lam_step"]), float(state["elapsed_s"])
        search.path.last_scored = int(state["last_scored"])
        search.team.meter.load_state_dict(state["meter"])
        restore_random_state(state["random"], search.device)
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"the checkpoint in {origin.checkpoints} is of another search "
            f"({type(error).__name__}); start again with another --out"
        ) from None
