"""The option --device of benchmarks that train."""

from __future__ import annotations

import argparse

import torch

from dsonas_hw.errors import UserError
from dsonas_hw.train.loop import resolve_train_device


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--device cpu|cuda|cuda:N``; a device that is not here is refused as argparse refuses a value."""
    parser.add_argument("--device", type=_device, default="cpu", help="where it runs: cpu, cuda or cuda:N")


def _device(name: str) -> torch.device:
    try:
        return resolve_train_device(name)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).partition(";")[0]) from None
