"""The fast supernet is the plain one, edge by edge; removing what is dead changes nothing."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dsonas_hw.architecture.architecture import Block, close_block, complete_block
from dsonas_hw.architecture.graph import build_graph
from dsonas_hw.architecture.sample import random_block
from dsonas_hw.search.supernet import Supernet, SupernetBlock
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.network import DerivedNetwork

SMALL: dict[str, Any] = {"levels": 3, "stages": (1, 2), "channels": 4, "input_shape": (3, 9, 8)}
SPACES = {
    "share": SearchSpace(**SMALL),
    "full": SearchSpace(**SMALL, share=False),
    "release": SearchSpace(**SMALL, share=False, first_level_lambda=False, stage_shortcut=True),
    "imagenet stem": SearchSpace(**{**SMALL, "input_shape": (3, 33, 32)}, stem="imagenet"),
    "strided stem": SearchSpace(**SMALL, stem="strided"),
    "every operation": SearchSpace(
        levels=2, operations=tuple(OPERATIONS), stages=(1, 1), channels=4, input_shape=(1, 8, 8), share=False
    ),
}
BOTH_MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
EVERY_SPACE = pytest.mark.parametrize("name", SPACES)


def supernet(space: SearchSpace, *, seed: int = 0) -> Supernet:
    """A supernet whose batch norms are anything but the identity."""
    torch.manual_seed(seed)
    net = Supernet(space)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.bias.data.normal_(0.3, 0.3)
            module.running_mean.normal_(0.0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return net


def images_of(space: SearchSpace, *, batch: int = 3) -> Tensor:
    return torch.randn(batch, *space.input_shape, generator=torch.Generator().manual_seed(7))


def plain_forward(net: Supernet, images: Tensor) -> Tensor:
    """Eq. 1-4, one edge at a time."""
    x = net.stem(images)
    number = 0
    for stage, blocks in enumerate(net.stages):
        if stage:
            x = net.reductions[stage - 1](x)
        for block in blocks:  # type: ignore[attr-defined]
            x = plain_block(net, block, x, 0 if net.space.share else number)
            number += 1
    logits: Tensor = net.classifier(F.relu(net.head_norm(x)).mean((2, 3)))
    return logits


def plain_block(net: Supernet, block: SupernetBlock, x: Tensor, row: int) -> Tensor:
    space, lam = net.space, net.lam[row]
    position = {edge: index for index, edge in enumerate(space.edges)}

    def weight(source: int, target: int) -> Tensor:
        first_level = source == 0 and target <= len(space.operations)
        if first_level and not space.first_level_lambda:
            return torch.ones(())
        return lam[position[source, target]]

    shortcut = x if block.shortcut is None else block.shortcut(x)
    outputs = {0: x}
    merged: Tensor | None = None
    for node in range(1, space.num_nodes + 1):
        if str(node) not in block.operations:
            continue
        z = torch.zeros_like(x)
        for source in space.sources(node):
            if source in outputs:
                z = z + weight(source, node) * outputs[source]
        outputs[node] = F.relu(block.operations[str(node)](z))
        kernel = block.merge[str(node)].T[:, :, None, None]
        branch = F.conv2d(outputs[node], weight(node, space.num_nodes + 1) * kernel)
        merged = branch if merged is None else merged + branch
    if merged is None:
        return shortcut
    return F.relu(block.merge_norm(merged)) + shortcut


def assert_same(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5 * scale)


def random_blocks(space: SearchSpace, seed: int) -> tuple[Block, ...]:
    rng = random.Random(seed)
    return tuple(random_block(space, rng) for _ in range(space.num_lambda_sets))


# -- the same network -----------------------------------------------------------------------------------


@BOTH_MODES
@EVERY_SPACE
def test_forward_is_the_plain_loop(name: str, training: bool) -> None:
    net = supernet(SPACES[name]).train(training)
    images = images_of(net.space)
    for seed in range(3):
        torch.manual_seed(seed)
        net.lam.data.uniform_(0.0, 2.0)
        if seed:
            net.lam.data *= torch.rand_like(net.lam) < 0.6
        expected = plain_forward(copy.deepcopy(net), images)
        assert_same(net(images), expected)


@EVERY_SPACE
def test_gradients_are_those_of_the_plain_loop(name: str) -> None:
    net = supernet(SPACES[name]).train()
    net.lam.data.uniform_(0.1, 1.5)
    plain = copy.deepcopy(net)
    images = images_of(net.space)
    net(images).square().sum().backward()  # type: ignore[no-untyped-call]
    plain_forward(plain, images).square().sum().backward()  # type: ignore[no-untyped-call]
    for (parameter_name, parameter), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert other.grad is not None
            assert_same(parameter.grad, other.grad)


@EVERY_SPACE
def test_forward_is_the_plain_loop_when_pruned(name: str) -> None:
    net = supernet(SPACES[name]).train()
    images = images_of(net.space)
    for seed in range(3):
        pruned = copy.deepcopy(net)
        pruned.lam.data.uniform_(0.2, 1.5)
        pruned.prune(random_blocks(net.space, seed))
        assert_same(pruned(images), plain_forward(copy.deepcopy(pruned), images))


# -- pruning changes nothing ----------------------------------------------------------------------------


def thin_out(net: Supernet, seed: int, *, identities: int = 0) -> tuple[Block, ...]:
    """Zero λ at random, as a search does, and silence what that leaves dead. Returns what is alive."""
    generator = torch.Generator().manual_seed(seed)
    keep = 0.2 + 0.5 * torch.rand(len(net.lam), 1, generator=generator)
    net.lam.data.uniform_(0.2, 1.5, generator=generator)
    net.lam.data *= torch.rand(net.lam.shape, generator=generator) < keep
    net.lam.data[:identities] = 0.0
    blocks = net.blocks_of(net.lam)
    net.silence_dead(blocks)
    return blocks


@BOTH_MODES
@pytest.mark.parametrize(
    ("name", "identities"), [(n, i) for n, s in SPACES.items() for i in ([0] if s.share else [0, 1])]
)
def test_removing_what_is_dead_changes_no_output(name: str, identities: int, training: bool) -> None:
    space = SPACES[name]
    images = images_of(space)
    for seed in range(4):
        net = supernet(space, seed=seed).train(training)
        blocks = thin_out(net, seed, identities=identities)
        assert any(not block.is_identity for block in blocks)
        before = copy.deepcopy(net)(images)
        num_parameters = sum(p.numel() for p in net.weights())
        removed = net.prune(blocks)
        assert removed == num_parameters - sum(p.numel() for p in net.weights())
        assert_same(net(images), before)
        assert net.blocks_of(net.lam) == blocks


def test_a_block_that_died_is_the_identity_at_once() -> None:
    # What its batch norm makes of nothing would stay in the network until it is removed.
    net = supernet(SPACES["full"]).train()
    block = next(iter(net.blocks()))
    x = torch.randn(3, 4, 9, 8)
    net.lam.data[0] = 0.0
    net.silence_dead(net.blocks_of(net.lam))
    assert torch.equal(block(x, net.lam[0]), x)
    # and comes back if a λ grows again
    net.lam.data[0] = 1.0
    net.silence_dead(net.blocks_of(net.lam))
    assert not torch.equal(block(x, net.lam[0]), x)


def test_a_node_that_nothing_feeds_is_silent() -> None:
    space = SPACES["share"]
    net = supernet(space)
    dead, output = space.node(1, 0), space.num_nodes + 1
    into_dead = torch.tensor([t == dead for _, t in space.edges])
    net.lam.data[:, into_dead] = 0.0
    blocks = net.blocks_of(net.lam)
    net.silence_dead(blocks)
    out_of_dead = torch.tensor([s == dead for s, _ in space.edges])
    assert not net.lam[:, out_of_dead | into_dead].any()
    assert bool((net.lam[:, ~(out_of_dead | into_dead)] == 1).all())
    assert dead not in blocks[0].nodes
    assert output - 1 in blocks[0].nodes


def test_pruning_keeps_the_rest_of_the_optimizer_and_forgets_what_went() -> None:
    space = SPACES["full"]
    net = supernet(space).train()
    optimizer = torch.optim.SGD(net.weights(), lr=0.01, momentum=0.9)
    for _ in range(2):
        net(images_of(space)).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    names = {id(p): n for n, p in net.named_parameters()}
    before = {names[id(p)]: s["momentum_buffer"].clone() for p, s in optimizer.state.items()}
    blocks = thin_out(net, 3)
    net.prune(blocks, optimizer)
    left = {n: p for n, p in net.named_parameters() if n != "lam" and p.requires_grad}
    in_group = optimizer.param_groups[0]["params"]
    assert {id(p) for p in in_group} == {id(p) for p in left.values()} == {id(p) for p in optimizer.state}
    assert 0 < len(left) < len(before)
    for parameter_name, parameter in left.items():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], before[parameter_name])
    for number, block in enumerate(net.blocks()):
        alive = {str(n) for n in blocks[number].nodes}
        assert set(block.operations) == set(block.merge) == alive
        assert {n.split(".")[1] for n, _ in block.named_parameters() if n.startswith("operations")} <= alive


def test_pruning_in_steps_is_pruning_once() -> None:
    space = SPACES["share"]
    first, second = supernet(space), supernet(space)
    dense, sparse = close_block(space, space.edges[:-3]), random_block(space, random.Random(2))
    edges = {(s, t) for t, ss in enumerate(sparse.inputs, start=1) for s in ss}
    edges |= {(s, space.num_nodes + 1) for s in sparse.output}
    sparse = close_block(space, edges & set(space.edges[:-3]))
    assert not sparse.is_identity
    for blocks in (dense, sparse):
        first.prune((blocks,))
    second.prune((sparse,))
    assert first.state_dict().keys() == second.state_dict().keys()
    assert_same(first(images_of(space)), second(images_of(space)))
    assert first.prune((sparse,)) == 0


def test_a_pruned_supernet_is_smaller_and_its_state_fits_one_pruned_alike() -> None:
    space = SPACES["full"]
    net = supernet(space)
    blocks = random_blocks(space, 1)
    net.prune(blocks)
    other = Supernet(space)
    other.prune(blocks)
    other.load_state_dict(net.state_dict())
    images = images_of(space)
    assert torch.equal(net.eval()(images), other.eval()(images))


# -- λ --------------------------------------------------------------------------------------------------


def test_a_cifar_block_has_124_lambdas_in_the_release_and_128_in_the_paper() -> None:
    paper = SearchSpace(stages=(1,), channels=4)
    release = SearchSpace(stages=(1,), channels=4, first_level_lambda=False)
    searched = [~net.fixed.expand(net.lam.shape) for net in (Supernet(paper), Supernet(release))]
    assert [int(mask.sum()) for mask in searched] == [128, 124]
    assert Supernet(SearchSpace(stages=(2, 2), channels=4, share=False)).lam.shape == (4, 128)
    assert bool((Supernet(paper).lam == 1).all())


def test_edges_without_a_lambda_stay_one_while_they_are_alive() -> None:
    space = SPACES["release"]
    net = supernet(space)
    net.lam.data[:, net.fixed] = 0.25  # whatever an optimizer makes of them
    net.silence_dead(net.blocks_of(net.lam))
    assert bool((net.lam[:, net.fixed] == 1).all())
    first = space.edges.index((0, 1))
    net.lam.data[:, [s == 1 for s, _ in space.edges]] = 0.0
    blocks = net.blocks_of(net.lam)
    net.silence_dead(blocks)
    assert 1 not in blocks[0].nodes
    assert not net.lam[:, first].any()


def test_what_is_alive_is_read_off_the_nonzero_lambdas() -> None:
    net = supernet(SPACES["full"])
    assert net.blocks_of(net.lam) == (complete_block(net.space),) * 3
    blocks = random_blocks(net.space, 5)
    net.silence_dead(blocks)
    assert net.blocks_of(net.lam) == blocks
    architecture = net.architecture(blocks, width=12)
    assert architecture.blocks == blocks
    assert architecture.width == 12
    shared = supernet(SPACES["share"])
    assert shared.architecture(blocks[:1], width=4).blocks == blocks[:1] * 3


def test_batch_norm_scales_are_fixed_to_one() -> None:
    net = Supernet(SPACES["every operation"])
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    trained = {id(p) for p in net.weights()}
    assert norms
    assert not any(id(norm.weight) in trained for norm in norms)
    assert all(id(norm.bias) in trained for norm in norms)
    assert id(net.lam) not in trained


# -- the derived network --------------------------------------------------------------------------------


def copy_weights(net: Supernet, derived: DerivedNetwork) -> None:
    """Give the derived network the supernet's weights, node by node."""
    targets = {
        node.name: derived.layers[node.name.replace(".", "/")] for node in build_graph(derived.architecture)
    }

    def conv(name: str, source: nn.Module) -> None:
        targets[name].main.weight.data.copy_(source[0].weight)  # type: ignore[index, union-attr, operator]
        norm(name, source[1])  # type: ignore[index]

    def norm(name: str, source: nn.Module) -> None:
        targets[name].bn.load_state_dict(source.state_dict())  # type: ignore[union-attr]

    space, number = net.space, 0
    if space.stem != "imagenet":
        conv("stem.conv", net.stem)
    else:
        for index in (0, 1):
            conv(f"stem.conv{index + 1}", net.stem[index])  # type: ignore[index]
    for index, reduction in enumerate(net.reductions, start=1):
        conv(f"reduction{index}.conv1", reduction.one)  # type: ignore[arg-type]
        conv(f"reduction{index}.conv3", reduction.three)  # type: ignore[arg-type]
    for stage, blocks in enumerate(net.stages, start=1):
        for index, block in enumerate(blocks, start=1):  # type: ignore[arg-type, var-annotated]
            prefix = f"stage{stage}.block{index}"
            alive = derived.architecture.blocks[number]
            for node in alive.nodes:
                operation = space.operation_of(node)
                kinds = [layer.kind for layer in operation.layers]
                modules = zip(operation.layers, block.operations[str(node)], strict=False)
                for step, (layer, module) in enumerate(modules, start=1):
                    suffix = step if kinds.count(layer.kind) > 1 else ""
                    name = f"{prefix}.{space.level_of(node) + 1}_{operation.name}.{layer.kind}{suffix}"
                    if layer.activated:
                        conv(name, module)
                    elif isinstance(module, nn.Conv2d):
                        targets[name].main.weight.data.copy_(module.weight)  # type: ignore[union-attr, operator]
                if operation.layers:
                    norm(name, block.operations[str(node)][-1])
            if block.shortcut is not None:
                conv(f"{prefix}.shortcut", block.shortcut)
            if alive.output:
                merge = torch.cat([block.merge[str(n)].T for n in alive.output], dim=1)
                targets[f"{prefix}.merge"].main.weight.data.copy_(merge[:, :, None, None])  # type: ignore[union-attr, operator]
                norm(f"{prefix}.merge", block.merge_norm)
            number += 1
    norm("head.bn", net.head_norm)
    targets["head.fc"].main.load_state_dict(net.classifier.state_dict())  # type: ignore[union-attr]


@BOTH_MODES
@EVERY_SPACE
def test_with_lambda_one_the_supernet_is_the_derived_network(name: str, training: bool) -> None:
    space = SPACES[name]
    for seed in range(3):
        net = supernet(space, seed=seed).train(training)
        blocks = thin_out(net, seed, identities=0 if space.share else 1)
        net.lam.data = (net.lam.data > 0).float()
        derived = DerivedNetwork(net.architecture(blocks, width=space.channels)).train(training)
        copy_weights(net, derived)
        images = images_of(space)
        assert_same(net(images), derived(images))


def test_output_weights_can_take_over_a_lambda() -> None:
    # λ/1000 with 1000·W is the same function: docs/method.md, and docs/results.md for how little it matters.
    torch.manual_seed(0)
    space = SearchSpace(**SMALL, share=False)
    net = Supernet(space).train()
    images = torch.randn(4, *space.input_shape)
    with torch.no_grad():
        before = net(images)
        next(iter(net.blocks())).merge["1"].mul_(1000)
        scaled = net(images)
        net.lam[0, space.edges.index((1, space.num_nodes + 1))] /= 1000
        both = net(images)
    assert not torch.allclose(scaled, before, rtol=1e-3, atol=1e-3)
    assert torch.allclose(both, before, rtol=1e-3, atol=1e-3)


def test_output_weights_are_drawn_as_those_of_one_convolution() -> None:
    torch.manual_seed(0)
    net = Supernet(SearchSpace(stages=(1,), channels=48))
    # C·C weights of variance 2 / (16·C): a norm of (2·C/16)^½ = 6^½ at 48 channels.
    norms = [float(w.detach().norm()) for w in next(iter(net.blocks())).merge.values()]
    assert sum(norms) / len(norms) == pytest.approx(6**0.5, rel=0.02)
