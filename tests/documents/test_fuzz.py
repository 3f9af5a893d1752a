"""Damaged files of every kind: no crash, no hang, always parts or one of our sentences."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.documents import Limits, read
from app.documents.encoding import decode_text, find_encoding
from app.documents.parsing.readers import read_job
from app.documents.parts import Job, Opened, Refused, Section, from_json, to_json
from mom_core.errors import DocumentError
from tests.documents import make
from tests.documents.seeds import SEEDS

# Their parsers are C or Rust: a fault in them may end a process, and must not end the test's.
IN_A_PROCESS = ("a.pdf", "a.xlsx", "a.html")


def damage(content: bytes, seed: int) -> bytes:
    """Some bytes changed, cut out, doubled or the end cut off."""
    chance = random.Random(seed)
    data = bytearray(content)
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(len(data) or 1)
        match chance.randrange(5):
            case 0 if data:
                data[place % len(data)] = chance.randrange(256)
            case 1:
                del data[place : place + chance.randint(1, 40)]
            case 2:
                data[place:place] = data[place : place + chance.randint(1, 400)]
            case 3:
                data[place:place] = chance.choice(
                    [b"\0", b"\xff\xff\xff\xff", b"<", b">>", b"99999999"]
                )
            case _:
                del data[max(1, len(data) - chance.randint(1, 200)) :]
    return bytes(data)


def check(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = make.write(Path(folder), name, content)
        if name in IN_A_PROCESS:
            try:
                document = read(path, limits=Limits(page_seconds=10))
            except DocumentError as fault:
                assert str(fault).strip()  # noqa: PT017
            else:
                assert document.sections
            return
        parts = list(read_job(Job(path=path, name=name)))
        assert parts
        assert isinstance(parts[0], Opened | Refused)
        for part in parts:
            assert from_json(to_json(part).encode()) == part
            if isinstance(part, Section):
                part.text.encode("utf-8")


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files(name: str) -> None:
    for seed in range(8 if name in IN_A_PROCESS else 80):
        check(name, damage(SEEDS[name], seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_many_damaged_files(name: str) -> None:
    end = time.monotonic() + 60
    seed = 1000
    while time.monotonic() < end:
        check(name, damage(SEEDS[name], seed))
        seed += 1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=300), name=st.sampled_from(sorted(SEEDS)))
def test_any_bytes_under_any_name(content: bytes, name: str) -> None:
    if name not in IN_A_PROCESS:
        check(name, content)


@given(data=st.binary(max_size=500))
def test_any_bytes_decode_to_clean_text_or_none(data: bytes) -> None:
    text = decode_text(data)
    if text is not None:
        assert text.encode("utf-8").decode() == text
        assert not any(ord(character) < 32 and character not in "\t\n" for character in text)


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1))
def test_utf8_is_always_known(text: str) -> None:
    assert find_encoding(text.encode()) in ("utf-8", "utf-8-sig")
