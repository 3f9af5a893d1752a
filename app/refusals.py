"""What a request got wrong, as a sentence with status 400."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fastapi import HTTPException

from mom_core.errors import MomError


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What a person did wrong is a sentence; anything else that is malformed is a refusal too."""
    try:
        yield
    except MomError as fault:
        raise HTTPException(400, str(fault)) from fault
    except (KeyError, TypeError, ValueError) as fault:
        raise HTTPException(400, f"The request cannot be understood: {fault}.") from fault
