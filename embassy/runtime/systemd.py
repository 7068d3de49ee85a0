"""Telling systemd how the service is; silent where no systemd listens."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from systemd_watchdog.systemd_watchdog import WatchDog


class Systemd:
    """The service's line to systemd. A line that breaks does not end the service."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._status = ""
        self._socket: socket.socket | None = None
        self._watchdog: WatchDog | None = None
        address = environment.get("NOTIFY_SOCKET", "")
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._watchdog = WatchDog(self._socket, address)

    def ready(self) -> None:
        """The streams have been started."""
        if self._watchdog is not None:
            with contextlib.suppress(OSError):
                self._watchdog.ready()

    def alive(self) -> None:
        """All loops turn; call often, it tells only when due."""
        if self._watchdog is not None:
            with contextlib.suppress(OSError):
                self._watchdog.ping()

    def stopping(self) -> None:
        """The service is draining."""
        self.status(
            "draining\nSTOPPING=1"
        )  # a notification is a list of lines; the library has no call for this one

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; told when it changes."""
        if self._watchdog is not None and text != self._status:
            self._status = text
            with contextlib.suppress(OSError):
                self._watchdog.status(text)

    def close(self) -> None:
        """Close the line."""
        if self._socket is not None:
            self._socket.close()
