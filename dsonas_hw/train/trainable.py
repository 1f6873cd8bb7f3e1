"""What can be trained: an architecture of a search space, or a hand-made network; else alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.architecture.lower import lower
from dsonas_hw.config import RetrainConfig
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.hand_made import HandMade, HandMadeNetwork, count_params, hand_made_from_json
from dsonas_hw.train.layers import draw_he_weights
from dsonas_hw.train.network import DerivedNetwork

Trainable = Architecture | HandMade


def build_network(trainable: Trainable, recipe: RetrainConfig) -> DerivedNetwork | HandMadeNetwork:
    """Return the module to train, its weights drawn from torch's present random state as the recipe says.

    With `init: pytorch` a hand-made network's weights are drawn as its family draws them.
    """
    network: DerivedNetwork | HandMadeNetwork
    if isinstance(trainable, HandMade):
        network = HandMadeNetwork(trainable, dropout=recipe.dropout)
    else:
        network = DerivedNetwork(trainable, dropout=recipe.dropout, auxiliary=recipe.aux_weight > 0)
    if recipe.init == "he":
        draw_he_weights(network)
    return network


def trainable_from_json(data: Mapping[str, Any], *, origin: str) -> Trainable:
    """Read what `to_json` of either kind gave.

    Raises:
        UserError: it is neither.
    """
    if "family" in data:
        return hand_made_from_json(data, origin=origin)
    return architecture_from_json(data, origin=origin)


def num_params(trainable: Trainable) -> int:
    """Return the learned weights; of an architecture those that are deployed, its batch norms folded."""
    if isinstance(trainable, HandMade):
        return count_params(trainable)
    return count_costs(lower(trainable)).params


def check_fits(trainable: Trainable, dataset: Dataset) -> None:
    """Refuse images that the network cannot read, or classes that it cannot tell.

    Raises:
        UserError: names both shapes and numbers of classes.
    """
    wanted = trainable if isinstance(trainable, HandMade) else trainable.space
    if dataset.input_shape != wanted.input_shape or dataset.num_classes != wanted.num_classes:
        raise UserError(
            f"the architecture is for images of {'×'.join(map(str, wanted.input_shape))} and "
            f"{wanted.num_classes} classes; {dataset.name} has {'×'.join(map(str, dataset.input_shape))} and "
            f"{dataset.num_classes}"
        )
