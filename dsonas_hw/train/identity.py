"""Which network weights and files belong to; needs no torch."""

from __future__ import annotations

from typing import Any, Protocol

from dsonas_hw.device.fingerprint import short_hash


class Written(Protocol):
    """An architecture of a space, or a hand-made network."""

    def to_json(self) -> dict[str, Any]:
        """Return what makes it what it is."""
        ...


def architecture_hash(architecture: Written) -> str:
    """Return a hash: equal for equal networks (space, blocks and width; or family, variant and width)."""
    return short_hash(architecture.to_json())
