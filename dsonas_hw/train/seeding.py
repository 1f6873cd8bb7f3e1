"""Random streams that are named, not advanced: the same name gives the same numbers, whatever ran before."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*name: str | int) -> int:
    """Return a 63-bit seed from a name such as ("order", seed, epoch); other names give unrelated seeds."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded_generator(*name: str | int) -> torch.Generator:
    """Return a CPU generator of its own for that name; torch's global generator is not touched."""
    return torch.Generator().manual_seed(derive_seed(*name))
