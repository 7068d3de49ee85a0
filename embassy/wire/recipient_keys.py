"""Whoever holds an embassy's recipient keys: a file's content in this process, or another process behind a socket.

A consumer may hold several, so that a key can be replaced while the stream runs: a KEY record names the recipients it
is wrapped for, and any one that is held will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from embassy.model.errors import ConfigurationError
from embassy.wire.keyring import Passphrase, RecipientKey, load_recipient


class RecipientKeys(Protocol):
    """Unwraps data keys, and shows no secret."""

    def holds(self) -> Sequence[bytes]:
        """The ids of the recipients that it can unwrap for.

        Raises:
            TransientError: the holder does not answer.
        """

    def unwrap_for(self, recipient: bytes, sealed: bytes, info: bytes) -> bytes | None:
        """What was sealed for a recipient under this info; None if it was not, was altered, or is not held.

        Raises:
            TransientError: the holder does not answer.
        """


class HeldKeys:
    """Recipient keys in this process's memory; may be replaced while others ask."""

    def __init__(self, keys: Iterable[RecipientKey]) -> None:
        self._keys = {key.public.id: key for key in keys}

    def replace(self, keys: Iterable[RecipientKey]) -> None:
        """Hold others from now on."""
        self._keys = {key.public.id: key for key in keys}

    def holds(self) -> Sequence[bytes]:
        """The ids of the recipients."""
        return tuple(self._keys)

    def unwrap_for(self, recipient: bytes, sealed: bytes, info: bytes) -> bytes | None:
        """What was sealed for a recipient; None if it was not, was altered, or is not held."""
        key = self._keys.get(recipient)
        return key.unwrap(sealed, info) if key is not None else None


def load_recipients(paths: Sequence[Path], ask: Passphrase | None = None) -> tuple[RecipientKey, ...]:
    """Read an embassy's secret files.

    Raises:
        ConfigurationError: there is none, one cannot be used, or two hold the same key.
    """
    keys = tuple(load_recipient(path, ask) for path in paths)
    if not keys:
        raise ConfigurationError(
            "there is no recipient key", place="keys.recipient", hint="name a key file, or a folder of them"
        )
    if len({key.public.id for key in keys}) != len(keys):
        raise ConfigurationError(
            "a recipient key is there twice", place="keys.recipient", hint="name each key file once"
        )
    return keys
