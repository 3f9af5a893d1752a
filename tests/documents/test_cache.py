"""Texts kept between runs: by content, under any name, never what is secret."""

from __future__ import annotations

import sys
import zipfile
import zlib
from array import array
from pathlib import Path
from typing import Any

import pypdf
import pytest

from app.documents import (
    DiskCache,
    Document,
    Health,
    LeftOut,
    Limits,
    ReadOptions,
    Section,
    read,
)
from app.documents import cache as cache_module
from app.documents.cache import document_from_bytes, document_to_bytes, key_of
from app.documents.parts import Job
from app.prompt.prompt import tokenize
from app.prompt.text_encoder import TextEncoder
from tests.documents import make
from tests.documents.bodies import body

# The package names its function as its module.
reading = sys.modules["app.documents.parsing.read"]


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    run = reading._Reading.run

    def counted(self: Any) -> Any:
        seen.append(self._job.name)
        return run(self)

    monkeypatch.setattr(reading._Reading, "run", counted)
    return seen


def test_the_same_file_is_read_once_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache(tmp_path / "cache")
    seen = count_readings(monkeypatch)
    first = read(make.write(tmp_path, "a.pdf", make.pdf([body(1)])), cache=cache)
    second = read(make.write(tmp_path, "b.pdf", make.pdf([body(1)])), cache=cache)
    assert seen == ["a.pdf"]
    assert (second.name, second.sections) == ("b.pdf", first.sections)
    read(tmp_path / "a.pdf", options=ReadOptions(joins_hyphens=False), cache=cache)
    read(make.write(tmp_path, "c.pdf", make.pdf([body(2)])), cache=cache)
    assert seen == ["a.pdf", "a.pdf", "c.pdf"]
    text = read(make.write(tmp_path, "a.txt", b"words"), cache=cache)
    other = read(make.write(tmp_path, "b.txt", b"words"), cache=cache)
    assert [text.sections[0].label, other.sections[0].label] == ["a.txt", "b.txt"]
    assert seen[3:] == ["a.txt"]


def test_a_text_of_other_readers_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(path=make.write(tmp_path, "a.txt", b"words"), name="a.txt")
    before = key_of(job)
    assert before == key_of(job)
    monkeypatch.setattr(cache_module, "_version", lambda: "of other readers")
    assert key_of(job) != before


def test_a_page_that_took_too_long_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = (Section("p. 1", "x"), Section("p. 2", "", health=Health(fault="not read")))

    def run(self: Any) -> Any:
        return Document("a.pdf", "pdf", sections)
        yield

    monkeypatch.setattr(reading._Reading, "run", run)
    read(make.write(tmp_path, "a.pdf", b"%PDF-"), cache=DiskCache(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_what_a_password_protects_is_not_kept(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=make.write(tmp_path, "a.pdf", make.pdf([body(1)])))
    writer.encrypt("sesame", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    cache = DiskCache(tmp_path / "cache")
    read(tmp_path / "locked.pdf", options=ReadOptions(password="sesame"), cache=cache)
    assert not (tmp_path / "cache").exists()


def test_secrets_are_not_kept(tmp_path: Path) -> None:
    document = read(
        make.write(tmp_path, "a.zip", make.zipped({"a.py": "x", ".env": "TOKEN=12345"}))
    )
    assert document.left_out[0].text == "TOKEN=12345"
    assert b"12345" not in document_to_bytes(document)
    again = document_from_bytes(document_to_bytes(document), "a.zip")
    assert again == document
    assert again.left_out == (LeftOut(".env", "probable secret (by its name)", True),)


def test_damage_and_full_disks_cost_nothing_but_time(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    cache.put("key", b"data")
    assert cache.get("key") == b"data"
    (tmp_path / "cache" / "key").write_bytes(b"rubbish")
    assert cache.get("key") is None
    assert document_from_bytes(b"{}", "a") is None
    assert document_from_bytes(b"\xff", "a") is None
    blocked = DiskCache(make.write(tmp_path, "file", b"") / "inside")
    blocked.put("key", b"data")
    assert blocked.get("key") is None


def test_a_full_disk_is_not_made_fuller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    cache = DiskCache(tmp_path)
    monkeypatch.setattr("os.replace", is_full)
    cache.put("key", b"data")
    assert list(tmp_path.iterdir()) == []


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    import os

    cache = DiskCache(tmp_path, limit_bytes=2500)
    for number in range(4):
        cache.put(f"k{number}", os.urandom(1000))
        os.utime(tmp_path / f"k{number}", (number, number))
    assert [cache.get(f"k{number}") is not None for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    assert (tmp_path / "k3").stat().st_mode & 0o077 == 0


def test_a_higher_limit_has_its_effect_on_a_known_file(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    files = {"a.txt": "small", "b.txt": "large\n" * 300_000}
    path = make.write(tmp_path, "a.zip", make.zipped(dict(files), zipfile.ZIP_STORED))
    assert len(read(path, limits=Limits(member_mb=1), cache=cache).sections) == 1
    assert len(read(path, limits=Limits(member_mb=2), cache=cache).sections) == 2


def test_nothing_in_the_cache_tells_a_secret(tmp_path: Path) -> None:
    """Whether left out, put back, or dropped by itself: neither as text nor as tokens."""
    cache = DiskCache(tmp_path / "cache")
    secret = "TOKEN=hunter42"

    def encode(pieces: list[str]) -> list[list[int]]:
        return [[ord(character) for character in piece] for piece in pieces]

    encoder = TextEncoder(encode, {}, "characters", cache)
    archive = make.write(tmp_path, "a.zip", make.zipped({"a.py": "x = 1", ".env": secret}))
    for path, options in (
        (archive, ReadOptions()),
        (archive, ReadOptions(put_back=(".env",))),
        (make.write(tmp_path, ".env", secret.encode()), ReadOptions()),
    ):
        tokenize(read(path, options=options, cache=cache), encoder)
    blobs = [zlib.decompress(path.read_bytes()) for path in (tmp_path / "cache").iterdir()]
    # The harmless part is kept, so the cache was in use.
    assert any(b"x = 1" in blob for blob in blobs)
    for blob in blobs:
        assert secret.encode() not in blob
        assert array("I", map(ord, secret)).tobytes() not in blob
