"""A run's network as PyTorch users expect one, and the way back for one that was trained on elsewhere.

weights.npz + preprocessing.json ─▶ load_network ─▶ fine-tune ─▶ save_network ─▶ export, validate
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsonas_hw.errors import RunError, UserError, command_line
from dsonas_hw.files import write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import load_architecture

if TYPE_CHECKING:
    from torch import nn

    from dsonas_hw.train.network import TrainedNetwork


def load_network(run: Path) -> TrainedNetwork:
    """See `dsonas_hw.load_network`."""
    from dsonas_hw.train.network import TrainedNetwork
    from dsonas_hw.train.preprocess import PREPROCESSING_NAME, load_preprocessing
    from dsonas_hw.train.weights import WEIGHTS_NAME, load_weights

    directory = RunDirectory(run)
    directory.load_config()  # else it is no run
    architecture, _ = load_architecture(directory)
    arrays = load_weights(run / WEIGHTS_NAME, architecture)
    preprocess, class_names = load_preprocessing(run / PREPROCESSING_NAME)
    network = TrainedNetwork(architecture, preprocess=preprocess, class_names=class_names)
    network.load_named_arrays(arrays)
    return network.eval()


def save_network(run: Path, network: nn.Module) -> None:
    """See `dsonas_hw.save_network`."""
    from dsonas_hw.train.identity import architecture_hash
    from dsonas_hw.train.network import DerivedNetwork
    from dsonas_hw.train.retrain import RESULT_NAME, forget_outcome
    from dsonas_hw.train.weights import WEIGHTS_NAME, save_weights

    directory = RunDirectory(run)
    directory.load_config()
    architecture, _ = load_architecture(directory)
    if not isinstance(network, DerivedNetwork):
        raise UserError(
            f"save_network takes a network of load_network, not {type(network).__name__}; of a wrapped one "
            "give what is inside (network.module, network._orig_mod)"
        )
    if network.architecture != architecture:
        raise RunError(f"the network is of another architecture than {run}; save it to the run it came from")
    arrays = {name: array.astype(np.float32) for name, array in network.named_arrays().items()}
    wanted = DerivedNetwork(architecture).named_arrays()
    for name, array in wanted.items():
        if name not in arrays or arrays[name].shape != array.shape:
            raise RunError(
                f"the network is of another architecture than {run} ({name} does not fit); a layer of "
                f"another size, such as a new head, needs a search of its own"
            )
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"the weights of the network are not finite ({name}); nothing was saved")
    with directory.lock():
        if not (run / WEIGHTS_NAME).is_file():
            raise RunError(f"{run} has not been trained; run: {command_line('retrain', run)}")
        forget_outcome(directory)
        save_weights(run / WEIGHTS_NAME, architecture, arrays)
        write_json(run / RESULT_NAME, {"architecture": architecture_hash(architecture), "saved": True})
