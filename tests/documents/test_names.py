"""Documents of one name are told apart."""

from __future__ import annotations

import json
from pathlib import Path

from app.documents.names import free_name, told_apart
from tests.documents import make
from tests.unit.mom import mom_read


def test_the_end_of_a_name_stays_as_it_tells_what_a_file_is() -> None:
    assert free_name("a.html", ()) == "a.html"
    assert free_name("a.html", ("a.html", "a (2).html")) == "a (3).html"
    assert told_apart(["a", "b.c", "a", "b.c", "a", "a (2)"]) == [
        *("a", "b.c", "a (2)", "b (2).c", "a (3)", "a (2) (2)")
    ]
    assert told_apart([".env", ".env"]) == [".env", ".env (2)"]


def test_files_of_one_name_from_two_folders(tmp_path: Path) -> None:
    paths = [str(make.write(tmp_path / folder, "a.txt", folder.encode())) for folder in "xy"]
    report = json.loads(mom_read(*paths, "--json").stdout)
    assert [document["name"] for document in report["documents"]] == ["a.txt", "a (2).txt"]
