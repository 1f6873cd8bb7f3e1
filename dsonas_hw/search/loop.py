"""The search: pretrain the supernet, then alternate SGD on W and APG-NAG on λ until the budget is met.

    for every iteration:  w_steps × (W batch → SGD)   then   λ batch → ∇G(λ) → γ → APG-NAG
    whenever the set of nonzero λ changes:  close the blocks, recompute costs and γ, record the path
    every few epochs:  remove what is dead from the supernet

`parts` has the network and its data, `team` what all processes do together, `steering` γ and λ, `path` and
`search_log` what is written, `checkpoint` what a resumed search starts from. A run is reproducible from its
seed, and a resumed one continues bit for bit: batches depend on (seed, epoch, step) only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dsonas_hw.architecture.architecture import Architecture, identity_architecture
from dsonas_hw.architecture.costs import CostName, TargetCosts
from dsonas_hw.architecture.fit import budget_ratio, choose_width
from dsonas_hw.budget import Budget
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import BudgetError, UserError, command_line
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.checkpoint import restore_search, save_search, start_from
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.search.path_recorder import PathRecorder
from dsonas_hw.search.search_log import log_epoch, words_of
from dsonas_hw.search.steering import Steering
from dsonas_hw.search.team import SearchTeam
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train import distributed
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.loop import (
    CHECK_EVERY,
    DivergedError,
    EpochMeter,
    Interrupted,
    Progress,
    StopSignal,
    resolve_train_device,
)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """How a search ended; the architectures are in the run's path.jsonl."""

    architecture: Architecture
    """What is alive at the end, at the deployment width."""
    ratio: float
    """Tightest cost / limit of it; 0 without budgets."""
    has_landed: bool
    """Whether the budget holds at the deployment width (within the search, before width fitting)."""
    num_points: int
    gamma_cost: CostName | None
    """What γ went by; None: it was plain, or the release's."""
    seconds: float


class Search:
    """One search; `run` does it, from the start or from the last checkpoint."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        space: SearchSpace,
        dataset: Dataset,
        target: TargetCosts,
        *,
        budgets: Sequence[Budget],
        progress: Progress | None = None,
    ) -> None:
        self.run_directory = run
        self.config = config
        self.progress = progress or (lambda done, total, text: None)
        self.device = resolve_train_device(config.train_on)
        width = config.retrain.width or choose_width(space, budgets, target)
        check_width(space, budgets, target, width=width)
        self.parts = SearchParts(config, space, dataset, self.device)
        self.team = SearchTeam(self.parts, self.device)
        self.num_iterations = max(1, len(self.parts.w_batches) // config.search.w_steps)
        self.steering = Steering(
            config.search, self.parts.supernet, target, budgets,
            width=width, num_steps=config.search.epochs * self.num_iterations,
        )  # fmt: skip
        self.path = PathRecorder(run, config, self.parts, dataset, self.steering, self.device)
        self.epoch = 0
        """Counted over pretraining and search."""
        self.iteration = 0
        """Of the epoch."""
        self.lam_step = 0
        self.elapsed_s = 0.0

    @property
    def is_pretraining(self) -> bool:
        return self.epoch < self.config.search.pretrain_epochs

    @property
    def num_epochs(self) -> int:
        return self.config.search.pretrain_epochs + self.config.search.epochs

    # -- from the start or a checkpoint to the end ---------------------------------------------------------

    def run(self, *, resume: bool, pretrained: RunDirectory | None = None) -> SearchResult:
        """Search to the end of the schedule.

        pretrained: where `pretrain` ran, to start from its supernet; the result is the same, bit for bit, as
            if this search had pretrained by itself.

        Raises:
            Interrupted: SIGINT or SIGTERM; a checkpoint was written first.
            DivergedError: the loss became NaN; the last good checkpoint stays.
            RunError: no checkpoint can be read; `pretrained` was pretrained otherwise, or not to the end.
        """
        self._begin(resume=resume)
        if pretrained is not None and self.epoch == self.iteration == 0:
            start_from(self, pretrained)
        self._run_until(self.num_epochs)
        steering = self.steering
        return SearchResult(
            architecture=steering.architecture,
            ratio=steering.ratio,
            has_landed=steering.ratio <= 1.0,
            num_points=len(self.path.seen),
            gamma_cost=steering.gamma_cost if self.config.search.is_by_cost else None,
            seconds=self.elapsed_s,
        )

    def pretrain(self, *, resume: bool) -> None:
        """Only the pretraining, for searches that start from it; see `search.pretraining`.

        Raises:
            as `run`.
        """
        self._begin(resume=resume)
        self._run_until(self.config.search.pretrain_epochs)
        if not self.run_directory.list_checkpoints("search"):
            save_search(self)  # nothing to train: the supernet as it was drawn

    def _begin(self, *, resume: bool) -> None:
        if resume:
            restore_search(self)
        else:
            self.run_directory.truncate_logs({})

    def _run_until(self, num_epochs: int) -> None:
        distributed.begin(
            "search", {"config": self.config.model_dump(mode="json"), "state": self.parts.state_dict()}
        )
        try:
            with StopSignal() as stop:
                while self.epoch < num_epochs:
                    started = time.monotonic()
                    self._run_epoch(stop, started)
                    self.elapsed_s += time.monotonic() - started
                    self._end_epoch(stop)
        except UserError:
            distributed.broadcast(distributed.DONE)
            raise
        distributed.broadcast(distributed.DONE)

    # -- the loop (paper, section 3.3) ---------------------------------------------------------------------

    def _run_epoch(self, stop: StopSignal, started: float) -> None:
        """Alternate steps on W and on λ; pretraining has none on λ, which are all one."""
        self.parts.supernet.train()
        w_steps = 1 if self.is_pretraining else self.config.search.w_steps
        num_iterations = len(self.parts.w_batches) if self.is_pretraining else self.num_iterations
        if not self.is_pretraining:
            self.path.record(epoch=self.epoch, lam_step=self.lam_step, gamma=0.0)
        while self.iteration < num_iterations:
            for step in range(self.iteration * w_steps, (self.iteration + 1) * w_steps):
                self.team.step_weights(self.epoch, step)
            if not self.is_pretraining and not self.steering.has_ended:
                self._step_lambda()
            self.iteration += 1
            self.progress(
                self.epoch * num_iterations + self.iteration, self.num_epochs * num_iterations, words_of(self)
            )
            if self.iteration % CHECK_EVERY == 0:
                self._check_finite()
            if stop.requested and self.iteration < num_iterations:
                self._check_finite()
                self.team.collect()
                self.elapsed_s += time.monotonic() - started
                self._interrupt(f"in epoch {self.epoch + 1}")

    def _step_lambda(self) -> None:
        """∇G(λ); γ by Eq. 9 or 10; λ by Eq. 6 to 8; then what is alive, and the path."""
        gradient = self.team.lambda_gradient(self.lam_step)
        if not bool(torch.isfinite(gradient).all()):
            self._check_finite()
            if self.parts.scaler.is_enabled():
                # Too large for float16 once; the scale is lower now.
                self.lam_step += 1
                return
            raise DivergedError(
                f"the gradient of λ became NaN or infinite in the search, epoch {self.epoch + 1}, step "
                f"{self.iteration + 1}; {self._advice()}"
            )
        decision = self.steering.step(self.lam_step)
        self.lam_step += 1
        self.team.share_lambda()
        if not self.steering.look():
            return
        if all(block.is_identity for block in self.steering.blocks):
            raise UserError(
                f"the search collapsed in epoch {self.epoch + 1}: every block became the identity; "
                "lower search.gamma, or let a --budget steer it. The path up to here "
                f"can be used: {command_line('derive', self.run_directory.path, '--unfinished')}"
            )
        self.path.record(epoch=self.epoch, lam_step=self.lam_step, gamma=decision.gamma)

    def _end_epoch(self, stop: StopSignal) -> None:
        """Log the epoch, prune and write a checkpoint where they are due."""
        config = self.config.search
        self._check_finite()
        self.team.collect()
        if not self.is_pretraining and (self.epoch + 1 - config.pretrain_epochs) % config.prune_every == 0:
            self.team.prune()
        log_epoch(self)
        self.epoch, self.iteration = self.epoch + 1, 0
        self.team.meter = EpochMeter(self.device)
        if stop.requested and self.epoch < self.num_epochs:
            self._interrupt(f"after epoch {self.epoch}")
        ends = (config.pretrain_epochs, self.num_epochs)
        if self.epoch % config.checkpoint_every == 0 or self.epoch in ends:
            save_search(self)

    # -- what can go wrong ---------------------------------------------------------------------------------

    def _interrupt(self, where: str) -> None:
        save_search(self)
        raise Interrupted(
            f"search interrupted {where} of {self.num_epochs}; go on with: "
            f"{command_line('search', '--resume', self.run_directory.path)}"
        )

    def _check_finite(self) -> None:
        self.team.meter.check(f"the search, epoch {self.epoch + 1}", self._advice())

    def _advice(self) -> str:
        """What to do about a loss that is no number."""
        checkpoints = self.run_directory.list_checkpoints("search")
        kept = f"; the last good checkpoint is {checkpoints[-1].name}" if checkpoints else ""
        return f"lower search.lr (or search.lam_lr) and search again with another --out{kept}"


def check_width(space: SearchSpace, budgets: Sequence[Budget], target: TargetCosts, *, width: int) -> None:
    """Refuse a deployment width at which no pruning can meet the budgets.

    Raises:
        BudgetError: what every network of the space has costs too much there.
    """
    ratio = budget_ratio(identity_architecture(space, width=width), budgets, target)
    if ratio > 1.0:
        raise BudgetError(
            f"at the deployment width of {width} channels (retrain.width) stem, reductions and head "
            f"alone cost {ratio:.2f} times the budget; give a smaller width, or leave it out"
        )
