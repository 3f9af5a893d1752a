"""What a request got wrong, as a sentence with status 400: one way for all our own routes.

Routes name the types of what they take, and FastAPI holds requests against them. Nothing of a
request is looked at before that, so what does not fit can go wrong nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict

from mom_core.errors import MomError

_SHOWN_CHARACTERS = 80


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character") from None
    return text


# JSON can hold halves of characters, which nothing after it can write.
Text = Annotated[str, AfterValidator(_whole)]


class Wanted(BaseModel):
    """A JSON object as the body of a request: these fields with these types, and no others."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Route(APIRoute):
    """A route that refuses with a sentence what does not fit its types, or what it cannot do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, with refusals as answers with status 400."""
        handle = super().get_route_handler()

        async def handle_or_refuse(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as fault:
                raise HTTPException(400, _sentence(fault)) from fault
            except MomError as fault:
                raise HTTPException(400, str(fault)) from fault

        return handle_or_refuse


def _sentence(fault: RequestValidationError) -> str:
    """The first thing that is wrong, where it is, and what to do."""
    first = fault.errors()[0]
    if first["type"] == "json_invalid":
        return "The request cannot be understood: it is no JSON. Reload the page and try again."
    # Its first name is where FastAPI looked: body, path or query.
    where = ".".join(str(name) for name in first["loc"])[:_SHOWN_CHARACTERS]
    # Names of a person's own making may hold halves of characters, which no answer can.
    where = where.encode(errors="replace").decode()
    what = first["msg"].removeprefix("Value error, ")
    return f"The request cannot be understood: {where}: {what}. Reload the page and try again."
