"""The search, end to end: it lands on the budget, keeps the path, prunes for real, and fails with advice."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_search import STEPS_PER_EPOCH, TinyRun, tiny_config
from torch import Tensor

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import DataConfig
from dsonas_hw.errors import BudgetError, DataError, UserError
from dsonas_hw.files import read_json_lines
from dsonas_hw.search import team
from dsonas_hw.search.choose import derive
from dsonas_hw.search.derive import derive_architecture
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.task import Task
from dsonas_hw.train.data import Dataset, load_dataset
from dsonas_hw.train.data_images import MemoryImages
from dsonas_hw.train.loop import DivergedError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    run = TinyRun(tmp_path_factory.mktemp("runs") / "one", tiny_config())
    run.run()
    return run


# -- landing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"adaptive": "none"}},
        {"search": {"adaptive": "block", "adaptive_cost": "flops"}, "retrain": {"width": 4}},
        {"search": {"adaptive": "operation"}, "seed": 1},
        {"search": {"adaptive": "marginal", "path_strength": True}},
        {"space": {"share": True}, "budget": ["flops=300k"]},
        {"space": {"share": True}, "budget": ["params=3k", "mac=30k"], "search": {"gamma": 1e-4}},
        {"budget": ["mac=16k"], "search": {"w_steps": 4, "epochs": 12}, "data": {"split_ratio": [4, 1]}},
        {
            "space": {"first_level_lambda": False, "stage_shortcut": True},
            "data": {"split": False},
            "retrain": {"width": 4},
        },
    ],
    ids=["plain", "eq 9", "eq 10", "marginal", "share flops", "share two budgets", "4:1", "release"],
)
def test_it_passes_the_budget_within_ten_percent_and_goes_on(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**changes))
    result = run.run()
    search = run.search
    assert search is not None
    budgets = run.config.budgets
    start = budget_ratio(
        complete_architecture(run.space, width=search.steering.width), budgets, TargetCosts()
    )
    assert start > 1.2
    ratios = [budget_ratio(p.architecture, budgets, TargetCosts()) for p in run.path()]
    assert any(0.9 <= ratio <= 1.1 for ratio in ratios)
    assert result.ratio == min(ratios) < 0.9
    assert result.ratio == budget_ratio(result.architecture, budgets, TargetCosts())
    assert result.has_landed == (result.ratio <= 1.0)
    assert not result.architecture.is_collapsed
    fitted = derive_architecture(run.path(), budgets, TargetCosts())
    assert 0.5 <= fitted.ratio <= 1.0  # 4, 8 or 12 channels: coarse steps


def test_the_alive_lambdas_are_the_architecture(finished: TinyRun) -> None:
    search = finished.search
    assert search is not None
    lam = search.parts.supernet.lam.detach()
    blocks = search.parts.supernet.blocks_of(lam)
    assert (
        search.parts.supernet.architecture(blocks, width=search.steering.width).blocks
        == finished.path()[-1].architecture.blocks
    )
    mask = search.parts.supernet._edge_mask(blocks)
    assert bool((lam[mask] > 0).all())
    assert bool((lam[~mask] == 0).all())  # zeros are exact


# -- the path -------------------------------------------------------------------------------------------


def test_the_path_holds_every_architecture_once_with_its_costs(finished: TinyRun) -> None:
    search, points = finished.search, finished.path()
    assert search is not None
    architectures = [p.architecture for p in points]
    assert len(set(architectures)) == len(architectures) > 5
    assert architectures[0] == complete_architecture(finished.space, width=search.steering.width)
    assert [p.step for p in points] == sorted(p.step for p in points)
    for p in points:
        assert p.costs == TargetCosts().costs(p.architecture)
        assert p.architecture.width == search.steering.width
    # Costs fall in trend: nothing comes back by much.
    lowest = points[0].costs.mac
    for p in points:
        lowest = min(lowest, p.costs.mac)
        assert p.costs.mac < 1.15 * lowest


def test_points_are_scored_now_and_then(finished: TinyRun) -> None:
    points = finished.path()
    scored = [p for p in points if p.accuracy is not None]
    assert points[0] in scored
    assert all(0.0 <= p.accuracy <= 1.0 for p in scored if p.accuracy is not None)
    steps = [p.step for p in scored[:-1]]
    assert all(b - a >= 3 for a, b in itertools.pairwise(steps))  # path_interval


def test_a_finished_search_serves_other_budgets(finished: TinyRun) -> None:
    for limit in (16e3, 25e3, 60e3):
        budgets = [dataclasses.replace(finished.config.budgets[0], limit=limit)]
        derived = derive_architecture(finished.path(), budgets, TargetCosts())
        assert 0.5 <= derived.ratio <= 1.0


# -- logs -----------------------------------------------------------------------------------------------


def test_every_epoch_is_logged(finished: TinyRun) -> None:
    rows = finished.metrics()
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("pretrain", 0), *[("search", e) for e in range(1, 7)],
    ]  # fmt: skip
    searched = rows[1:]
    assert searched[-1]["cost_ratio"] <= 1.1
    assert [r["num_edges"] for r in searched] == sorted((r["num_edges"] for r in searched), reverse=True)
    assert all(row["gamma"] > 0 and row["target_ratio"] >= 0.25 for row in searched)
    lam = read_json_lines(finished.directory.log_path("lambda.jsonl"))
    assert [row["epoch"] for row in lam] == list(range(1, 7))
    shape = (finished.space.num_lambda_sets, len(finished.space.edges))
    assert all(torch.tensor(row["lam"]).shape == shape for row in lam)
    for row, metrics in zip(lam, searched, strict=True):
        assert int((torch.tensor(row["lam"]) > 0).sum()) == metrics["num_edges"]


def test_pretraining_learns_weights_with_lambda_at_one(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(search={"pretrain_epochs": 3, "epochs": 1}))

    def only_pretraining(done: int, total: int, text: str) -> None:
        if "search" in text:
            raise StopIteration

    with pytest.raises(StopIteration):
        run.run(progress=only_pretraining)
    losses = [row["loss"] for row in run.metrics()]
    assert losses[2] < losses[0]
    state, _ = run.directory.load_checkpoint("search")
    assert state is not None
    assert bool((state["model"]["lam"] == 1).all())
    assert not run.directory.log_path("path.jsonl").exists() or len(run.path()) == 1


# -- physical pruning -----------------------------------------------------------------------------------


def test_dead_nodes_leave_the_supernet_and_its_checkpoint(finished: TinyRun) -> None:
    search = finished.search
    assert search is not None
    assert any(len(block.nodes) < finished.space.num_nodes for block in search.steering.blocks)
    kept = search.parts.supernet.blocks_of(search.parts.supernet.alive.float())
    for module, block in zip(search.parts.supernet.blocks(), kept, strict=True):
        assert {int(name) for name in module.operations} == set(block.nodes)
    state, _ = finished.directory.load_checkpoint("search")
    assert state is not None
    complete = Supernet(finished.space).state_dict()
    assert len(state["model"]) < len(complete)
    num_weights = len(search.parts.supernet.weights())
    assert len(search.parts.w_optimizer.param_groups[0]["params"]) == num_weights
    assert len(state["w_optimizer"]["state"]) == num_weights


def test_pruning_does_not_disturb_the_search(tmp_path: Path) -> None:
    # The loss right after a pruning is the loss that there would have been without.
    logits: dict[int, Tensor] = {}
    for prune_every in (1, 100):
        run = TinyRun(
            tmp_path / str(prune_every), tiny_config(search={"prune_every": prune_every, "epochs": 4})
        )
        run.run()
        assert run.search is not None
        images = next(run.search.parts.w_batches.epoch(0))[0]
        logits[prune_every] = run.search.parts.supernet.train()(images)
        assert run.search.parts.supernet.alive.all() == (prune_every == 100)
    torch.testing.assert_close(logits[1], logits[100], rtol=0.05, atol=0.05)


# -- what can go wrong ----------------------------------------------------------------------------------


def test_a_diverging_loss_stops_and_names_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(search={"pretrain_epochs": 2}))
    real = team.weight_step

    def diverge(*args: Any) -> Any:
        loss, logits = real(*args)
        assert run.search is not None
        bad = (run.search.epoch, run.search.iteration) == (1, 4)
        return (loss * torch.nan if bad else loss), logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "weight_step", diverge)
        with pytest.raises(DivergedError, match=r"epoch 2, step 5; .*search\.lr.*search-001000\.pt") as stop:
            run.run()
    assert "\n" not in str(stop.value)
    assert "--resume" not in str(stop.value)  # with another lr it would be refused
    state, warnings = run.directory.load_checkpoint("search")
    assert state is not None
    assert state["epoch"] == 1
    assert warnings == []
    assert all(torch.isfinite(value.float()).all() for value in state["model"].values())


@pytest.mark.parametrize("gamma_control", [True, False])
def test_a_lambda_gradient_that_is_no_number_is_no_collapse(tmp_path: Path, gamma_control: bool) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(search={"gamma_control": gamma_control}))
    real = team.lambda_gradient

    def broken(supernet: Supernet, *args: Any) -> Tensor:
        gradient = real(supernet, *args)
        assert run.search is not None
        if run.search.lam_step == 10:
            gradient.fill_(torch.nan)
        return gradient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "lambda_gradient", broken)
        with pytest.raises(DivergedError, match=r"λ.*epoch 3, step 5"):
            run.run()
    assert run.search is not None
    assert torch.isfinite(run.search.parts.supernet.lam).all()


def test_a_rate_that_is_far_too_high_is_noticed(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(search={"lr": 1e9, "grad_clip": 1e9}))
    with pytest.raises(DivergedError, match=r"lower search\.lr"):
        run.run()


def test_a_collapse_is_reported_and_the_path_can_be_used(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(budget=[], search={"gamma": 2.0, "adaptive": "none"}))
    with pytest.raises(UserError, match=r"collapsed in epoch 2.*lower search\.gamma.*--budget") as stop:
        run.run()
    assert "\n" not in str(stop.value)
    points = run.path()
    assert not any(p.architecture.is_collapsed for p in points)
    assert derive_architecture(points, [], TargetCosts()).architecture == points[-1].architecture


def test_with_a_controller_nothing_collapses(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(search={"gamma": 2.0, "epochs": 3}))
    result = run.run()
    assert not result.architecture.is_collapsed


def test_without_a_budget_gamma_alone_decides(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(budget=[], search={"gamma": 0.02}))
    result = run.run()
    assert result.ratio == 0.0
    assert run.search is not None
    assert run.search.steering.controller is None
    assert run.search.lam_step == 6 * STEPS_PER_EPOCH
    assert all(row["gamma"] == 0.02 and row["cost_ratio"] is None for row in run.metrics()[1:])


def with_rare_class(num_images: int) -> Dataset:
    """Digits with so many images of the 7."""
    digits = load_dataset(DataConfig(dataset="digits", subset=192, test_subset=50))
    assert isinstance(digits.train, MemoryImages)
    labels = digits.train.labels
    keep = (labels != 7).nonzero().flatten().tolist()
    keep += (labels == 7).nonzero().flatten().tolist()[:num_images]
    return dataclasses.replace(digits, train=digits.train.take(torch.tensor(keep)))


def test_a_class_that_one_half_would_lack_is_named(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(), with_rare_class(1))
    with pytest.raises(DataError, match=r"class '7' of digits has 1 training image\(s\), so none for the"):
        run.run()
    # The configuration is written under the directory's lock, whose file stays; nothing was trained.
    assert {path.name for path in run.directory.path.iterdir()} == {"config.yaml", ".lock"}


def test_a_class_of_two_images_is_enough(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(search={"epochs": 1}), with_rare_class(2))
    run.run()


def test_a_width_at_which_no_pruning_can_help_is_refused(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(retrain={"width": 64}))
    with pytest.raises(BudgetError, match=r"width of 64 channels \(retrain\.width\).* times the budget"):
        run.run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"batch_size": 100}}, r"smaller part of the W:λ split has 96 images.*batch of 100"),
        ({"search": {"w_steps": 9}}, r"6 batches.*search\.w_steps=9"),
    ],
)
def test_too_few_images_are_refused_before_training(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**changes))
    with pytest.raises(UserError, match=message):
        run.run()


# -- the same seed is the same search -------------------------------------------------------------------


def test_a_seed_decides_everything(tmp_path: Path, finished: TinyRun) -> None:
    again = TinyRun(tmp_path / "again", tiny_config())
    again.run()
    for name in ("path.jsonl", "lambda.jsonl"):
        assert again.log(name) == finished.log(name)
    assert again.metrics() == finished.metrics()
    other = TinyRun(tmp_path / "other", tiny_config(seed=5))
    other.run()
    assert other.log("lambda.jsonl") != finished.log("lambda.jsonl")


def test_with_a_constant_gamma_only_the_width_serves_a_budget(tmp_path: Path) -> None:
    config = tiny_config(search={"gamma_control": False, "gamma": 0.1}, budget=["mac=16k"])
    run = TinyRun(tmp_path / "run", config)
    run.run()
    points = run.path()
    assert len(points) > 3
    task = Task(config=config, space=run.space, target=TargetCosts(), budgets=config.budgets)
    found = [derive(run.directory, task, parse_budgets([text])) for text in ("mac=14k", "mac=30k")]
    assert {d.architecture.blocks for d in found} == {points[-1].architecture.blocks}
    assert found[0].architecture.width < found[1].architecture.width
    steered = tiny_config(budget=["mac=16k"])
    task = Task(config=steered, space=run.space, target=TargetCosts(), budgets=steered.budgets)
    near = derive(run.directory, task, parse_budgets([f"mac={points[1].costs.mac}"]))
    assert near.architecture.blocks != points[-1].architecture.blocks
