"""The section ``console`` of the configuration, and where its page may be served."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from pydantic import Field

from embassy.model.errors import ConfigurationError
from embassy.runtime.config_section import FilePath, Section
from embassy.runtime.health import Listen

_PLACE = "console.listen"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class ServerTls(NamedTuple):
    """What the page is served with where others than this machine may ask for it."""

    certificate: FilePath
    key: FilePath
    client_ca: FilePath
    """Whoever asks must have a certificate of this authority."""


class Console(Section):
    """Where ``embassy console run`` serves its page, and to whom."""

    listen: str = "127.0.0.1:8470"
    """Loopback, unless certificate, key and client_ca are set; port 0 picks a free one."""
    interval_seconds: float = Field(default=2, ge=0.2, le=8)
    """From one look at databases and topics to the next; browsers share it."""
    hosts: tuple[str, ...] = ()
    """Names, without port, by which browsers may ask for the page besides its address (and localhost on loopback)."""
    certificate: FilePath | None = None
    """The page's own certificate, for its key file and for those who ask with one of client_ca; all three, or none."""
    key: FilePath | None = None
    client_ca: FilePath | None = None

    def tls(self) -> ServerTls | None:
        """The certificate files; None: there are none.

        Raises:
            ConfigurationError: some are there and some are not.
        """
        if self.certificate is not None and self.key is not None and self.client_ca is not None:
            return ServerTls(self.certificate, self.key, self.client_ca)
        if self.certificate is None and self.key is None and self.client_ca is None:
            return None
        raise ConfigurationError(
            "certificate, key and client_ca are not all set",
            place="console",
            hint="set all three, or none and listen at 127.0.0.1",
        )

    def address(self) -> Listen:
        """Where to listen.

        Raises:
            ConfigurationError: it is no address, or others could read the page there without a certificate.
        """
        listen = Listen.parse(self.listen, place=_PLACE)
        if self.tls() is None and not _is_loopback(listen.host):
            raise ConfigurationError(
                f"{self.listen} can be reached from elsewhere, and who asks there would not have to show a certificate",
                place=_PLACE,
                hint="listen at 127.0.0.1 (ssh -L reaches it), or set console.certificate, key and client_ca",
            )
        return listen

    def known_hosts(self) -> frozenset[str]:
        """The host names that a request may carry; any other one is a page of someone else's that points here."""
        listen = self.address()
        own = {*_LOOPBACK_NAMES} if _is_loopback(listen.host) else {listen.host}
        return frozenset(name.lower() for name in (*own, listen.host, *self.hosts))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
