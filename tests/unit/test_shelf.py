"""The shelf: read, counted, chosen from, put back, ordered; one bad file stops no other."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.documents import Document, Limits
from app.prompt.prompt import TokenizedDocument
from app.workspace.documents import Shelf, Source
from mom_core.errors import InvalidSetting
from tests.documents import make
from tests.documents.test_pdf import body


class Words:
    """Counts words instead of tokens, so that no model is needed."""

    def tokenize(self, document: Document) -> TokenizedDocument:
        ids = [array("I", range(len(section.text.split()))) for section in document.sections]
        return TokenizedDocument(document, array("I", [0]), ids)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    shelf = Shelf(folder, lambda: None)
    builder: Any = Words()
    shelf.use(builder)
    yield shelf
    shelf.close()


def settle(shelf: Shelf) -> None:
    end = time.monotonic() + 30
    while shelf.is_preparing:
        assert time.monotonic() < end
        time.sleep(0.01)


def put(shelf: Shelf, tmp_path: Path, key: str, content: bytes, name: str) -> None:
    shelf.add(key, Source(make.write(tmp_path, f"{key}-{name}", content), name))


def test_one_bad_file_stops_no_other_and_order_can_change(shelf: Shelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, "a", b"one two", "a.txt")
    put(shelf, tmp_path, "b", b"%PDF-1.4 rubbish", "b.pdf")
    put(shelf, tmp_path, "c", b"three", "c.txt")
    settle(shelf)
    assert [bool(state.error) for state in shelf.states()] == [False, True, False]
    assert [one.document.name for one in shelf.chosen()] == ["a.txt", "c.txt"]
    shelf.put_in_order(["c", "nothing"])
    assert [one.document.name for one in shelf.chosen()] == ["c.txt", "a.txt"]
    shelf.remove("c")
    assert [state.id for state in shelf.states()] == ["a", "b"]


def test_documents_of_one_name_are_told_apart(shelf: Shelf, tmp_path: Path) -> None:
    for key in "xyz":
        put(shelf, tmp_path, key, f"# {key}".encode(), "a.md")
    settle(shelf)
    assert [state.name for state in shelf.states()] == ["a.md", "a (2).md", "a (3).md"]
    assert [one.document.name for one in shelf.chosen()] == ["a.md", "a (2).md", "a (3).md"]
    (section,) = shelf.chosen()[1].document.sections
    assert shelf.place_of("a (2).md", section.label) == ("y", 0)
    shelf.remove("y")
    put(shelf, tmp_path, "v", b"# v", "a.md")
    assert shelf.states()[-1].name == "a (2).md"


def test_pages_and_parts_can_be_left_out(shelf: Shelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, "a", make.pdf([body(n) for n in range(5)]), "a.pdf")
    settle(shelf)
    everything = shelf.states()[0].tokens
    shelf.choose_pages("a", "1-2, 5")
    assert shelf.ticks("a") == [True, True, False, False, True]
    (chosen,) = shelf.chosen()
    assert [section.label for section in chosen.document.sections] == ["p. 1", "p. 2", "p. 5"]
    state = shelf.states()[0]
    assert state.tokens == chosen.tokens < (everything or 0)
    assert state.unticked == 2
    shelf.choose("a", [0])
    assert shelf.ticks("a") == [False, True, True, True, True]
    shelf.choose_pages("a", "")
    assert shelf.states()[0].tokens == everything
    with pytest.raises(InvalidSetting, match=r"Nothing would be left of a\.pdf"):
        shelf.choose("a", range(5))
    with pytest.raises(InvalidSetting, match=r"a\.pdf has 5 parts; give numbers from 1 to 5"):
        shelf.choose_pages("a", "7")
    with pytest.raises(InvalidSetting, match="is not here any more"):
        shelf.choose("b", [])


def test_what_the_model_sees_and_search(shelf: Shelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, "a", make.pdf([body(n) for n in range(3)]), "a.pdf")
    settle(shelf)
    assert "line 1.0" in shelf.section("a", 1).text
    assert shelf.find("a", "LINE  2.3") == [2]
    assert shelf.find("a", " ") == []
    # By what it is called, too.
    assert shelf.find("a", "P. 3") == [2]
    assert shelf.place_of("a.pdf", "p. 2") == ("a", 1)
    assert shelf.place_of("a.pdf", "p. 9") is None
    name, tokens = shelf.largest_parts(1)[0]
    assert name.endswith("of a.pdf")
    assert tokens > 50
    with pytest.raises(InvalidSetting, match="no such part"):
        shelf.section("a", 3)
    put(shelf, tmp_path, "b", b"one two three\n" * 400, "b.txt")
    settle(shelf)
    # Named once.
    assert shelf.largest_parts(1)[0][0] == "b.txt"


def test_put_back_and_other_options(shelf: Shelf, tmp_path: Path) -> None:
    files = {"a.py": "x = 1", "yarn.lock": "a b c"}
    put(shelf, tmp_path, "a", make.zipped(dict(files)), "a.zip")
    settle(shelf)
    assert [one.path for one in shelf.left_out("a")] == ["yarn.lock"]
    assert shelf.states()[0].left_out == 1
    shelf.put_back("a", "yarn.lock")
    settle(shelf)
    assert shelf.states()[0].left_out == 0
    assert shelf.parts("a")["labels"] == ["a.py", "yarn.lock"]
    shelf.reread("a", exclude=("*.py",))
    settle(shelf)
    assert shelf.parts("a")["labels"] == ["yarn.lock"]
    with pytest.raises(InvalidSetting, match="no such way to read"):
        shelf.reread("a", colour="red")


def test_putting_back_keeps_what_was_unticked(shelf: Shelf, tmp_path: Path) -> None:
    files = {"b.py": "x = 1", "c.py": "y = 2", "a.lock/yarn.lock": "a b c", "Cargo.lock": "d"}
    put(shelf, tmp_path, "a", make.zipped(dict(files)), "a.zip")
    settle(shelf)
    shelf.choose("a", [0])
    shelf.put_back("a", "Cargo.lock")
    settle(shelf)
    chosen = dict(zip(shelf.parts("a")["labels"], shelf.ticks("a"), strict=True))
    assert chosen == {"Cargo.lock": True, "b.py": False, "c.py": True}


def test_a_locked_document_opens_with_its_password(shelf: Shelf, tmp_path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=make.write(tmp_path, "plain.pdf", make.pdf([body(1)])))
    writer.encrypt("sesame", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    shelf.add("a", Source(tmp_path / "locked.pdf", "locked.pdf"))
    settle(shelf)
    assert shelf.states()[0].is_locked
    shelf.reread("a", password="sesame")
    settle(shelf)
    assert shelf.states()[0].error == ""
    assert shelf.states()[0].tokens


def test_removing_ends_the_reading_and_deletes_uploads_only(shelf: Shelf, tmp_path: Path) -> None:
    upload = make.write(tmp_path / "uploads" / "a", "0", b"uploaded")
    shelf.add("a", Source(upload, "a.txt"))
    own = make.write(tmp_path, "own.txt", b"mine")
    shelf.add("b", Source(own, "own.txt"))
    settle(shelf)
    shelf.remove("a")
    shelf.remove("b")
    assert not upload.exists()
    assert own.exists()
    assert shelf.states() == []


@pytest.mark.parametrize(
    ("name", "is_code"), [("a.py", True), ("a.md", False), ("a.rst", False), ("a.txt", False)]
)
def test_a_lone_source_file_is_code(shelf: Shelf, tmp_path: Path, name: str, is_code: bool) -> None:
    put(shelf, tmp_path, "a", b"# words\n\nx = 1\n", name)
    settle(shelf)
    facts = shelf.facts("a", 0)
    assert facts["is_code"] is is_code
    assert (facts["document"], facts["number"], facts["total"]) == (name, 0, 1)
    assert facts["is_chosen"]
    assert not facts["is_picture"]


def test_parts_tell_tokens_chapters_and_doubts(shelf: Shelf, tmp_path: Path) -> None:
    pages = [body(0), body(1), []]
    put(shelf, tmp_path, "a", make.pdf(pages, picture_only=[2]), "a.pdf")
    settle(shelf)
    parts = shelf.parts("a")
    assert parts["unit"] == "page"
    assert parts["labels"] == ["p. 1", "p. 2", "p. 3"]
    assert parts["tokens"][0] > 50
    assert parts["empty"] == [2]
    assert parts["doubts"] == {2: "picture without text"}
    before = shelf.states()[0]
    shelf.choose("a", [1])
    after = shelf.states()[0]
    assert (after.revision, after.choice) == (before.revision, before.choice + 1)


def test_a_limit_that_stopped_a_document_can_be_raised(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lambda: None, limits=Limits(pages=2))
    builder: Any = Words()
    shelf.use(builder)
    try:
        put(shelf, tmp_path, "a", make.pdf([body(n) for n in range(3)]), "a.pdf")
        settle(shelf)
        (state,) = shelf.states()
        assert state.can_raise
        assert "--limit pages=N" in state.error
        shelf.raise_limit("a")
        settle(shelf)
        (state,) = shelf.states()
        assert (state.error, state.can_raise) == ("", False)
        assert len(shelf.ticks("a")) == 3
        with pytest.raises(InvalidSetting, match=r"No limit keeps a\.pdf from being read"):
            shelf.raise_limit("a")
    finally:
        shelf.close()


def test_one_page_is_read_by_another_extractor(shelf: Shelf, tmp_path: Path) -> None:
    put(shelf, tmp_path, "a", make.pdf([body(n) for n in range(3)]), "a.pdf")
    settle(shelf)
    before = shelf.states()[0].revision
    shelf.choose("a", [2])
    shelf.reread_page("a", 1, "pypdf")
    settle(shelf)
    extractors = [shelf.section("a", n).health.extractor for n in range(3)]
    assert extractors == ["pdfium", "pypdf", "pdfium"]
    assert "line 1.0" in shelf.section("a", 1).text
    assert shelf.states()[0].revision == before + 1
    assert shelf.ticks("a") == [True, True, False]
    with pytest.raises(InvalidSetting, match="no such part"):
        shelf.reread_page("a", 3, "pypdf")
