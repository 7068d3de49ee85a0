"""Key files under a passphrase: Argon2id makes a key of it, AES-256-GCM-SIV locks the seeds with that key.

The passphrase comes from a terminal, or from a file that EMBASSY_PASSPHRASE_FILE names, such as a credential of
systemd. It is never an argument, nor a value of the environment or the configuration.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from embassy.model.errors import ConfigurationError
from embassy.wire.key_document import damaged
from embassy.wire.secret_file import read_secret

VARIABLE = "EMBASSY_PASSPHRASE_FILE"

_LOCKED = frozenset({"argon2id", "locked"})
_SALT_BYTES = 16
_KEY_BYTES = 32
_NONCE = bytes(12)  # each salt, and with it each key, locks once
_COST = {"iterations": 3, "lanes": 1, "memory_kib": 64 << 10}
_COST_MOST = {"iterations": 64, "lanes": 16, "memory_kib": 1 << 20}


def is_locked(secret: Mapping[str, Any]) -> bool:
    """Whether a key file's secret needs a passphrase."""
    return secret.keys() == _LOCKED


def from_file() -> Callable[[], bytes] | None:
    """The passphrase of the file that the environment names; None if it names none."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    return lambda: read_secret(Path(name), "passphrase file").rstrip(b"\r\n")


def lock(secret: Mapping[str, Any], phrase: bytes, key_id: bytes) -> dict[str, Any]:
    """The secret under a passphrase, bound to the key's id.

    Raises:
        ConfigurationError: the passphrase is empty.
    """
    if not phrase:
        raise ConfigurationError(
            "the passphrase is empty: it would lock nothing",
            place=os.environ.get(VARIABLE, ""),
            hint=f"fill the file that {VARIABLE} names, or make the key without --passphrase",
        )
    salt = os.urandom(_SALT_BYTES)
    sealed = _aead(phrase, salt, _COST).encrypt(_NONCE, json.dumps(dict(secret)).encode("ascii"), key_id)
    return {"argon2id": {"salt": salt.hex(), **_COST}, "locked": sealed.hex()}


def unlock(
    secret: Mapping[str, Any], ask: Callable[[], bytes] | None, key_id: bytes, place: Path
) -> Mapping[str, Any]:
    """The secret without its passphrase.

    Raises:
        ConfigurationError: there is no passphrase, it is the wrong one, or the file is damaged.
    """
    if ask is None:
        raise ConfigurationError(
            "the key file needs a passphrase, and none was given",
            place=str(place),
            hint=f"name the file that holds it in {VARIABLE}",
        )
    try:
        cost = {name: int(secret["argon2id"][name]) for name in _COST}
        salt, sealed = bytes.fromhex(secret["argon2id"]["salt"]), bytes.fromhex(secret["locked"])
        if any(not 1 <= cost[name] <= most for name, most in _COST_MOST.items()):
            raise ValueError  # noqa: TRY301 - one way out for every defect
        aead = _aead(ask(), salt, cost)
    except (LookupError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise damaged("key file", place) from error
    try:
        opened: Mapping[str, Any] = json.loads(aead.decrypt(_NONCE, sealed, key_id))
    except InvalidTag as error:
        raise ConfigurationError(
            "the passphrase is wrong, or the key file is damaged",
            place=str(place),
            hint="try it again; without the passphrase the key is lost",
        ) from error
    return opened


def _aead(phrase: bytes, salt: bytes, cost: Mapping[str, int]) -> AESGCMSIV:
    derive = Argon2id(
        salt=salt,
        length=_KEY_BYTES,
        iterations=cost["iterations"],
        lanes=cost["lanes"],
        memory_cost=cost["memory_kib"],
    )
    return AESGCMSIV(derive.derive(phrase))
