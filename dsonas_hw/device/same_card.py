"""Which device file describes a GPU: its name says, unless its cores or its memory say otherwise.

The driver gives some names to two cards: the GeForce RTX 3080 of 12 GB has more SMs than that of 10 GB.
"""

from __future__ import annotations

import re
from typing import Protocol

from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import list_devices, load_device, normalise_name
from dsonas_hw.errors import DeviceError

MEMORY_KEPT, MEMORY_ROUNDED = 0.15, 0.03
"""How much less, for ECC and the driver, and how much more memory than the datasheet's a card may report."""


class Card(Protocol):
    """What is needed of a GPU (`gpu.Gpu`)."""

    index: int
    name: str

    @property
    def num_cores(self) -> int | None: ...

    @property
    def memory_bytes(self) -> int | None: ...


def device_of(card: Card) -> tuple[Device | None, str]:
    """The device file of a GPU (None: no file describes it), and a remark if it is not what its name says."""
    try:
        named = load_device(card.name)
    except DeviceError:
        return None, ""
    if is_described_by(card, named):
        return named, ""
    wanted = normalise_name(card.name)
    for device in list_devices():
        if normalise_name(device.title).startswith(wanted) and is_described_by(card, device):
            return device, ""
    return None, (
        f"GPU {card.index} calls itself {card.name} and is another card than {named.name}: it is "
        f"{describe(card)}, which no device file describes"
    )


def describe(card: Card) -> str:
    """Its name, with the cores and memory that it reports."""
    cores, memory = card.num_cores, card.memory_bytes
    parts = [f"{cores} cores"] if cores else []
    parts += [f"{memory / 2**30:.0f} GiB"] if memory else []
    return f"{card.name} ({', '.join(parts)})"


def is_described_by(card: Card, device: Device) -> bool:
    """Whether cores and memory are the datasheet's, as far as the driver tells them."""
    if card.num_cores is not None and card.num_cores != device.num_sms * device.cuda_cores_per_sm:
        return False
    if card.memory_bytes is None or re.search(r"[0-9] ?GB", card.name):
        return True  # a name with a size in it stands for one card; a file may hold several such names
    return (1 - MEMORY_KEPT) <= card.memory_bytes / device.memory_bytes <= (1 + MEMORY_ROUNDED)
