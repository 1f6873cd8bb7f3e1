"""Closing blocks, reading architectures back, refusing what is none."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsonas_hw.architecture.architecture import (
    Architecture,
    Block,
    architecture_from_json,
    close_block,
    complete_architecture,
    complete_block,
    identity_architecture,
    node_name,
)
from dsonas_hw.architecture.sample import random_architecture, random_block
from dsonas_hw.errors import UserError
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

SPACE = SearchSpace(levels=3, operations=("sep3", "max3"), stages=(1, 2), channels=8, input_shape=(3, 8, 8))
FULL = SearchSpace(**{**SPACE.__dict__, "share": False})
OUTPUT = SPACE.num_nodes + 1
edge_sets = st.sets(st.sampled_from(SPACE.edges))


def edges_of(block: Block) -> set[tuple[int, int]]:
    inner = {(s, t) for t, sources in enumerate(block.inputs, start=1) for s in sources}
    return inner | {(s, OUTPUT) for s in block.output}


def edges_on_paths(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Every edge of every path from input to output, path by path."""
    found: set[tuple[int, int]] = set()

    def walk(node: int, path: list[tuple[int, int]]) -> None:
        if node == OUTPUT:
            found.update(path)
        for source, target in edges:
            if source == node:
                walk(target, [*path, (source, target)])

    walk(INPUT_NODE, [])
    return found


# -- close_block ----------------------------------------------------------------------------------------


@given(edge_sets)
@settings(max_examples=60, deadline=None)
def test_exactly_the_edges_on_paths_are_kept(edges: set[tuple[int, int]]) -> None:
    assert edges_of(close_block(SPACE, edges)) == edges_on_paths(edges)


@given(edge_sets)
def test_closing_twice_is_closing_once(edges: set[tuple[int, int]]) -> None:
    block = close_block(SPACE, edges)
    assert close_block(SPACE, edges_of(block)) == block
    assert block.num_edges == len(edges_of(block))
    assert block.is_identity == (block.num_edges == 0) == (not block.nodes)


@given(edge_sets, edge_sets)
def test_fewer_edges_never_keep_more(edges: set[tuple[int, int]], others: set[tuple[int, int]]) -> None:
    assert edges_of(close_block(SPACE, edges & others)) <= edges_of(close_block(SPACE, edges))


@given(edge_sets, st.randoms(use_true_random=False))
def test_the_order_of_the_edges_does_not_matter(edges: set[tuple[int, int]], rng: random.Random) -> None:
    shuffled = sorted(edges)
    rng.shuffle(shuffled)
    assert close_block(SPACE, shuffled) == close_block(SPACE, sorted(edges))


@pytest.mark.parametrize(
    "edges",
    [
        [(1, 3), (3, OUTPUT)],  # nothing feeds node 1
        [(0, 1), (1, 3)],  # nothing reads node 3
        [(0, 1), (3, OUTPUT)],  # no connection between them
        [],
    ],
)
def test_open_ends_are_dead(edges: list[tuple[int, int]]) -> None:
    assert close_block(SPACE, edges).is_identity


def test_a_complete_block_loses_nothing() -> None:
    block = complete_block(SPACE)
    assert edges_of(block) == set(SPACE.edges)
    assert block.nodes == (1, 2, 3, 4, 5, 6)


# -- architectures --------------------------------------------------------------------------------------


def test_collapse_is_every_block_an_identity() -> None:
    assert identity_architecture(SPACE).is_collapsed
    assert not complete_architecture(SPACE).is_collapsed
    blocks = (*identity_architecture(FULL).blocks[:2], complete_block(FULL))
    assert not Architecture(space=FULL, blocks=blocks, width=8).is_collapsed


def test_blocks_and_width_must_fit_the_space() -> None:
    with pytest.raises(UserError, match="1 blocks given, the space has 3"):
        Architecture(space=SPACE, blocks=(complete_block(SPACE),), width=8)
    with pytest.raises(UserError, match="width must be positive"):
        complete_architecture(SPACE).with_width(0)


@pytest.mark.parametrize("space", [SPACE, FULL])
def test_random_architectures_are_never_collapsed_and_come_back_from_json(space: SearchSpace) -> None:
    seen = set()
    for seed in range(60):
        architecture = random_architecture(space, random.Random(seed), width=12)
        seen.add(architecture.blocks)
        assert not any(block.is_identity for block in architecture.blocks)
        assert architecture.width == 12
        text = json.dumps(architecture.to_json())
        assert architecture_from_json(json.loads(text)) == architecture
    assert len(seen) > 55
    assert random_architecture(space, random.Random(1)) == random_architecture(space, random.Random(1))


def test_random_blocks_are_sparse_and_dense() -> None:
    rng = random.Random(0)
    counts = [random_block(SPACE, rng).num_edges for _ in range(300)]
    assert min(counts) <= 3
    assert max(counts) >= len(SPACE.edges) - 3


def test_json_of_the_extremes() -> None:
    for architecture in (identity_architecture(FULL), complete_architecture(SPACE, width=20)):
        assert architecture_from_json(architecture.to_json()) == architecture


def test_json_reads_like_the_paper() -> None:
    block = close_block(SPACE, [(0, 1), (1, 4), (0, 4), (4, OUTPUT)])
    data = Architecture(space=SPACE, blocks=(block,) * 3, width=8).to_json()
    assert data["blocks"] == [{"1.sep3": ["input"], "2.max3": ["input", "1.sep3"], "output": ["2.max3"]}]
    assert data["width"] == 8
    assert data["space"]["stages"] == [1, 2]
    assert node_name(SPACE, 6) == "3.max3"


def test_files_with_open_ends_are_closed() -> None:
    data = complete_architecture(SPACE).to_json()
    data["blocks"] = [{"1.sep3": ["input"], "3.max3": ["2.sep3"], "output": ["1.sep3", "3.max3"]}]
    block = architecture_from_json(data).blocks[0]
    assert edges_of(block) == {(0, 1), (1, OUTPUT)}


# -- hostile files --------------------------------------------------------------------------------------


def changed(path: str, value: Any) -> Any:
    """A good file with one value replaced, or removed by Ellipsis."""
    data = copy.deepcopy(complete_architecture(FULL).to_json())
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("schema", ...),
        ("width", ...),
        ("width", 0),
        ("width", -4),
        ("width", 8.0),
        ("width", "8"),
        ("width", True),
        ("width", None),
        ("width", 10**9),
        ("space", None),
        ("space", 5),
        ("space.colour", 1),
        ("space.levels", 10**9),
        ("space.levels", 2.5),
        ("space.levels", "3"),
        ("space.levels", 1e400),
        ("space.stages", [10**9]),
        ("space.stages", [1, 2.0]),
        ("space.stages", [1, [2]]),
        ("space.stages", "12"),
        ("space.stages", 3),
        ("space.stages", []),
        ("space.channels", 10**12),
        ("space.channels", float("nan")),
        ("space.operations", "sep3"),
        ("space.operations", ["sep3", "rm -rf"]),
        ("space.operations", [["sep3"], "max3"]),
        ("space.operations", [None]),
        ("space.stem", "mnist"),
        ("space.stem", ["cifar"]),
        ("space.share", "no"),
        ("space.share", 0),
        ("space.input_shape", [3, 8]),
        ("space.input_shape", [3, float("nan"), 8]),
        ("space.input_shape", [3, 1e300, 8]),
        ("space.input_shape", [3, -8, 8]),
        ("space.input_shape", [0, 8, 8]),
        ("space.input_shape", [3, 10**9, 10**9]),
        ("space.num_classes", 10**12),
        ("space.num_classes", None),
        ("space.max_width", -1),
        ("blocks", ...),
        ("blocks", []),
        ("blocks", {}),
        ("blocks", "abc"),
        ("blocks", [None, None, None]),
        ("blocks.0", {"1.sep9": ["input"]}),
        ("blocks.0", {"1.sep3": ["output"]}),
        ("blocks.0", {"1.sep3": ["2.sep3"]}),
        ("blocks.0", {"1.sep3": ["1.sep3"]}),
        ("blocks.0", {"output": ["input"]}),
        ("blocks.0", {"input": ["1.sep3"]}),
        ("blocks.0", {"1.sep3": "input"}),
        ("blocks.0", {"1.sep3": None}),
        ("blocks.0", {"1.sep3": [["input"]]}),
        ("blocks.0", {"1.sep3": [0]}),
    ],
)
def test_hostile_files_are_user_errors(path: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"a\.json is not an architecture: ") as refusal:
        architecture_from_json(changed(path, value), origin="a.json")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [None, [], "x", 3, {}, {"schema": 1}])
def test_what_is_no_object_is_a_user_error(data: object) -> None:
    with pytest.raises(UserError, match="is not an architecture"):
        architecture_from_json(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
places = ["schema", "width", "space", "blocks", "blocks.0", "blocks.1.output"]
places += [f"space.{name}" for name in SPACE.__dataclass_fields__]


@given(st.sampled_from(places), json_values)
@settings(max_examples=300, deadline=None)
def test_any_json_is_an_architecture_or_refused(path: str, value: Any) -> None:
    message = ""
    try:
        architecture = architecture_from_json(changed(path, value))
        assert architecture_from_json(architecture.to_json()) == architecture
    except UserError as refusal:
        message = str(refusal)
    assert "\n" not in message
