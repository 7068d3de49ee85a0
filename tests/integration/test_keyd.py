"""The process that holds the recipient keys: asked over its socket by whom the kernel says it is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from embassy.model.errors import ConfigurationError, TransientError
from embassy.wire import key_protocol
from embassy.wire.key_client import KeydKeys
from embassy.wire.key_server import KeyServer, Peer
from embassy.wire.keyring import generate_recipient
from embassy.wire.opening import Opener
from embassy.wire.recipient_keys import HeldKeys
from tests.harness.envelope import ENROLMENT, OSLO, RIGA, Reader, Writer


class Running:
    """A server in a thread of the test."""

    def __init__(self, path: Path, users: tuple[int, ...] = (), *, failing: bool = False) -> None:
        self.path = path
        self.uses: list[tuple[Peer, str, str]] = []
        self.failing = failing
        self.held = HeldKeys([RIGA])
        self._stop = threading.Event()
        self._server = KeyServer(path, self.held, users=users, used=self._used)

    def _used(self, peer: Peer, what: str, recipient: str) -> None:
        if self.failing:
            raise ConfigurationError("the audit log is full")
        self.uses.append((peer, what, recipient))

    def __enter__(self) -> Self:
        self._server.__enter__()
        self._thread = threading.Thread(target=self._server.serve, args=(self._stop, lambda: None))
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError), self.connect():
            pass  # it need not wait for its tick
        self._thread.join()
        self._server.__exit__()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(5)
        connection.connect(str(self.path))
        return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keyd"


@pytest.fixture
def keyd(path: Path) -> Iterator[Running]:
    with Running(path) as running:
        yield running


@pytest.fixture
def client(path: Path) -> Iterator[KeydKeys]:
    with contextlib.closing(KeydKeys(path)) as client:
        yield client


def test_a_consumer_opens_records_without_a_key_of_its_own(keyd: Running, client: KeydKeys) -> None:
    reader, writer = Reader(), Writer()
    reader.opener = Opener(client, ENROLMENT)
    assert reader.take(writer.key())
    assert reader.take(writer.data(b"sealed")[0])
    assert reader.batches == [b"sealed"]
    ((peer, what, recipient),) = keyd.uses
    assert (peer.pid, peer.user) == (os.getpid(), os.geteuid())
    assert (what, recipient) == ("unwrap", RIGA.public.id.hex())


def test_what_is_not_held_or_was_altered_is_not_unwrapped(keyd: Running, client: KeydKeys) -> None:
    assert client.holds() == (RIGA.public.id,)
    assert client.unwrap_for(OSLO.public.id, b"x", b"") is None
    assert client.unwrap_for(RIGA.public.id, bytes(1200), b"info") is None


def test_a_consumer_waits_while_keyd_is_away_and_finds_it_again(path: Path, client: KeydKeys) -> None:
    with pytest.raises(TransientError, match="keyd does not answer") as caught:
        client.holds()
    assert caught.value.place == str(path)
    with Running(path):
        assert client.holds() == (RIGA.public.id,)
    with pytest.raises(TransientError):
        client.holds()
    with Running(path):
        assert client.holds() == (RIGA.public.id,)


def test_a_socket_that_a_killed_keyd_left_is_taken_over_and_a_living_ones_is_not(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with Running(path) as first:
        with pytest.raises(ConfigurationError, match="another process listens there"), Running(path):
            pass
        with contextlib.closing(KeydKeys(path)) as client:
            assert client.holds()
        assert first.path.stat().st_mode & 0o007 == 0, "others cannot even connect"
    assert not path.exists()
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="no socket"), Running(path):
        pass
    assert path.read_text() == "a file"


def test_another_user_is_refused_by_what_the_kernel_says(keyd: Running, client: KeydKeys) -> None:
    keyd._server._users = frozenset({os.geteuid() + 1})
    with pytest.raises(TransientError, match="keyd does not answer"):
        client.holds()
    assert {what for _, what, _ in keyd.uses} == {"refused"}


def test_what_cannot_be_recorded_is_not_answered(path: Path, client: KeydKeys) -> None:
    with Running(path, failing=True) as keyd, pytest.raises(TransientError):
        client.unwrap_for(RIGA.public.id, bytes(1200), b"")
    assert not keyd.uses


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "seed"},
        {"op": "unwrap"},
        {"op": "unwrap", "recipient": 1, "sealed": "", "info": ""},
        {"op": "unwrap", "recipient": "zz", "sealed": "", "info": ""},
    ],
)
def test_what_is_no_request_is_answered_so(keyd: Running, request_: dict[str, object]) -> None:
    with keyd.connect() as connection:
        key_protocol.send(connection, request_)
        assert key_protocol.receive(connection) == {"error": "not a request"}
        key_protocol.send(connection, {"op": "holds"})
        assert key_protocol.receive(connection) == {"ids": [RIGA.public.id.hex()]}


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00", struct.pack("!I", 1 << 30), struct.pack("!I", 2) + b"[]", b"\x00\x00\x00\x02no"]
)
def test_garbage_ends_its_own_connection_only(keyd: Running, client: KeydKeys, garbage: bytes) -> None:
    with keyd.connect() as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert client.holds()


_PROBE = """
import ctypes, resource
from embassy.runtime.hardening import lock_memory, without_core_dumps
without_core_dumps(); lock_memory()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_no_core_dump_and_no_tracing_once_hardened() -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "(0, 0) 0"


_LOADED = """
import ctypes, resource, sys
from pathlib import Path
from embassy.wire.keyring import load_recipient
load_recipient(Path(sys.argv[1]))
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_whoever_loads_a_secret_key_leaves_no_core_dump(tmp_path: Path) -> None:
    made = generate_recipient(tmp_path / "riga.json")
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, str(made.secret)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(0, 0) 0"
    assert json.loads(made.secret.read_text())["secret"]
