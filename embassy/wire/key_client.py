"""Recipient keys that another process holds: a consumer asks a keyd to unwrap, and never has a seed itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embassy.model.errors import TransientError
from embassy.wire import key_protocol

_TIMEOUT_SECONDS = 10.0


class KeydKeys:
    """Speaks to one keyd; streams of a process share it. A keyd that was restarted is found again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._drop()

    def holds(self) -> Sequence[bytes]:
        """The ids of the recipients that the keyd can unwrap for.

        Raises:
            TransientError: it does not answer.
        """
        return tuple(bytes.fromhex(found) for found in self._ask({"op": "holds"}, "ids"))

    def unwrap_for(self, recipient: bytes, sealed: bytes, info: bytes) -> bytes | None:
        """What was sealed for a recipient; None if it was not, was altered, or is not held.

        Raises:
            TransientError: the keyd does not answer.
        """
        request = {"op": "unwrap", "recipient": recipient.hex(), "sealed": sealed.hex(), "info": info.hex()}
        found = self._ask(request, "secret")
        return bytes.fromhex(found) if found is not None else None

    def _ask(self, request: dict[str, Any], wanted: str) -> Any:
        with self._lock:
            fresh = self._connection is None
            try:
                return self._asked_once(request, wanted)
            except (OSError, ValueError, LookupError) as error:
                self._drop()
                if fresh:
                    raise self._silent(error) from error
            try:  # the connection was from before a restart of the keyd
                return self._asked_once(request, wanted)
            except (OSError, ValueError, LookupError) as error:
                self._drop()
                raise self._silent(error) from error

    def _asked_once(self, request: dict[str, Any], wanted: str) -> Any:
        if self._connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(_TIMEOUT_SECONDS)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                raise
            self._connection = connection
        key_protocol.send(self._connection, request)
        answer = key_protocol.receive(self._connection)
        if answer is None:
            raise ConnectionResetError("it hung up")
        if "error" in answer:
            raise ValueError(str(answer["error"]))
        return answer[wanted]

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _silent(self, error: Exception) -> TransientError:
        return TransientError(
            f"keyd does not answer: {error}",
            place=str(self._path),
            hint="does embassy keyd run, and does keyd.users name this user? Nothing is lost: the stream waits",
        )
