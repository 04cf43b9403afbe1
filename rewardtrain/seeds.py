"""Seeds that can be worked out again from what is stored. No torch here."""

from __future__ import annotations

import hashlib


def stable_seed(*parts: object) -> int:
    """A seed from 0 to 2**63 - 1 that is the same in every process and on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def candidate_seed(request_id: object, index: int, draw: int) -> int:
    """The seed of one candidate: the `draw`-th attempt at the `index`-th reply of a generation request."""
    return stable_seed("candidate", request_id, index, draw)
