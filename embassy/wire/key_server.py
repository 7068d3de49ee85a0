"""keyd: the process that alone holds an embassy's seeds, and unwraps data keys for those who may ask.

Who asks is known from the kernel (SO_PEERCRED), not from what they say. What it gives are data keys, each good for one
incarnation of one stream; a seed never leaves it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, Self

import structlog

from embassy.model.errors import ConfigurationError, EmbassyError
from embassy.wire import key_protocol
from embassy.wire.recipient_keys import RecipientKeys

_CREDENTIALS = struct.Struct("3i")
_IDLE_SECONDS = 3600.0
_ACCEPT_SECONDS = 1.0
_CONNECTIONS_MOST = 64
_MODE = 0o660


class Peer(NamedTuple):
    """The process at the other end, as the kernel tells."""

    pid: int
    user: int


class KeyServer:
    """Serves one socket until told to stop; enter it to bind."""

    def __init__(
        self,
        path: Path,
        keys: RecipientKeys,
        *,
        users: Collection[int],
        used: Callable[[Peer, str, str], None],
    ) -> None:
        """Take the keys.

        Args:
            path: of the socket.
            keys: the recipients' keys.
            users: who may ask, besides this process's own user.
            used: told of each use before it is answered: who, what (``unwrap`` or ``refused``) and with which
                recipient; if it raises an `EmbassyError`, nothing is answered.
        """
        self._path = path
        self._keys = keys
        self._users = frozenset(users) | {os.geteuid()}
        self._used = used
        self._room = threading.BoundedSemaphore(_CONNECTIONS_MOST)
        self._open: set[socket.socket] = set()
        self._log = structlog.get_logger(component="keyd")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        try:
            self._bind()
        except OSError as error:
            self._listener.close()
            raise ConfigurationError(
                f"cannot listen: {error.strerror or error}",
                place=str(self._path),
                hint="is another keyd running? Choose another keyd.socket, in a folder that this user may write to",
            ) from error
        return self

    def __exit__(self, *_exc: object) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve(self, stop: threading.Event, tick: Callable[[], None]) -> None:
        """Answer until told to stop; ``tick`` is called every second."""
        self._listener.settimeout(_ACCEPT_SECONDS)
        while not stop.is_set():
            tick()
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _bind(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise FileExistsError(17, "the file is no socket")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(str(self._path))
                except ConnectionRefusedError:
                    self._path.unlink()  # left by one that was killed
                else:
                    raise OSError(98, "another process listens there")
        before = os.umask(0o777)
        try:
            self._listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._path.chmod(_MODE)
        self._listener.listen()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._open.add(connection)
                connection.settimeout(_IDLE_SECONDS)
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                pid, user, _ = _CREDENTIALS.unpack(credentials)
                peer = Peer(pid, user)
                if user not in self._users:
                    self._used(peer, "refused", "")
                    return
                while (request := key_protocol.receive(connection)) is not None:
                    key_protocol.send(connection, self._answer(peer, request))
        except (OSError, ValueError) as error:
            self._log.info("a client is gone", error=type(error).__name__)
        except EmbassyError as error:
            self._log.error("not answered", error=str(error))
        finally:
            self._open.discard(connection)
            self._room.release()

    def _answer(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        try:
            match request:
                case {"op": "holds"}:
                    return {"ids": [found.hex() for found in self._keys.holds()]}
                case {"op": "unwrap", "recipient": str(recipient), "sealed": str(sealed), "info": str(info)}:
                    self._used(peer, "unwrap", recipient[:32])
                    secret = self._keys.unwrap_for(
                        bytes.fromhex(recipient), bytes.fromhex(sealed), bytes.fromhex(info)
                    )
                    return {"secret": secret.hex() if secret is not None else None}
        except ValueError:
            pass
        return {"error": "not a request"}
