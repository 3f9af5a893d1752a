"""Which port the page gets."""

from __future__ import annotations

import socket

import pytest

from app.server import bind
from mom_core.errors import InvalidSetting


def test_a_taken_port_gives_the_next_free_one() -> None:
    with bind(None) as first:
        port = first.getsockname()[1]
        # Nobody has to be served yet for the port to be taken.
        with bind(port) as second:
            assert second.getsockname()[1] > port
            assert second.getsockname()[0] == "127.0.0.1"


def test_a_port_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(InvalidSetting, match="Port 80 cannot be used: Permission denied"):
        bind(80)
