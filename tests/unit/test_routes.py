"""Our routes: uploads with their paths, choices, and refusals with a sentence."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.server.routes.chats import chat_routes
from app.server.routes.documents import document_routes
from app.server.routes.library import library_routes
from app.server.routes.refusals import Route
from app.server.routes.router import routes
from tests.documents import make
from tests.documents.bodies import body
from tests.unit.words import Words

BATCH = "b" * 32


class NoModel:
    """As much of a workspace as the routes need."""

    def __init__(self, folder: Path) -> None:
        from app.workspace.documents import DocumentList

        self.folder = folder
        self.documents = DocumentList(folder, lambda: None)
        builder: Any = Words()
        self.documents.use(builder)
        self.configured: dict[str, Any] = {}

    def configure(self, **changes: Any) -> None:
        self.configured |= changes


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[NoModel]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    workspace = NoModel(folder)
    yield workspace
    workspace.documents.close()


@pytest.fixture
def client(workspace: Any) -> Any:
    import fastapi
    import httpx

    app = fastapi.FastAPI()
    app.include_router(routes(workspace, lambda: True))

    class Client:
        """Asks the app itself, without a network."""

        def __call__(self, method: str, path: str, **others: Any) -> Any:
            import asyncio

            async def send() -> Any:
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                    return await http.request(method, path, **others)

            return asyncio.run(send())

    return Client()


def settle(workspace: NoModel) -> None:
    end = time.monotonic() + 300
    while workspace.documents.is_preparing:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_folder_keeps_its_paths_and_one_odd_name_stops_no_other(
    client: Any, workspace: NoModel
) -> None:
    for path in ("p/src/a.py", "p/src/b\\c.py", "p/README.md"):
        found = client("PUT", f"/uploads/{BATCH}", params={"path": path}, content=b"x = 1\n")
        assert found.status_code == (400 if "\\" in path else 204)
    assert client("POST", f"/uploads/{BATCH}").status_code == 204
    settle(workspace)
    assert workspace.documents.states()[0].name == "p"
    labels = client("GET", f"/documents/{BATCH}/parts").json()["labels"]
    assert labels == ["README.md", "src/a.py"]
    assert client("POST", f"/uploads/{BATCH}").json()["detail"].startswith("Nothing arrived")


def test_what_is_long_is_shown_in_parts(client: Any, workspace: NoModel, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    make.write(folder, "a.txt", b"words\n" * 200_000)
    make.write(folder, ".env", b"TOKEN=1")
    for number in range(201):
        make.write(folder, f"{number:03}.png", b"")
    client("POST", "/documents", json={"path": str(folder)})
    settle(workspace)
    where = f"/documents/{workspace.documents.states()[0].id}"
    text = client("GET", f"{where}/parts/0").json()
    assert len(text["text"]) == 1_000_000
    assert text["doubt"] == "The first 1,000,000 characters are shown."
    first = client("GET", f"{where}/left_out").json()
    assert (first["total"], len(first["entries"])) == (202, 200)
    # Only what may come back has the path by which it can.
    sentence, path = first["entries"][0]
    assert sentence.startswith(".env (probable secret (by its name)")
    assert path == ".env"
    assert first["entries"][1] == ["000.png (not text)", ""]
    rest = client("GET", f"{where}/left_out", params={"start": 200}).json()
    assert [entry[0] for entry in rest["entries"]] == ["199.png (not text)", "200.png (not text)"]


def test_choices_texts_and_refusals(client: Any, workspace: NoModel, tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.pdf", make.pdf([body(n) for n in range(3)]))
    assert client("POST", "/documents", json={"path": str(path)}).status_code == 204
    settle(workspace)
    (state,) = workspace.documents.states()
    where = f"/documents/{state.id}"
    assert "line 1.0" in client("GET", f"{where}/parts/1").json()["text"]
    assert client("GET", f"{where}/find", params={"words": "line 2"}).json() == [2]
    assert client("PUT", f"{where}/choice", json={"pages": "2"}).status_code == 204
    assert workspace.documents.states()[0].unticked == 2
    assert client("PUT", f"{where}/choice", json={"runs": [0, 1, 2]}).status_code == 204
    assert client("PUT", f"{where}/options", json={"extractor": "pypdf"}).status_code == 204
    settle(workspace)
    assert client("GET", f"{where}/parts").json()["doubts"]["0"] == "read by pypdf"
    assert client("GET", f"{where}/choice").json() == [0, 1, 2]
    assert client("GET", f"{where}/left_out").json() == {"total": 0, "entries": []}
    assert client("PUT", "/fit", json=True).status_code == 204
    assert workspace.configured == {"fits_best_parts": True}
    assert client("PUT", "/documents/order", json=[state.id]).status_code == 204
    for method, asked, data, words in [
        ("PUT", f"{where}/choice", {"pages": "9"}, "give numbers from 1 to 3"),
        ("PUT", f"{where}/choice", {"runs": [0, 3]}, "Nothing would be left"),
        ("PUT", f"{where}/choice", {}, "cannot be understood"),
        ("PUT", f"{where}/choice", {"runs": [0, -3]}, "ticks cannot be read"),
        ("PUT", f"{where}/options", {"raises_limit": True}, "No limit keeps a.pdf"),
        ("PUT", f"{where}/options", {"extractor": "magic"}, "'pdfium', 'pypdf' or 'ocr'"),
        ("PUT", "/documents/nothing/choice", {"pages": "1"}, "not here any more"),
        ("GET", f"{where}/parts/7", None, "no such part"),
        ("POST", "/documents", {"path": "a.pdf"}, "no full path"),
        ("POST", "/documents", {"path": str(tmp_path / "x.pdf")}, "There is nothing at"),
    ]:
        refused = client(method, asked, json=data)
        assert refused.status_code == 400
        assert words in refused.json()["detail"]


# Bodies that no route takes: what is no JSON, and types that none has.
MALFORMED = {
    "empty": b"",
    "broken": b'{"path": ',
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "huge number": b"1" * 5000,
    "null": b"null",
    "fraction": b"3.5",
    "lists": b"[[1]]",
    "other names": b'{"nonsense": 1}',
    "other types": (
        b'{"path": 1, "pages": 2, "runs": "x", "extractor": true, "question": [], "size": {}}'
    ),
    "half a character": b'"\\ud800"',
    "half a name": b'{"\\ud800": 1}',
}


def with_body() -> list[tuple[str, str]]:
    """Method and address of each of our own routes that takes JSON."""
    nowhere: Any = NoModel(Path("nowhere"))
    routers = [
        routes(nowhere, lambda: True),
        chat_routes(nowhere),
        document_routes(nowhere),
        library_routes(nowhere),
    ]
    nowhere.documents.close()
    own = [route for router in routers for route in router.routes if isinstance(route, Route)]
    return [(min(one.methods), one.path) for one in own if one.body_field is not None]


@pytest.mark.parametrize(("method", "path"), with_body())
def test_a_malformed_body_is_refused_with_a_sentence(client: Any, method: str, path: str) -> None:
    where = re.sub(r"{\w+}", "0", path)
    for name, content in MALFORMED.items():
        headers = {"Content-Type": "application/json"}
        answer = client(method, where, content=content, headers=headers)
        assert answer.status_code == 400, (name, answer.text)
        # FastAPI has a sentence of its own for what Python's parser gives up on.
        own = ("The request cannot be understood: ", "There was an error parsing the body")
        assert answer.json()["detail"].startswith(own), name


def test_half_a_character_is_refused_wherever_it_is(client: Any) -> None:
    content = b'{"question": "What is \\ud800?"}'
    headers = {"Content-Type": "application/json"}
    answer = client("POST", "/chats/0/ask", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        "The request cannot be understood: body.question: it holds half a character. Reload the "
        "page and try again."
    )


def test_every_route_refuses_in_the_same_way(client: Any) -> None:
    app = Path(routes.__code__.co_filename).parent
    made = [line for path in app.rglob("*.py") for line in path.read_text().splitlines()]
    made = [line.strip() for line in made if re.search(r"\bAPIRouter\(", line)]
    # Four routers, each with its routes in the list above.
    assert made == ["router = APIRouter(route_class=Route)"] * 4
    assert len(with_body()) == 11
    for asked in ("/documents/a/parts/x", "/documents/a/find", "/documents/a/left_out?start=x"):
        answer = client("GET", asked)
        assert (answer.status_code, answer.json()["detail"][:34]) == (
            400,
            "The request cannot be understood: ",
        )
    text = client("PUT", "/fit", content=b"true", headers={"Content-Type": "text/plain"})
    assert text.status_code == 400
