"""The shelf: read, counted, chosen from, put back, ordered; one bad file stops no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.documents import Limits
from app.workspace.documents import DocumentList
from app.workspace.listed_document import Source
from mom_core.errors import InvalidSetting
from tests.documents import make
from tests.documents.bodies import body
from tests.unit.words import Words


@pytest.fixture
def document_list(tmp_path: Path) -> Iterator[DocumentList]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    document_list = DocumentList(folder, lambda: None)
    builder: Any = Words()
    document_list.use(builder)
    yield document_list
    document_list.close()


def settle(document_list: DocumentList) -> None:
    end = time.monotonic() + 300
    while document_list.is_preparing:
        assert time.monotonic() < end
        time.sleep(0.01)


def put(document_list: DocumentList, tmp_path: Path, key: str, content: bytes, name: str) -> None:
    document_list.add(key, Source(make.write(tmp_path, f"{key}-{name}", content), name))


def test_one_bad_file_stops_no_other_and_order_can_change(
    document_list: DocumentList, tmp_path: Path
) -> None:
    put(document_list, tmp_path, "a", b"one two", "a.txt")
    put(document_list, tmp_path, "b", b"%PDF-1.4 rubbish", "b.pdf")
    put(document_list, tmp_path, "c", b"three", "c.txt")
    settle(document_list)
    assert [bool(state.error) for state in document_list.states()] == [False, True, False]
    assert [one.document.name for one in document_list.chosen()] == ["a.txt", "c.txt"]
    document_list.put_in_order(["c", "nothing"])
    assert [one.document.name for one in document_list.chosen()] == ["c.txt", "a.txt"]
    document_list.remove("c")
    assert [state.id for state in document_list.states()] == ["a", "b"]


def test_documents_of_one_name_are_told_apart(document_list: DocumentList, tmp_path: Path) -> None:
    for key in "xyz":
        put(document_list, tmp_path, key, f"# {key}".encode(), "a.md")
    settle(document_list)
    assert [state.name for state in document_list.states()] == ["a.md", "a (2).md", "a (3).md"]
    assert [one.document.name for one in document_list.chosen()] == ["a.md", "a (2).md", "a (3).md"]
    (section,) = document_list.chosen()[1].document.sections
    assert document_list.place_of("a (2).md", section.label) == ("y", 0)
    document_list.remove("y")
    put(document_list, tmp_path, "v", b"# v", "a.md")
    assert document_list.states()[-1].name == "a (2).md"


def test_pages_and_parts_can_be_left_out(document_list: DocumentList, tmp_path: Path) -> None:
    put(document_list, tmp_path, "a", make.pdf([body(n) for n in range(5)]), "a.pdf")
    settle(document_list)
    everything = document_list.states()[0].tokens
    document_list.choose_pages("a", "1-2, 5")
    assert document_list.ticks("a") == [True, True, False, False, True]
    (chosen,) = document_list.chosen()
    assert [section.label for section in chosen.document.sections] == ["p. 1", "p. 2", "p. 5"]
    state = document_list.states()[0]
    assert state.tokens == chosen.tokens < (everything or 0)
    assert state.unticked == 2
    document_list.choose("a", [0])
    assert document_list.ticks("a") == [False, True, True, True, True]
    document_list.choose_pages("a", "")
    assert document_list.states()[0].tokens == everything
    with pytest.raises(InvalidSetting, match=r"Nothing would be left of a\.pdf"):
        document_list.choose("a", range(5))
    with pytest.raises(InvalidSetting, match=r"a\.pdf has 5 parts; give numbers from 1 to 5"):
        document_list.choose_pages("a", "7")
    with pytest.raises(InvalidSetting, match="is not here any more"):
        document_list.choose("b", [])


def test_what_the_model_sees_and_search(document_list: DocumentList, tmp_path: Path) -> None:
    put(document_list, tmp_path, "a", make.pdf([body(n) for n in range(3)]), "a.pdf")
    settle(document_list)
    assert "line 1.0" in document_list.section("a", 1).text
    assert document_list.find("a", "LINE  2.3") == [2]
    assert document_list.find("a", " ") == []
    # By what it is called, too.
    assert document_list.find("a", "P. 3") == [2]
    assert document_list.place_of("a.pdf", "p. 2") == ("a", 1)
    assert document_list.place_of("a.pdf", "p. 9") is None
    name, tokens = document_list.largest_parts(1)[0]
    assert name.endswith("of a.pdf")
    assert tokens > 50
    with pytest.raises(InvalidSetting, match="no such part"):
        document_list.section("a", 3)
    put(document_list, tmp_path, "b", b"one two three\n" * 400, "b.txt")
    settle(document_list)
    # Named once.
    assert document_list.largest_parts(1)[0][0] == "b.txt"


def test_put_back_and_other_options(document_list: DocumentList, tmp_path: Path) -> None:
    files = {"a.py": "x = 1", "yarn.lock": "a b c"}
    put(document_list, tmp_path, "a", make.zipped(dict(files)), "a.zip")
    settle(document_list)
    assert [one.path for one in document_list.left_out("a")] == ["yarn.lock"]
    assert document_list.states()[0].left_out == 1
    document_list.put_back("a", "yarn.lock")
    settle(document_list)
    assert document_list.states()[0].left_out == 0
    assert document_list.parts("a")["labels"] == ["a.py", "yarn.lock"]
    document_list.reread("a", exclude=("*.py",))
    settle(document_list)
    assert document_list.parts("a")["labels"] == ["yarn.lock"]
    with pytest.raises(InvalidSetting, match="no such way to read"):
        document_list.reread("a", colour="red")


def test_putting_back_keeps_what_was_unticked(document_list: DocumentList, tmp_path: Path) -> None:
    files = {"b.py": "x = 1", "c.py": "y = 2", "a.lock/yarn.lock": "a b c", "Cargo.lock": "d"}
    put(document_list, tmp_path, "a", make.zipped(dict(files)), "a.zip")
    settle(document_list)
    document_list.choose("a", [0])
    document_list.put_back("a", "Cargo.lock")
    settle(document_list)
    chosen = dict(zip(document_list.parts("a")["labels"], document_list.ticks("a"), strict=True))
    assert chosen == {"Cargo.lock": True, "b.py": False, "c.py": True}


def test_a_locked_document_opens_with_its_password(
    document_list: DocumentList, tmp_path: Path
) -> None:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=make.write(tmp_path, "plain.pdf", make.pdf([body(1)])))
    writer.encrypt("sesame", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    document_list.add("a", Source(tmp_path / "locked.pdf", "locked.pdf"))
    settle(document_list)
    assert document_list.states()[0].is_locked
    document_list.reread("a", password="sesame")
    settle(document_list)
    assert document_list.states()[0].error == ""
    assert document_list.states()[0].tokens


def test_removing_ends_the_reading_and_deletes_uploads_only(
    document_list: DocumentList, tmp_path: Path
) -> None:
    upload = make.write(tmp_path / "uploads" / "a", "0", b"uploaded")
    document_list.add("a", Source(upload, "a.txt"))
    own = make.write(tmp_path, "own.txt", b"mine")
    document_list.add("b", Source(own, "own.txt"))
    settle(document_list)
    document_list.remove("a")
    document_list.remove("b")
    assert not upload.exists()
    assert own.exists()
    assert document_list.states() == []


@pytest.mark.parametrize(
    ("name", "is_code"), [("a.py", True), ("a.md", False), ("a.rst", False), ("a.txt", False)]
)
def test_a_lone_source_file_is_code(
    document_list: DocumentList, tmp_path: Path, name: str, is_code: bool
) -> None:
    put(document_list, tmp_path, "a", b"# words\n\nx = 1\n", name)
    settle(document_list)
    facts = document_list.facts("a", 0)
    assert facts["is_code"] is is_code
    assert (facts["document"], facts["number"], facts["total"]) == (name, 0, 1)
    assert facts["is_chosen"]
    assert not facts["is_picture"]


def test_parts_tell_tokens_chapters_and_doubts(document_list: DocumentList, tmp_path: Path) -> None:
    pages = [body(0), body(1), []]
    put(document_list, tmp_path, "a", make.pdf(pages, picture_only=[2]), "a.pdf")
    settle(document_list)
    parts = document_list.parts("a")
    assert parts["unit"] == "page"
    assert parts["labels"] == ["p. 1", "p. 2", "p. 3"]
    assert parts["tokens"][0] > 50
    assert parts["empty"] == [2]
    assert parts["doubts"] == {2: "picture without text"}
    before = document_list.states()[0]
    document_list.choose("a", [1])
    after = document_list.states()[0]
    assert (after.revision, after.choice) == (before.revision, before.choice + 1)


def test_a_limit_that_stopped_a_document_can_be_raised(tmp_path: Path) -> None:
    document_list = DocumentList(tmp_path, lambda: None, limits=Limits(pages=2))
    builder: Any = Words()
    document_list.use(builder)
    try:
        put(document_list, tmp_path, "a", make.pdf([body(n) for n in range(3)]), "a.pdf")
        settle(document_list)
        (state,) = document_list.states()
        assert state.can_raise
        assert "--limit pages=N" in state.error
        document_list.raise_limit("a")
        settle(document_list)
        (state,) = document_list.states()
        assert (state.error, state.can_raise) == ("", False)
        assert len(document_list.ticks("a")) == 3
        with pytest.raises(InvalidSetting, match=r"No limit keeps a\.pdf from being read"):
            document_list.raise_limit("a")
    finally:
        document_list.close()


def test_one_page_is_read_by_another_extractor(document_list: DocumentList, tmp_path: Path) -> None:
    put(document_list, tmp_path, "a", make.pdf([body(n) for n in range(3)]), "a.pdf")
    settle(document_list)
    before = document_list.states()[0].revision
    document_list.choose("a", [2])
    document_list.reread_page("a", 1, "pypdf")
    settle(document_list)
    extractors = [document_list.section("a", n).health.extractor for n in range(3)]
    assert extractors == ["pdfium", "pypdf", "pdfium"]
    assert "line 1.0" in document_list.section("a", 1).text
    assert document_list.states()[0].revision == before + 1
    assert document_list.ticks("a") == [True, True, False]
    with pytest.raises(InvalidSetting, match="no such part"):
        document_list.reread_page("a", 3, "pypdf")
