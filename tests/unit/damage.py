"""Damage to files, for tests of what survives it."""

from __future__ import annotations

import random
from pathlib import Path


def damage(path: Path, random_state: random.Random) -> None:
    """Flips a bit, or cuts the file, or makes it longer, or takes it away."""
    data = bytearray(path.read_bytes())
    match random_state.randrange(6):
        case 0:
            path.unlink()
            return
        case 1:
            data = data[: random_state.randrange(len(data))]
        case 2:
            data += b"\0"
        case _:
            place = random_state.randrange(len(data))
            data[place] ^= 1 << random_state.randrange(8)
    path.write_bytes(data)
