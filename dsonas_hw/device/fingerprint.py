"""Short hashes that say whether two descriptions are of the same thing."""

from __future__ import annotations

import hashlib
import json


def short_hash(*parts: object) -> str:
    """The first 16 hex digits of the sha256 of the parts' JSON; equal parts, equal hash."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
