"""What of a codebase is read, what is left out and why, and how it is put back."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest

from app.documents import Document, Limits, ReadOptions, read, receipt
from app.documents.folders.selection import Entry, select
from app.documents.language import language_of
from app.documents.secrets import secret_by_name, secret_in_text
from app.documents.tree import tree_header
from mom_core.errors import DocumentError
from tests.documents import make

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\n"
FILES = {
    ".gitignore": "build/\n.env\n",
    ".env": "TOKEN=1\n",
    ".env.example": "TOKEN=\n",
    "src/a.py": "x = 1\n",
    "src/key.txt": KEY,
    "src/min.js": "var a;" * 3000,
    "tests/test_a.py": "assert x\n",
    "vendor/lib/b.py": "y = 2\n",
    "build/out.txt": "made\n",
    "yarn.lock": "a@1:\n",
}


def tree(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        make.write(tmp_path / "p", name, content.encode())
    return tmp_path / "p"


def left_out(document: Document) -> dict[str, str]:
    return {one.path: one.reason for one in document.left_out}


def labels(document: Document) -> list[str]:
    return [section.label for section in document.sections]


def test_secrets_vendored_minified_and_locks_are_left_out_and_named(tmp_path: Path) -> None:
    document = read(tree(tmp_path))
    assert labels(document) == [".env.example", ".gitignore", "src/a.py", "tests/test_a.py"]
    assert left_out(document) == {
        # Whatever .gitignore says of it.
        ".env": "probable secret (by its name)",
        "src/key.txt": "probable secret (private key)",
        "src/min.js": "minified or generated",
        "vendor/": "vendored code (1 file, 1 KB)",
        "build/": "ignored by .gitignore (1 file, 1 KB)",
        "yarn.lock": "lock file",
    }
    assert all(one.can_be_put_back for one in document.left_out)
    assert document.header == "Files:\n.env.example\n.gitignore\nsrc/\n  a.py\ntests/\n  test_a.py"


@pytest.mark.parametrize(
    "path", ["vendor/", "build/", "yarn.lock", ".env", "src/key.txt", "src/min.js"]
)
def test_everything_can_be_put_back(tmp_path: Path, path: str) -> None:
    document = read(tree(tmp_path), options=ReadOptions(put_back=(path,)))
    assert path not in left_out(document)
    assert any(label.startswith(path) for label in labels(document))


def test_a_folder_that_is_put_back_brings_no_secrets(tmp_path: Path) -> None:
    for name, content in {"a.py": "x = 1", ".env": "TOKEN=1", "key.txt": KEY}.items():
        make.write(tmp_path / "p", f"vendor/{name}", content.encode())
    make.write(tmp_path / "p", "main.py", b"y = 2")
    (vendored,) = read(tmp_path / "p").left_out
    # Nor are they counted: what it costs is what it says.
    assert vendored.text == "[vendor/a.py]\nx = 1\n\n"
    back = read(tmp_path / "p", options=ReadOptions(put_back=("vendor/",)))
    assert labels(back) == ["main.py", "vendor/a.py"]
    assert left_out(back) == {
        "vendor/.env": "probable secret (by its name)",
        "vendor/key.txt": "probable secret (private key)",
    }
    named = ("vendor/", "vendor/.env", "vendor/key.txt")
    assert len(read(tmp_path / "p", options=ReadOptions(put_back=named)).sections) == 4


@pytest.mark.parametrize("is_zip", [False, True])
def test_what_a_left_out_folder_holds_is_told_and_counted(tmp_path: Path, is_zip: bool) -> None:
    files = {
        "a.py": b"x = 1\n",
        "node_modules/a/index.js": b"var a;",
        "node_modules/a/package.json": b"{}",
        "node_modules/b.node": b"\0\1\2",
        "vendor/large.js": b"var a;\n" * 300_000,
    }
    for name, content in files.items():
        make.write(tmp_path / "p", name, content)
    path = make.write(tmp_path, "p.zip", make.zipped(dict(files))) if is_zip else tmp_path / "p"
    document = read(path)
    packages, vendored = document.left_out
    assert packages.reason == "installed packages (3 files, 1 KB)"
    assert packages.text is not None
    # In the order of the names, as they would be read.
    parts = sorted(packages.text.split("\n\n"))
    assert parts == ["", "[node_modules/a/index.js]\nvar a;", "[node_modules/a/package.json]\n{}"]
    assert vendored.reason == "vendored code (1 file, 2.0 MB); tokens not counted"
    assert vendored.text is None
    # What it costs is what it says.
    back = read(path, options=ReadOptions(put_back=("node_modules/",)))
    assert labels(back) == ["a.py", "node_modules/a/index.js", "node_modules/a/package.json"]


def test_a_left_out_folder_of_very_many_files_is_not_walked_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "p" / "node_modules"
    folder.mkdir(parents=True)
    make.write(tmp_path / "p", "a.py", b"x = 1\n")
    for number in range(2_005):
        (folder / f"{number}.js").touch()
    (one,) = read(tmp_path / "p").left_out
    assert one.path == "node_modules/"
    assert one.reason == "installed packages (more than 2,000 files); tokens not counted"
    assert one.can_be_put_back


def test_what_a_name_says_is_binary_is_not_opened() -> None:
    def opens() -> BinaryIO:
        raise AssertionError("it was opened")

    entries = [Entry(f"a.{kind}", 9, opens) for kind in ("so", "PNG", "mp4", "sqlite3")]
    selection = select(entries, ReadOptions(), Limits())
    assert not selection.chosen
    assert {one.reason for one in selection.skipped} == {"not text"}


def test_include_and_exclude(tmp_path: Path) -> None:
    options = ReadOptions(include=("*.py",), exclude=("tests/*",))
    document = read(tree(tmp_path), options=options)
    assert labels(document) == ["src/a.py"]
    assert left_out(document)["tests/test_a.py"] == "excluded"
    assert left_out(document)[".gitignore"] == "not among the files included"


def test_a_pattern_that_means_nothing_gets_a_sentence(tmp_path: Path) -> None:
    for options in (ReadOptions(include=("*.py", "!")), ReadOptions(exclude=("!",))):
        with pytest.raises(DocumentError, match=r"The pattern '!' cannot be understood; write one"):
            read(tree(tmp_path), options=options)


def test_a_choice_that_leaves_nothing_says_so(tmp_path: Path) -> None:
    words = (
        r"p holds no text file to read; left out: \.env \(probable secret \(by its name\)\), "
        r".* and 7 more\. Choose other patterns \(--include, --exclude\), or put one back"
    )
    with pytest.raises(DocumentError, match=words):
        read(tree(tmp_path), options=ReadOptions(include=("*.rs",)))
    make.write(tmp_path / "q", "a.png", b"\x89PNG\r\n\x1a\n\0\0")
    words = r"left out: a\.png \(not text\)\. Choose a folder with source code or texts\.$"
    with pytest.raises(DocumentError, match=words):
        read(tmp_path / "q")


def test_rich_text_among_files_is_no_text(tmp_path: Path) -> None:
    make.write(tmp_path, "a.rtf", b"{\\rtf1 markup}")
    make.write(tmp_path, "b.txt", b"text")
    document = read(tmp_path)
    assert labels(document) == ["b.txt"]
    assert left_out(document)["a.rtf"] == (
        "is a rich text (RTF) file, which mom-chat does not read. Save it as .docx, .odt or PDF."
    )


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        (".env", True),
        (".env.production", True),
        (".env.sample", False),
        ("id_rsa", True),
        (".npmrc", True),
        ("id_rsa.pub", False),
        ("server.pem", True),
        ("secrets.yaml", True),
        ("environment.py", False),
        ("key.py", False),
    ],
)
def test_secrets_by_name(name: str, is_secret: bool) -> None:
    assert (secret_by_name(name) is not None) == is_secret


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (KEY, "private key"),
        ("aws = AKIA" + "ABCDEFGHIJ234567", "AWS key"),
        ("t = 'ghp_" + "a1" * 18 + "'", "GitHub token"),
        ("xoxb-" + "123456789012-abcdefghijkl", "Slack token"),
        ("key: sk-" + "abcdefgh" * 5, "API key"),
        ('"private_key": "' + KEY.replace("\n", "\\n") + '"', "private key"),
        ("AWS_SECRET_ACCESS_KEY=" + "aB3/" * 10, "AWS key"),
        ("eyJhbGciOiJIUzI1\x4eiJ9.eyJzdWIiOiIxMjM0NTY3." + "aB3-" * 8, "web token"),
        ("postgres://admin:hunter42@db.example.org/x", "password in an address"),
    ],
)
def test_secrets_in_text(text: str, kind: str) -> None:
    assert secret_in_text(text) == f"probable secret ({kind})"
    assert secret_in_text(text[:8] + "\n" + text[12:].replace("BEGIN", "")) is None
    assert secret_in_text("postgres://user:${PASSWORD}@db and http://user:password@host") is None


def test_languages() -> None:
    names = ["a.py", "b.h", "c.rs", "d.ts", "Makefile", "e.txt", "README", ".py", "x/y.R"]
    assert [language_of(name) for name in names] == [
        *("Python", "C", "Rust", "TypeScript", "Makefile", "", "", "", "R")
    ]


def test_a_very_large_tree_names_folders_only() -> None:
    header = tree_header(f"d{n % 3}/f{n}.py" for n in range(3000))
    assert header == "Files:\nd0/ (1,000 files)\nd1/ (1,000 files)\nd2/ (1,000 files)"


@pytest.mark.parametrize("is_zip", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.docx", make.zipped({"[Content_Types].xml": "<Types/>", "word/x": ""})),
        ("b.xlsx", make.zipped({"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<x/>"})),
        ("b.epub", make.zipped({"mimetype": "application/epub+zip"})),
        ("b.pdf", b"%PDF-1.4 and no more"),
        ("b.ipynb", b"["),
    ],
)
def test_one_broken_file_hides_no_other(
    tmp_path: Path, name: str, content: bytes, is_zip: bool
) -> None:
    files = {"a.txt": b"first", name: content, "c.txt": b"third"}
    for path, data in files.items():
        make.write(tmp_path / "p", path, data)
    path = make.write(tmp_path, "p.zip", make.zipped(dict(files))) if is_zip else tmp_path / "p"
    document = read(path)
    assert labels(document) == ["a.txt", "c.txt"]
    assert list(left_out(document)) == [name]
    assert "cannot be read" in left_out(document)[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".gitignore", "cannot be read: damaged"),
        ("yarn.lock", "lock file; cannot be read: damaged"),
    ],
)
def test_a_broken_file_that_is_only_looked_at_hides_no_other(
    tmp_path: Path, name: str, reason: str
) -> None:
    content = make.zipped({"a.txt": "first", name: "wrong sum\n"}, zipfile.ZIP_STORED)
    document = read(make.write(tmp_path, "p.zip", content.replace(b"wrong sum", b"wrong sun")))
    assert labels(document) == ["a.txt"]
    assert left_out(document)[name].startswith(reason)
    told = [note for note in document.notes if note.startswith(".gitignore cannot be read")]
    assert len(told) == (name == ".gitignore")


def test_files_of_one_name_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        # Two of them become one only once their names can be shown.
        for number, name in enumerate(["a\u200e.txt", "b.txt", "a\u200f.txt", "a\u202a.txt"]):
            archive.writestr(name, f"text {number}")
    document = read(path)
    assert [section.text for section in document.sections] == ["text 3", "text 1"]
    assert left_out(document) == {
        "a\ufffd.txt (1)": "same name as another",
        "a\ufffd.txt (2)": "same name as another",
    }


@pytest.mark.parametrize("name", ["a.ipynb", "a.eml"])
def test_secrets_inside_other_files_are_left_out(tmp_path: Path, name: str) -> None:
    content = make.notebook() if name == "a.ipynb" else make.MAIL
    secret = b"ghp_" + b"a1" * 18
    content = content.replace(b"print(1 + 1)", secret).replace(b"at noon", secret)
    make.write(tmp_path / "p", name, content)
    make.write(tmp_path / "p", "b.txt", b"harmless")
    assert left_out(read(tmp_path / "p"))[name] == "probable secret (GitHub token)"
    back = read(tmp_path / "p", options=ReadOptions(put_back=(name,)))
    assert secret.decode() in "".join(section.text for section in back.sections)


def test_a_secret_that_is_read_is_warned_of(tmp_path: Path) -> None:
    document = read(make.write(tmp_path, ".env", b"TOKEN=1"))
    assert "WARNING: probable secrets in 1 file (.env)" in receipt(document, None)
