"""Archives: within each other, damaged, lying, or leading out of themselves."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from app.documents import Limits, ReadOptions, Section, read
from app.documents.parsing.readers import read_job
from app.documents.parts import Job
from mom_core.errors import DocumentError
from tests.documents import make


def test_what_a_tape_may_hold_beside_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    kinds = {
        "soft": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "device": tarfile.CHRTYPE,
    }
    with tarfile.open(path, "w") as tape:
        for name in ("../up.txt", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tape.addfile(info, io.BytesIO(b"text"))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tape.addfile(info)
    document = read(path)
    assert [section.label for section in document.sections] == ["a.txt"]
    assert {one.path: one.reason for one in document.left_out} == {
        "../up.txt": "its path leads out of the archive",
        "soft": "link to another file",
        "hard": "link to another file",
        "pipe": "not a regular file",
        "device": "not a regular file",
    }


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    content = bytearray(make.zipped({"a.txt": b"0" * 30_000_000}))
    # The size unpacked, in the central directory: 24 bytes behind its mark.
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = (100).to_bytes(4, "little")
    path = make.write(tmp_path, "lies.zip", bytes(content))
    text = ""
    with contextlib.suppress(DocumentError):
        text = "".join(section.text for section in read(path).sections)
    assert len(text) <= 100


def test_links_and_paths_that_lead_out_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        for name in ("../up.txt", "/abs.txt", "C:/win.txt", "ok\n\u202etxt.txt", "a:b.txt"):
            archive.writestr(name, "text")
    document = read(path)
    labels = [section.label for section in document.sections]
    assert labels == ["a:b.txt", "ok\ufffd\ufffdtxt.txt"]
    assert {one.path: one.reason for one in document.left_out} == {
        "link.txt": "link to another file",
        "../up.txt": "its path leads out of the archive",
        "/abs.txt": "its path leads out of the archive",
        "C:/win.txt": "its path leads out of the archive",
    }


def test_an_archive_with_an_empty_name(tmp_path: Path) -> None:
    content = make.zipped({"a": "first", "b.txt": "second"})
    path = make.write(tmp_path, "a.zip", content.replace(b"\1\0\0\0a", b"\1\0\0\0\0"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.infolist()[0].filename = ""
        archive.writestr("c.txt", "third")
    document = read(path)
    assert [section.label for section in document.sections] == ["b.txt", "c.txt"]


def nested(depth: int) -> bytes:
    """A .zip with a text beside a .zip with a text beside ..."""
    inner = {f"{depth}.txt": b"text %d" % depth}
    if depth < 5:
        inner["next.zip"] = nested(depth + 1)
    return make.zipped(dict(inner))


def test_archives_within_archives_are_read_as_folders_down_to_a_limit(tmp_path: Path) -> None:
    path = make.write(tmp_path, "a.zip", nested(1))
    document = read(path)
    assert [(section.label, section.path) for section in document.sections] == [
        ("1.txt", "1.txt"),
        ("next.zip/2.txt", "next.zip/2.txt"),
        ("next.zip/next.zip/3.txt", "next.zip/next.zip/3.txt"),
    ]
    (one,) = document.left_out
    assert one.path == "next.zip/next.zip/next.zip"
    assert "is an archive within 3 archives, which is deeper than is read" in one.reason
    assert "--limit nesting=N" in one.reason
    deeper = read(path, limits=Limits(nesting=9))
    assert len(deeper.sections) == 5
    assert not deeper.left_out


def test_archives_of_other_kinds_within_a_folder(tmp_path: Path) -> None:
    files = {
        "p.tar.gz": make.tarred({"p/src/a.py": b"x = 1", "p/.env": b"TOKEN=1"}),
        "log.gz": gzip.compress(b"started"),
        "twice.zip.gz": gzip.compress(make.zipped({"b.txt": "second"})),
        "broken.zip": make.zipped({"c.txt": "x" * 999})[:-40],
    }
    for name, content in files.items():
        make.write(tmp_path, name, content)
    document = read(tmp_path)
    assert {section.label: section.text for section in document.sections} == {
        "p.tar.gz/src/a.py": "x = 1",
        "log.gz": "started",
        "twice.zip.gz/b.txt": "second",
    }
    reasons = {one.path: one.reason for one in document.left_out}
    assert reasons.pop("p.tar.gz/.env") == "probable secret (by its name)"
    assert list(reasons) == ["broken.zip"]
    assert "cannot be unpacked" in reasons["broken.zip"]
    back = read(tmp_path, options=ReadOptions(put_back=("p.tar.gz/.env",)))
    assert "p.tar.gz/.env" in [section.label for section in back.sections]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(unpacked_mb=8, ratio=10_000), "a.zip unpacks to far more.*unpacked_mb=N"),
        (Limits(ratio=100), "a.zip unpacks to far more.*ratio=N"),
    ],
)
def test_a_bomb_of_archives_within_archives(tmp_path: Path, limits: Limits, words: str) -> None:
    """Each of them is small: they share what they may inflate to."""
    inner = make.zipped({"zeros.txt": b"0 " * 2_000_000})
    bomb = make.zipped({f"{n}.zip": inner for n in range(8)})
    with pytest.raises(DocumentError, match=words):
        read(make.write(tmp_path, "a.zip", bomb), limits=limits)


def test_files_of_all_archives_within_an_archive_count(tmp_path: Path) -> None:
    inner = make.zipped({f"{n}.txt": "x" for n in range(4)})
    path = make.write(tmp_path, "a.zip", make.zipped({f"{n}.zip": inner for n in range(3)}))
    document = read(path, limits=Limits(files=11))
    assert len(document.sections) == 8
    (one,) = document.left_out
    assert one.path == "2.zip"
    assert "holds 4 files; at most 11 are read" in one.reason


def test_a_zip_whose_names_are_not_what_they_claim(tmp_path: Path) -> None:
    """Found by fuzzing: the standard library raises what it does not document."""
    content = make.zipped({"n\u00e9.txt": "x"}).replace("n\u00e9".encode(), b"n\x80\x80")
    with pytest.raises(DocumentError, match="cannot be unpacked: it is damaged"):
        read(make.write(tmp_path, "a.zip", content))


def test_a_package_whose_first_file_is_damaged(tmp_path: Path) -> None:
    """Found by fuzzing: what is in it is looked up before its reader is chosen."""
    content = make.zipped({"mimetype": "application/epub+zip", "a.txt": "words"})
    place = content.index(b"mimetype") + len("mimetype")
    broken = content[:place] + b"\xff\xff\xff" + content[place + 3 :]
    # In this process, as a crash of the other one would be a sentence too.
    parts = list(read_job(Job(path=make.write(tmp_path, "a.epub", broken), name="a.epub")))
    assert [part.label for part in parts if isinstance(part, Section)] == ["a.txt"]


def test_a_large_tape_counts_once(tmp_path: Path) -> None:
    files = {f"{n}.txt": b"some words of a file\n" * 50_000 for n in range(3)}
    path = make.write(tmp_path, "a.tar.gz", make.tarred(files))
    assert len(read(path, limits=Limits(unpacked_mb=4, ratio=100_000)).sections) == 3
