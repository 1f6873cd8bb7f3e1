"""Hardware-aware neural architecture search by direct sparse optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from dsonas_hw.train.network import TrainedNetwork

__version__ = "0.1.0"


def load_network(run: str | Path) -> TrainedNetwork:
    """Return the trained network of a run as a `torch.nn.Module`, in eval mode, on the CPU, in fp32.

    run: the run directory.

    It maps images (N, C, H, W), float32, to logits (N, classes). `network.preprocess` is its transform, as of
    torchvision: a PIL image, or a uint8 tensor (C, H, W) or (N, C, H, W), to what the network takes;
    `network.class_names` are the names of the logits.

        network = load_network("runs/digits-1")
        logits = network(network.preprocess(Image.open("seven.png")).unsqueeze(0))
        network.class_names[logits.argmax()]

    Raises:
        RunError: no run, nothing trained in it, or damaged files.
    """
    from dsonas_hw.deploy.trained_network import load_network as load

    return load(Path(run))


def save_network(run: str | Path, network: nn.Module) -> None:
    """Put a network that was trained further, elsewhere, into the run it came from.

    run: the run directory.
    network: what `load_network` returned; on any device, in any floating-point type.

    The weights replace those of the run; the exported model, the verdict, the test accuracy and the
    checkpoints of the training belonged to the old weights and are removed. `dsonas-hw export` and
    `dsonas-hw validate` make them anew.

    Raises:
        RunError: no run, nothing trained in it, or a network of another architecture.
        UserError: another kind of module, or weights that are not finite.
    """
    from dsonas_hw.deploy.trained_network import save_network as save

    save(Path(run), network)
