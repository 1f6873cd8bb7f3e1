"""What the speed benchmark compares: networks of the same function, times of an exact clock."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from benchmarks import search_speed
from benchmarks.plain_networks import DartsNetwork, EdgeNetwork, Kind
from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace

SPACE = SearchSpace(levels=3, stages=(1, 1), channels=8, input_shape=(3, 8, 8))


def copy_weights(net: Supernet, other: EdgeNetwork) -> None:
    other.stem.load_state_dict(net.stem.state_dict())
    other.head_norm.load_state_dict(net.head_norm.state_dict())
    other.classifier.load_state_dict(net.classifier.state_dict())
    for pair, reduction in zip(other.reductions.values(), net.reductions, strict=True):
        pair[0].load_state_dict(reduction.one.state_dict())  # type: ignore[index, union-attr]
        pair[1].load_state_dict(reduction.three.state_dict())  # type: ignore[index, union-attr]
    for target, block in zip(other.blocks, net.blocks(), strict=True):
        for sequence, operation in zip(target.operations, block.operations.values(), strict=True):  # type: ignore[arg-type]
            sequence[:-1].load_state_dict(operation.state_dict())
        merge = torch.cat([weight.T for weight in block.merge.values()], dim=1)
        target.merge.weight.data.copy_(merge[:, :, None, None])  # type: ignore[union-attr]
        target.merge_norm.load_state_dict(block.merge_norm.state_dict())  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["sums", "loop"])
def test_the_networks_compared_with_are_the_supernet(kind: Kind) -> None:
    torch.manual_seed(0)
    net, other = Supernet(SPACE).train(), EdgeNetwork(SPACE, kind).train()
    copy_weights(net, other)
    if kind == "loop":
        net.lam.data.uniform_(0.5, 1.5)
        other.lam.data.copy_(net.lam[0])
    images = torch.randn(2, *SPACE.input_shape)
    labels = torch.tensor([1, 2])
    torch.testing.assert_close(net(images), other(images), rtol=1e-4, atol=1e-4)
    gradients = []
    for network in (net, other):
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        gradients.append(network.stem[0].weight.grad)  # type: ignore[index]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in net.weights()) == sum(p.numel() for p in other.weights())


def test_darts_has_14_edges_of_eight_operations_in_every_cell() -> None:
    space = SearchSpace(stages=(2, 2, 2), channels=8, input_shape=(3, 16, 16))
    net = DartsNetwork(space)
    assert net.lam.shape == (2, 14, 8)
    assert [len(cell.edges) for cell in net.cells] == [14] * 6  # type: ignore[arg-type]
    assert net.reduces == [False, False, True, False, True, False]
    logits = net(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 10)
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in net.weights())


@pytest.mark.parametrize("share", [True, False])
def test_pruning_leaves_that_share_of_the_flops(share: bool) -> None:
    space = SearchSpace(stages=(2, 2), channels=8, input_shape=(3, 16, 16), share=share)
    blocks = search_speed.prune_at_random(space, 0.5, seed=0)
    per_block = blocks * (space.num_blocks if share else 1)
    left = TargetCosts().costs(Architecture(space=space, blocks=per_block, width=space.channels)).flops
    complete = TargetCosts().costs(complete_architecture(space)).flops
    assert 0.4 < left / complete <= 0.5


def test_the_smallest_time_of_each_counts_and_the_first_round_does_not() -> None:
    order: list[str] = []
    durations = {"a": iter([1.0, 5.0, 3.0]), "b": iter([0.1, 2.0, 7.0])}
    now = [0.0]

    def step(name: str) -> None:
        order.append(name)
        now[0] += next(durations[name])

    steps = {name: lambda name=name: step(name) for name in durations}
    found = search_speed.measure_interleaved(steps, rounds=2, clock_s=lambda: now[0])
    assert found == {"a": 3.0, "b": 2.0}
    assert order == ["a", "b"] * 3


def test_a_run_prints_every_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--set", "stages=[1]", "--set", "channels=8", "--batch-size", "2", "--rounds", "1", "--json"]
    code = search_speed.main(["cifar10", *small])
    shown = json.loads(capsys.readouterr().out)
    assert code == (0 if shown["holds"] else 1)
    assert set(shown["seconds"]) == {"complete", "plain sums", "per-edge loop", "pruned", "λ step", "darts"}
    assert shown["relative_to_plain"]["plain sums"] == 1.0
    assert all(ratio > 0 for ratio in shown["relative_to_plain"].values())


def test_a_device_that_is_not_here_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        search_speed.main(["--device", "cuda:97"])
    assert stop.value.code == 2
    assert "error: argument --device: cannot train on 'cuda:97': torch sees" in capsys.readouterr().err
