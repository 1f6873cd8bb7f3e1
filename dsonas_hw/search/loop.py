"""The search: pretrain the supernet, then alternate SGD on W and APG-NAG on λ until the budget is met.

    for every iteration:  w_steps × (W batch → SGD)   then   λ batch → ∇G(λ) → controller → APG-NAG
    whenever the set of nonzero λ changes:  close the blocks, recompute costs and γ, record the path
    every few epochs:  remove what is dead from the supernet

A run is reproducible from its seed, and a resumed one continues bit for bit: batches depend on (seed, epoch,
step) only, and a checkpoint holds everything else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsonas_hw.architecture.architecture import Architecture, Block, identity_architecture
from dsonas_hw.architecture.costs import CostName, TargetCosts
from dsonas_hw.architecture.fit import budget_ratio, choose_width
from dsonas_hw.budget import Budget
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import BudgetError, UserError, command_line
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.adaptive import BY_COST, gamma_cost, relative_gamma
from dsonas_hw.search.apg_nag import APGNAG
from dsonas_hw.search.controller import BudgetController, Decision
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.search.path import PathPoint, load_path
from dsonas_hw.search.pretraining import copy_pretraining_log, load_pretrained
from dsonas_hw.search.step import Batch, lambda_after, lambda_gradient, shared_accuracy, weight_step
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train import distributed
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import Batches
from dsonas_hw.train.loop import (
    DivergedError,
    EpochMeter,
    Interrupted,
    Progress,
    StopSignal,
    random_state,
    resolve_train_device,
    restore_random_state,
)

CHECK_EVERY = 20
"""Steps between two looks for a NaN."""


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
        self.space = space
        self.target = target
        self.budgets = budgets
        self.progress = progress or (lambda done, total, text: None)
        self.device = resolve_train_device(config.train_on)
        self.width = config.retrain.width or choose_width(space, budgets, target)
        self._check_width()
        cfg = config.search
        self.gamma_cost = cfg.adaptive_cost or gamma_cost(space, budgets, target, width=self.width)
        """What Eq. 9 and 10 go by."""
        self.parts = SearchParts(config, space, dataset, self.device)
        self.supernet, self.w_optimizer = self.parts.supernet, self.parts.w_optimizer
        self.w_batches, self.lam_batches = self.parts.w_batches, self.parts.lam_batches
        self.score_batches = self._score_batches(dataset)
        self.lam_optimizer = APGNAG(
            [self.supernet.lam], lr=cfg.lam_lr, momentum=cfg.lam_momentum, gamma=cfg.gamma
        )
        self.num_iterations = max(1, len(self.w_batches) // cfg.w_steps)
        self.epoch = 0
        """Counted over pretraining and search."""
        self.iteration = 0
        self.lam_step = 0
        self.last_scored = -(10**9)
        self.elapsed_s = 0.0
        self.stop_requested = False
        self.seen: set[tuple[Block, ...]] = set()
        """Block tuples that are on the path."""
        self.meter = EpochMeter(self.device)
        self.blocks: tuple[Block, ...] = self.supernet.blocks_of(self.supernet.lam)
        self.ratio = 0.0
        self.relative_gamma = torch.ones_like(self.supernet.lam.detach())
        self._look(self.blocks)
        self.controller: BudgetController | None = None
        if cfg.gamma_control and budgets and self.ratio > 1.0:
            self.controller = BudgetController(
                start_ratio=self.ratio, num_steps=cfg.epochs * self.num_iterations, gamma=cfg.gamma
            )

    # -- set-up ----------------------------------------------------------------------------------------------

    def _check_width(self) -> None:
        """Refuse a deployment width at which no pruning can meet the budgets."""
        smallest = identity_architecture(self.space, width=self.width)
        ratio = budget_ratio(smallest, self.budgets, self.target)
        if ratio > 1.0:
            raise BudgetError(
                f"at the deployment width of {self.width} channels (retrain.width) stem, reductions and head "
                f"alone cost {ratio:.2f} times the budget; give a smaller width, or leave it out"
            )

    def _score_batches(self, dataset: Dataset) -> list[Batch]:
        """The fixed images that score the path: of the λ part, not augmented."""
        lam_images, number = self.parts.lam_images, self.config.search.path_images
        chosen = torch.randperm(len(lam_images), generator=torch.Generator().manual_seed(self.config.seed))
        score = Batches(
            images=lam_images.take(chosen[:number].sort().values), dataset=dataset, batch_size=number,
            shuffle=False, device=self.device, num_workers=0,
        )  # fmt: skip
        return list(score.epoch(0))

    # -- the loop --------------------------------------------------------------------------------------------

    @property
    def is_pretraining(self) -> bool:
        return self.epoch < self.config.search.pretrain_epochs

    @property
    def num_epochs(self) -> int:
        return self.config.search.pretrain_epochs + self.config.search.epochs

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
            self._start_from(pretrained)
        self._run_until(self.num_epochs)
        return SearchResult(
            architecture=self.supernet.architecture(self.blocks, width=self.width),
            ratio=self.ratio,
            has_landed=self.ratio <= 1.0,
            num_points=len(self.seen),
            gamma_cost=self.gamma_cost if self.config.search.adaptive in BY_COST else None,
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
            self._save()  # nothing to train: the supernet as it was drawn

    def _begin(self, *, resume: bool) -> None:
        if resume:
            self._restore()
        else:
            self.run_directory.truncate_logs({})

    def _run_until(self, num_epochs: int) -> None:
        distributed.begin(
            "search", {"config": self.config.model_dump(mode="json"), "state": self.parts.state_dict()}
        )
        try:
            self._run_epochs_until(num_epochs)
        except UserError:
            distributed.say(distributed.DONE)
            raise
        distributed.say(distributed.DONE)

    def _run_epochs_until(self, num_epochs: int) -> None:
        with StopSignal() as stop:
            while self.epoch < num_epochs:
                started = time.monotonic()
                self._run_epoch(stop)
                self.elapsed_s += time.monotonic() - started
                self._end_epoch()

    def _run_epoch(self, stop: StopSignal) -> None:
        cfg, net = self.config.search, self.supernet
        net.train()
        self.parts.set_lr(pretraining=self.is_pretraining)
        w_steps = 1 if self.is_pretraining else cfg.w_steps
        num_iterations = len(self.w_batches) if self.is_pretraining else self.num_iterations
        w_stream = self.w_batches.epoch(self.epoch, self.iteration * w_steps)
        lam_stream = self.lam_batches.stream(self.lam_step)
        started = time.monotonic()
        if not self.is_pretraining:
            self._record(0.0)
        while self.iteration < num_iterations:
            for step in range(w_steps):
                distributed.say(distributed.STEP, self.epoch, self.iteration * w_steps + step)
                batch = next(w_stream)
                loss, logits = weight_step(net, self.w_optimizer, batch, cfg, self.parts.scaler)
                self.meter.update(self.iteration, loss, logits, batch[1])
            if not self.is_pretraining and not self._at_rest():
                self._lambda_step(next(lam_stream))
            self.iteration += 1
            self.progress(self.epoch * num_iterations + self.iteration, self.num_epochs * num_iterations,
                          self._words())  # fmt: skip
            if self.iteration % CHECK_EVERY == 0:
                self._check_finite()
            if stop.requested and self.iteration < num_iterations:
                self._check_finite()
                self._collect()
                self.elapsed_s += time.monotonic() - started
                self._save()
                raise Interrupted(
                    f"search interrupted in epoch {self.epoch + 1} of {self.num_epochs}; go on with: "
                    f"{command_line('search', '--resume', self.run_directory.path)}"
                )
        self.stop_requested = stop.requested

    def _at_rest(self) -> bool:
        """The path is at its end: λ stay as they are, W trains on."""
        return self.controller is not None and self.controller.has_ended(self.ratio)

    def _words(self) -> str:
        kind = "pretrain" if self.is_pretraining else "search"
        edges = sum(block.num_edges for block in self.blocks)
        cost = f", cost {self.ratio:.2f}× budget" if self.budgets else ""
        return f"{kind} epoch {self.epoch + 1}/{self.num_epochs}, {edges} edges{cost}"

    def _check_finite(self) -> None:
        self.meter.check(f"the search, epoch {self.epoch + 1}", self._advice())

    def _advice(self) -> str:
        """What to do about a loss that is no number."""
        checkpoints = self.run_directory.list_checkpoints("search")
        kept = f"; the last good checkpoint is {checkpoints[-1].name}" if checkpoints else ""
        return f"lower search.lr (or search.lam_lr) and search again with another --out{kept}"

    # -- λ ---------------------------------------------------------------------------------------------------

    def _lambda_step(self, batch: Batch) -> None:
        distributed.say(distributed.LAMBDA, self.lam_step)
        gradient = lambda_gradient(self.supernet, batch, self.config.search, self.parts.scaler)
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
        decision = self._decide()
        optimizer, lam = self.lam_optimizer, self.supernet.lam
        if not decision.keep_momentum:
            optimizer.state[lam].pop("velocity", None)
        optimizer.param_groups[0]["gamma"] = [self._gamma(decision.gamma)]
        optimizer.param_groups[0]["alive"] = [self.supernet.alive]
        if decision.take:
            optimizer.step()
        self.lam_step += 1
        blocks = self.supernet.blocks_of(lam)
        self.supernet.silence_dead(blocks)  # also where momentum raised a λ that is dead
        distributed.say(distributed.MOVED)
        distributed.send_(lam.data)
        if blocks != self.blocks:
            self._look(blocks)
            if all(block.is_identity for block in blocks):
                raise UserError(
                    f"the search collapsed in epoch {self.epoch + 1}: every block became the identity; "
                    "lower search.gamma, or let a --budget steer it. The path up to here "
                    f"can be used: {command_line('derive', self.run_directory.path, '--unfinished')}"
                )
            self._record(decision.gamma)

    def _decide(self) -> Decision:
        if self.controller is None:
            return Decision(gamma=self.config.search.gamma, keep_momentum=True, take=True)
        alive_now = self.supernet.lam.detach() > 0

        def ratio_after(gamma: float, keep_momentum: bool) -> float | None:
            after = lambda_after(
                self.supernet, self.lam_optimizer, self._gamma(gamma), keep_momentum=keep_momentum
            )
            if torch.equal(after > 0, alive_now):
                return self.ratio
            blocks = self.supernet.blocks_of(after)
            if all(block.is_identity for block in blocks):
                return None
            return budget_ratio(
                self.supernet.architecture(blocks, width=self.width), self.budgets, self.target
            )

        return self.controller.decide(self.lam_step, self.ratio, ratio_after)

    def _gamma(self, gamma: float) -> Tensor:
        """γ of every λ, for a global γ of those above zero."""
        at_zero = max(gamma, self.controller.gamma) if self.controller else gamma
        return self.relative_gamma * torch.where(self.supernet.lam.detach() > 0, gamma, at_zero)

    def _look(self, blocks: tuple[Block, ...]) -> None:
        """Take note of what is alive: its cost, and γ by it."""
        self.blocks = blocks
        architecture = self.supernet.architecture(blocks, width=self.width)
        self.ratio = budget_ratio(architecture, self.budgets, self.target)
        cfg = self.config.search
        self.relative_gamma = relative_gamma(
            architecture, self.target, adaptive=cfg.adaptive, cost=self.gamma_cost
        ).to(self.device)

    def _record(self, gamma: float) -> None:
        """Append the present architecture to the path if it is new; score it unless one was just before."""
        if self.blocks in self.seen:
            return
        self.seen.add(self.blocks)
        cfg, accuracy = self.config.search, None
        due = self.lam_step - self.last_scored >= cfg.path_interval
        if due or self._at_rest():
            accuracy = shared_accuracy(self.supernet, self.score_batches, amp=cfg.amp)
            self.last_scored = self.lam_step
        architecture = self.supernet.architecture(self.blocks, width=self.width)
        point = PathPoint(
            step=self.lam_step, epoch=self.epoch, gamma=gamma, architecture=architecture,
            costs=self.target.costs(architecture), accuracy=accuracy,
        )  # fmt: skip
        self.run_directory.log("path.jsonl", point.to_json())

    # -- ends of epochs, checkpoints -------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self._check_finite()
        self._collect()
        stage = "pretrain" if self.is_pretraining else "search"
        row: dict[str, Any] = {
            "stage": stage, "epoch": self.epoch, "loss": self.meter.loss, "accuracy": self.meter.accuracy,
            "seconds": round(self.elapsed_s, 3),
        }  # fmt: skip
        if stage == "search":
            if (self.epoch + 1 - self.config.search.pretrain_epochs) % self.config.search.prune_every == 0:
                distributed.say(distributed.PRUNE)
                self.supernet.prune(self.blocks, self.w_optimizer)
            controller = self.controller
            row |= {
                "step": self.lam_step,
                "gamma": controller.gamma if controller else self.config.search.gamma,
                "gamma_cost": self.gamma_cost if self.config.search.adaptive in BY_COST else None,
                "cost_ratio": self.ratio if self.budgets else None,
                "target_ratio": controller.target(self.lam_step) if controller else None,
                "num_edges": sum(block.num_edges for block in self.blocks),
            }
        self.run_directory.log("metrics.jsonl", row)
        lam = [[round(x, 5) for x in values] for values in self.supernet.lam.detach().cpu().tolist()]
        if stage == "search":
            self.run_directory.log(
                "lambda.jsonl", {"stage": stage, "epoch": self.epoch, "step": self.lam_step, "lam": lam}
            )
        self.epoch, self.iteration = self.epoch + 1, 0
        self.meter = EpochMeter(self.device)
        ends = (self.config.search.pretrain_epochs, self.num_epochs)
        due = self.epoch % self.config.search.checkpoint_every == 0 or self.epoch in ends
        if due or self.stop_requested:
            self._save()
        if self.stop_requested and self.epoch < self.num_epochs:
            raise Interrupted(
                f"search interrupted after epoch {self.epoch} of {self.num_epochs}; go on with: "
                f"{command_line('search', '--resume', self.run_directory.path)}"
            )

    def _collect(self) -> None:
        distributed.say(distributed.COLLECT)
        self.meter.collect()

    def _save(self) -> None:
        velocity = self.lam_optimizer.state[self.supernet.lam].get("velocity")
        state = {
            **self.parts.state_dict(),
            "velocity": velocity,
            "epoch": self.epoch,
            "iteration": self.iteration,
            "lam_step": self.lam_step,
            "last_scored": self.last_scored,
            "elapsed_s": self.elapsed_s,
            "meter": self.meter.state_dict(),
            "controller": self.controller.state_dict() if self.controller else None,
            "random": random_state(self.device),
        }
        number = self.epoch * 1000 + min(999, 1000 * self.iteration // max(1, len(self.w_batches)))
        self.run_directory.save_checkpoint("search", number, state)

    def _restore(self) -> None:
        state, _ = self.run_directory.load_checkpoint("search")
        if state is None:
            self.run_directory.truncate_logs({})
            return
        self._load_checked(state, self.run_directory)
        if self.epoch < self.num_epochs:  # else what follows was logged by later stages
            self.run_directory.truncate_logs(state.get("log_sizes"))
        if self.run_directory.log_sizes()["path.jsonl"]:
            space_json = self.supernet.architecture(self.blocks, width=self.width).to_json()["space"]
            sets = self.space.num_lambda_sets
            self.seen = {p.architecture.blocks[:sets] for p in load_path(self.run_directory, space_json)}

    def _start_from(self, pretrained: RunDirectory) -> None:
        """Take over a pretrained supernet and what was logged of its pretraining."""
        state = load_pretrained(pretrained, self.config)
        self._load_checked({**state, "controller": None}, pretrained)
        copy_pretraining_log(pretrained, self.run_directory)

    def _load_checked(self, state: dict[str, Any], origin: RunDirectory) -> None:
        try:
            self._load_state(state)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise UserError(
                f"the checkpoint in {origin.checkpoints} is of another search "
                f"({type(error).__name__}); start again with another --out"
            ) from None

    def _load_state(self, state: dict[str, Any]) -> None:
        self.parts.load_state_dict(state)
        if state["velocity"] is not None:
            self.lam_optimizer.state[self.supernet.lam]["velocity"] = state["velocity"].to(self.device)
        self.epoch, self.iteration = int(state["epoch"]), int(state["iteration"])
        self.lam_step = int(state["lam_step"])
        self.last_scored, self.elapsed_s = int(state["last_scored"]), float(state["elapsed_s"])
        self.meter.load_state_dict(state["meter"])
        if self.controller is not None and state["controller"] is not None:
            self.controller.load_state_dict(state["controller"])
        self._look(self.supernet.blocks_of(self.supernet.lam))
        restore_random_state(state["random"], self.device)
