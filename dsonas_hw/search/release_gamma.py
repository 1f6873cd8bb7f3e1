"""γ as the authors' public release has it, for comparison with Eq. 9 and Eq. 10 (`cost.gamma`).

    release-flops   in place of Eq. 9: convolutions are counted, not costed, and pools are free
    release-mac     in place of Eq. 10: four constants by the operation that an edge feeds, one for the output

The constants are the mac of the four operations at 16×16×96 relative to sep-conv 5×5. The output's 0.448 is
meant to be that of a 1×1 convolution, which is 0.531: it comes out if its C² weights are counted as C.
"""

from __future__ import annotations

from dsonas_hw.architecture.architecture import Block, complete_block
from dsonas_hw.errors import UserError
from dsonas_hw.space.space import SearchSpace

RELEASE_MAC = {"sep3": 0.986, "sep5": 1.0, "avg3": 0.447, "max3": 0.447}
RELEASE_MAC_OUTPUT = 0.448

_CONVOLUTIONS = ("depthwise", "pointwise", "conv")


def release_flops_gamma(space: SearchSpace, block: Block) -> float:
    """γ of a block for a global γ of 1: (2 + live sep-convs of levels 2-4 + output edges + 1) / 25.

    The 2 are the sep-convs of level 1, whose edges carry no λ in the release and so never die.
    """
    complete = complete_block(space)
    return _count(space, block) / _count(space, complete)


def _count(space: SearchSpace, block: Block) -> int:
    convolutions = [
        node
        for node in range(1, space.num_nodes + 1)
        if any(layer.kind in _CONVOLUTIONS for layer in space.operation_of(node).layers)
    ]
    live = [node for node in convolutions if space.level_of(node) == 0 or block.inputs[node - 1]]
    return len(live) + len(block.output) + 1


def release_mac_gamma(space: SearchSpace) -> list[float]:
    """γ of every edge for a global γ of 1, in the order of `SearchSpace.edges`.

    Raises:
        UserError: the space has another operation than the release's four.
    """
    if others := [name for name in space.operations if name not in RELEASE_MAC]:
        raise UserError(
            f"search.adaptive=release-mac knows {', '.join(RELEASE_MAC)} only, not {', '.join(others)}; "
            "take search.adaptive=operation, which costs any operation"
        )
    output = space.num_nodes + 1
    return [
        RELEASE_MAC_OUTPUT if target == output else RELEASE_MAC[space.operation_of(target).name]
        for _, target in space.edges
    ]
