"""The door: who gets in over TLS, and how it closes. On sockets of this machine."""

from __future__ import annotations

import http.client
import ssl
import threading
from pathlib import Path

import pytest

from console.app import Console
from console.feed import Feed
from console.page import Renderer
from console.seen import Seen
from console.server import Door
from deploy.lab.certificates import Authority, now_utc
from embassy.model.errors import ConfigurationError
from embassy.runtime.console_config import ServerTls
from embassy.runtime.health import Listen
from tests.harness.console_looks import seen_of
from tests.harness.observations import EMBASSY, well

_ANY = Listen("127.0.0.1", 0)


class _OverError(Exception):
    """The test is over."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "ca", "console")
    made.found(now_utc())
    return made


def _served(authority: Authority) -> ServerTls:
    key, chain = authority.issue_server("console")
    files = authority.folder / "server.pem", authority.folder / "server.key"
    files[0].write_text(chain)
    files[1].write_text(key)
    return ServerTls(*files, authority.ca)


def _get(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_who_shows_a_certificate_of_the_authority_gets_in(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue_client("anna"), Authority(tmp_path / "other", "other")
    other.found(now_utc())
    stranger = other.issue_client("anna")
    trusting = {who: ssl.create_default_context(cafile=str(authority.ca)) for who in ("nobody", "stranger", "own")}
    trusting["stranger"].load_cert_chain(stranger.certificate, stranger.key)
    trusting["own"].load_cert_chain(own.certificate, own.key)
    old = ssl.create_default_context(cafile=str(authority.ca))
    old.load_cert_chain(own.certificate, own.key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    told, over = threading.Event(), _OverError()

    def collect() -> Seen:
        if told.is_set():
            raise over  # which ends the server: signals are the whole process's
        return seen_of({"land": well(EMBASSY)})

    renderer = Renderer()
    feed = Feed(collect, renderer.page, interval_seconds=0.02)
    door = Door(_ANY, _served(authority))
    found: dict[str, object] = {}

    def knock() -> None:
        try:
            for who, context in (*trusting.items(), ("old", old)):
                try:
                    found[who] = _get(door.address.port, context)
                except (ssl.SSLError, ConnectionError) as error:
                    found[who] = type(error)
        finally:
            told.set()

    client = threading.Thread(target=knock)
    feed.start()
    client.start()
    door.serve(Console(feed, renderer, site="embassy-1").app(frozenset({"localhost"})), feed, lambda: None)
    client.join()
    assert door.url == f"https://127.0.0.1:{door.address.port}/"
    assert found.pop("own") == 200
    assert set(found) == {"nobody", "stranger", "old"}
    assert all(isinstance(kind, type) for kind in found.values()), found
    assert feed.failure is over


def test_a_certificate_that_cannot_be_used_is_named(authority: Authority) -> None:
    tls = _served(authority)
    tls.key.write_text("no key")
    with pytest.raises(ConfigurationError, match="cannot be used") as caught:
        Door(_ANY, tls)
    assert str(tls.key) in caught.value.place
    with pytest.raises(ConfigurationError, match="authority of the clients"):
        Door(_ANY, _served(authority)._replace(client_ca=authority.folder / "none.pem"))


def test_an_address_in_use_is_named_with_the_way_out() -> None:
    door = Door(_ANY, None)
    try:
        with pytest.raises(ConfigurationError, match=r"cannot listen at 127\.0\.0\.1") as caught:
            Door(door.address, None)
        assert caught.value.place == "console.listen"
    finally:
        door.close()
