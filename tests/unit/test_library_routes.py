"""The library as the page sees it: entries, what they take of the quota, names, forgetting."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.library.library import Library
from app.library.reuse import Reuse
from app.server.routes.library import library_routes
from tests.equivalence.models import make_prompt
from tests.unit.answers import answer


def ask(library: Library | None, method: str, path: str, **others: Any) -> Any:
    """One request to the routes, without a network."""
    import fastapi
    import httpx

    app = fastapi.FastAPI()
    workspace: Any = SimpleNamespace(library=library)
    app.include_router(library_routes(workspace))

    async def send() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.request(method, path, **others)

    return asyncio.run(send())


@pytest.fixture
def library(tmp_path: Path) -> Library:
    reuse = Reuse(Library(tmp_path))
    answer(reuse, make_prompt(200))
    reuse.close()
    return reuse.library


def test_the_page_shows_what_is_kept_and_the_quota(library: Library) -> None:
    library.set_quota(2**30)
    told = ask(library, "GET", "/library").json()
    (entry,) = told["entries"]
    assert (entry["name"], entry["is_bad"]) == ("a.pdf", False)
    assert "200 tokens" in entry["facts"]
    assert "of 1.0 GiB used" in told["text"]


def test_an_entry_is_renamed_and_forgotten_from_the_page(library: Library) -> None:
    (kept,) = library.list()
    assert ask(library, "PUT", f"/library/{kept.id}/name", json="The lease").status_code == 204
    assert [entry.name for entry in library.list()] == ["The lease"]
    refused = ask(library, "PUT", f"/library/{kept.id}/name", json="")
    assert refused.status_code == 400
    assert "it needs 1 to 120" in refused.json()["detail"]
    assert ask(library, "DELETE", f"/library/{kept.id}").status_code == 204
    assert not kept.folder.exists()
    again = ask(library, "DELETE", f"/library/{kept.id}")
    assert again.status_code == 400
    assert "nothing yet" in again.json()["detail"]


def test_a_damaged_entry_is_shown_with_its_reason(library: Library) -> None:
    (kept,) = library.list()
    next(kept.folder.glob("layer-000*")).write_bytes(b"")
    (entry,) = ask(library, "GET", "/library").json()["entries"]
    assert entry["is_bad"]
    assert "is damaged, so it is not used" in entry["facts"]


def test_without_a_library_the_page_says_that_nothing_is_kept() -> None:
    told = ask(None, "GET", "/library").json()
    assert (told["entries"], "--no-save" in told["text"]) == ([], True)
    assert ask(None, "DELETE", "/library/x").status_code == 400


def test_a_library_that_vanishes_while_the_page_is_open_is_a_sentence(library: Library) -> None:
    shutil.rmtree(library.folder)
    told = ask(library, "GET", "/library")
    assert told.status_code == 200
    assert told.json()["entries"] == []
    assert f"The library folder {library.folder} is gone" in told.json()["text"]
    refused = ask(library, "PUT", "/library/quota", json={"size": "1GiB"})
    assert refused.status_code == 400
    assert "restart mom-chat" in refused.json()["detail"]
