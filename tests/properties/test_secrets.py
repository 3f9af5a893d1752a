"""No secret is missed because a plain word was looked for first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.documents.secrets import _CONTENTS, secret_in_text


@pytest.mark.parametrize("entry", _CONTENTS, ids=lambda entry: str(entry[1][0]))
@settings(max_examples=60)
@given(data=st.data())
def test_whatever_a_pattern_finds_has_one_of_its_words(
    entry: tuple[str, tuple[str, ...], object], data: st.DataObject
) -> None:
    kind, words, pattern = entry
    text = data.draw(st.from_regex(pattern))  # type: ignore[arg-type]
    assert any(word in text for word in words), kind
    assert secret_in_text(text) is not None


@given(
    st.sampled_from(["https", "HTTP", "postgres+psycopg2", "s3", "amqp"]),
    st.text("abcXYZ019._-", min_size=1, max_size=20),
    st.text("abcXYZ019._-%", min_size=3, max_size=20),
    st.sampled_from(["db.local", "[::1]", "host"]),
)
def test_a_password_in_an_address_is_found(
    scheme: str, user: str, password: str, host: str
) -> None:
    told = secret_in_text(f"url = '{scheme}://{user}:{password}@{host}/x'")
    is_placeholder = password[0] == "%" or password.lower() in ("password", "passwd", "pass", "pwd")
    if not is_placeholder and set(password.lower()) != {"x"}:
        assert told == "probable secret (password in an address)"
    assert secret_in_text(f"{scheme}://{host}:8080/{user}@x") is None
