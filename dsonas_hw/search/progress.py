"""Whether the search of a run has come to its end, as its logs tell."""

from __future__ import annotations

from dsonas_hw.errors import RunError, command_line
from dsonas_hw.files import read_json_lines
from dsonas_hw.run_directory import RunDirectory

SEARCH_STAGES = ("pretrain", "search")
"""Of the lines of metrics.jsonl."""


def unfinished_search(run: RunDirectory) -> str | None:
    """Return how far a search has come that has not ended, as `5 of 8 epochs`.

    None: it has ended, or none was begun here: a transferred block has a path of one architecture.

    Raises:
        UserError: not a run, or its log is damaged.
    """
    search = run.load_config().search
    rows = read_json_lines(run.log_path("metrics.jsonl"))
    searched = [row for row in rows if row.get("stage") in SEARCH_STAGES]
    done = max((row["epoch"] + 1 for row in searched if type(row.get("epoch")) is int), default=0)
    num_epochs = search.pretrain_epochs + search.epochs
    if done >= num_epochs:
        return None
    path = run.log_path("path.jsonl")
    came_otherwise = run.architecture_path.exists() or run.log_path("selection.jsonl").exists()
    has_begun = searched or run.list_checkpoints("search") or (path.exists() and not came_otherwise)
    return f"{done} of {num_epochs} epochs" if has_begun else None


def refuse_unfinished(run: RunDirectory, *command: object) -> None:
    """Refuse to take a search that has not ended for one that has.

    command: what takes it all the same, once it is typed with `--unfinished`.

    Raises:
        RunError: it has not ended; says how it goes on.
    """
    if (done := unfinished_search(run)) is not None:
        resume = command_line("search", "--resume", run.path)
        way = "another process is at it: wait for that" if run.is_in_use() else f"go on with: {resume}"
        raise RunError(
            f"the search of {run.path} is not finished ({done}); {way}; or take what it has so far: "
            f"{command_line(*command, '--unfinished')}"
        )
