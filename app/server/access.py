"""Who may reach the page, and from where."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field

from app.server.admission import PASSWORD_CHARACTERS_MIN
from app.server.guard import LOOPBACK_NAMES
from mom_core.errors import InvalidSetting

ADDRESS = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """From where the page can be reached, and by whom.

    Args:
        host: address or name to listen at.
        token: without it nobody gets in; None asks for none.
        password: likewise; None asks for none.

    Raises:
        InvalidSetting: other machines could reach it without a password, or it is too short.
    """

    host: str = ADDRESS
    token: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.is_local and self.password is None:
            raise InvalidSetting(
                f"--host {self.host} lets other machines in, so a password is needed: give "
                "--password-file FILE, set MOM_PASSWORD, or start mom in a terminal, which asks."
            )
        if self.password is not None and len(self.password) < PASSWORD_CHARACTERS_MIN:
            raise InvalidSetting(
                f"The password has {len(self.password)} characters; it must have at least "
                f"{PASSWORD_CHARACTERS_MIN}."
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def host_names(self) -> frozenset[str]:
        """Names under which the page may be opened."""
        if self.is_local:
            return LOOPBACK_NAMES | {self.host}
        own = socket.gethostname()
        return LOOPBACK_NAMES | {self.host, own, f"{own}.local", socket.getfqdn()}

    def url(self, port: int) -> str:
        """What a person opens."""
        name = socket.gethostname() if self.host in _EVERYWHERE else self.host
        shown = f"[{name}]" if ":" in name else name
        token = "" if self.token is None else f"/?token={self.token}"
        return f"http://{shown}:{port}{token}"


def is_loopback(host: str) -> bool:
    """Whether an address or name leads to this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
