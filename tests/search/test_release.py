"""What the authors' release does differently from the paper: options that the preset `release` sets."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from dsonas_hw.architecture.architecture import close_block, complete_block
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.config import RunConfig, build_config, load_preset, overlay
from dsonas_hw.errors import UserError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.adaptive import relative_gamma
from dsonas_hw.search.loop import Search
from dsonas_hw.search.release_gamma import release_flops_gamma, release_mac_gamma
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.images import load_data, space_of_config

SPACE = SearchSpace(first_level_lambda=False)
SMALL = SearchSpace(
    levels=2, stages=(1, 1), channels=4, input_shape=(1, 8, 8), first_level_lambda=False, stage_shortcut=True
)


def release(**changes: Any) -> RunConfig:
    return build_config(overlay(load_preset("release"), changes))


def small_release(**search: Any) -> RunConfig:
    return release(
        data={"dataset": "digits", "subset": 256},
        space={"levels": 2, "stages": [1, 1], "channels": 4},
        search={"pretrain_epochs": 1, "epochs": 1, "batch_size": 32, "path_images": 16, **search},
    )


# -- γ ----------------------------------------------------------------------------------------------------


def test_release_flops_counts_to_25() -> None:
    # 2 sep-convs in each of 4 levels, 16 output edges, 1.
    assert release_flops_gamma(SPACE, complete_block(SPACE)) == 1.0
    # Node 1 is level 1's sep3, node 5 level 2's: 2 (level 1 always) + 1 + 1 output edge + 1.
    thin = close_block(SPACE, [(0, 1), (1, 5), (5, 17)])
    assert release_flops_gamma(SPACE, thin) == pytest.approx(5 / 25)
    # Pools are free, but their output edges count: 2 + 0 + 2 + 1.
    pools = close_block(SPACE, [(0, 3), (0, 4), (3, 17), (4, 17)])
    assert release_flops_gamma(SPACE, pools) == pytest.approx(5 / 25)
    assert release_flops_gamma(SPACE, close_block(SPACE, [])) == pytest.approx(3 / 25)


def test_release_mac_is_by_the_operation_an_edge_feeds() -> None:
    gamma = dict(zip(SPACE.edges, release_mac_gamma(SPACE), strict=True))
    assert [gamma[0, node] for node in (1, 2, 3, 4)] == [0.986, 1.0, 0.447, 0.447]
    assert {gamma[source, 6] for source in range(5)} == {1.0}
    assert {gamma[source, 17] for source in range(1, 17)} == {0.448}


def test_release_mac_refuses_other_operations() -> None:
    with pytest.raises(UserError, match=r"not dil3, skip; take search\.adaptive=operation"):
        release_mac_gamma(SearchSpace(operations=("sep3", "dil3", "skip")))


def test_release_gamma_reaches_every_lambda_set() -> None:
    space = SearchSpace(levels=2, stages=(1, 2), channels=4, share=False, first_level_lambda=False)
    architecture = random_architecture(space, random.Random(3))
    target = TargetCosts()
    flops = relative_gamma(architecture, target, adaptive="release-flops", cost="mac")
    assert flops.shape == (3, len(space.edges))
    for row, block in zip(flops, architecture.blocks, strict=True):
        assert row.tolist() == pytest.approx([release_flops_gamma(space, block)] * len(space.edges))
    mac = relative_gamma(architecture, target, adaptive="release-mac", cost="mac")
    assert mac.tolist() == [pytest.approx(release_mac_gamma(space))] * 3


# -- topology and batch norms ----------------------------------------------------------------------------


def test_preset() -> None:
    config = release()
    assert not config.space.first_level_lambda
    assert config.space.stage_shortcut
    assert len(space_of_config(config).edges) - 4 == 124
    search = config.search
    assert (search.gamma, search.gamma_control, search.adaptive) == (1e-3, False, "none")
    assert (search.lr, search.pretrain_lr, search.free_bn_scale) == (0.1, 0.05, True)
    assert config.retrain.dropout == 0.4


def test_free_scales_are_those_of_stem_block_outputs_and_head() -> None:
    def trained(net: Supernet) -> set[str]:
        norms = {n for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
        weights = {id(p) for p in net.weights()}
        return {n for n in norms if id(net.get_submodule(n).weight) in weights}

    assert trained(Supernet(SMALL)) == set()
    assert trained(Supernet(SMALL, free_bn_scale=True)) == {
        "stem.1", "stages.0.0.merge_norm", "stages.1.0.merge_norm", "head_norm",
    }  # fmt: skip
    imagenet = SearchSpace(
        levels=1, stages=(1,), channels=4, stem="imagenet", input_shape=(3, 32, 32), first_level_lambda=False
    )
    stem = {n for n in trained(Supernet(imagenet, free_bn_scale=True)) if n.startswith("stem")}
    assert stem == {"stem.0.1", "stem.1.1"}


def test_the_shortcut_convolution_is_in_the_first_block_of_a_stage_and_is_paid_for() -> None:
    space = SearchSpace(levels=1, stages=(2, 1), channels=4, input_shape=(1, 8, 8), stage_shortcut=True)
    net = Supernet(space)
    assert [block.shortcut is not None for block in net.blocks()] == [True, False, True]
    plain = SearchSpace(levels=1, stages=(2, 1), channels=4, input_shape=(1, 8, 8))
    with_shortcut, without = (random_architecture(s, random.Random(0)) for s in (space, plain))
    more = TargetCosts().costs(with_shortcut).params - TargetCosts().costs(without).params
    assert more == (4 * 4 + 4) + (8 * 8 + 8)  # two 1×1 convolutions with the bias of the folded batch norm


def test_level_1_edges_stay_at_one(tmp_path: Path) -> None:
    config = small_release(gamma=5.0, epochs=2)
    space = space_of_config(config)
    search = Search(
        RunDirectory(tmp_path / "run"), config, space, load_data(config), TargetCosts(), budgets=()
    )
    search.run_directory.create(config)
    with pytest.raises(UserError, match="collapsed"):  # γ = 5 prunes everything else
        search.run(resume=False)
    fixed = search.parts.supernet.fixed
    assert [edge for edge, is_fixed in zip(space.edges, fixed, strict=True) if is_fixed] == [
        (0, 1), (0, 2), (0, 3), (0, 4),
    ]  # fmt: skip
    net = Supernet(space)
    net.lam.data[:, fixed] = 0.0
    assert all((0 in block.inputs[n - 1]) for block in net.blocks_of(net.lam) for n in (1, 2, 3, 4))


# -- schedule ---------------------------------------------------------------------------------------------


def test_pretraining_has_its_own_learning_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dsonas_hw.search.team as team

    seen: list[float] = []
    step = team.weight_step

    def spy(net: Any, optimizer: Any, *rest: Any) -> Any:
        seen.append(optimizer.param_groups[0]["lr"])
        return step(net, optimizer, *rest)

    monkeypatch.setattr(team, "weight_step", spy)
    config = small_release()
    search = Search(
        RunDirectory(tmp_path / "run"), config, space_of_config(config), load_data(config), TargetCosts(),
        budgets=(),
    )  # fmt: skip
    search.run_directory.create(config)
    search.run(resume=False)
    # 128 images for W in batches of 32: 4 steps an epoch.
    assert seen == [0.05] * 4 + [0.1] * 4
