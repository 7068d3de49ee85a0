"""Orders: what operators have decided about a stream, signed by as many persons as it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.key_document import load_object
from embassy.wire.signed_document import SignedDocument
from embassy.wire.suite import approval_message

_VERSION = 2
"""2: an order to unfreeze names the freezes by their ids."""


@dataclass(frozen=True, slots=True)
class Order(SignedDocument):
    """An order with its signatures; nothing of it is proven."""

    what: ClassVar[str] = "order"

    @classmethod
    def draft(cls, action: str, fields: Mapping[str, Any]) -> Order:
        """A new order that nobody has signed."""
        content = {"version": _VERSION, "action": action, **fields}
        return cls(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii"))

    def message(self) -> bytes:
        """What is signed."""
        return approval_message(self.payload)

    def fields(self, action: str, place: Path) -> dict[str, Any]:
        """What it orders.

        Raises:
            ConfigurationError: it is of another version, or damaged.
            RefusedError: it orders something else.
        """
        found = load_object(self.payload, self.what, place)
        if found.get("version") != _VERSION or isinstance(found.get("version"), bool):
            raise ConfigurationError(
                f"the {self.what} has version {found.get('version')!r}; this program knows {_VERSION}",
                place=str(place),
                hint="upgrade the program, or make the order anew",
            )
        if found.get("action") != action:
            raise RefusedError(
                f"the order is to {found.get('action')}, not to {action}",
                place=str(place),
                hint="name its own file",
            )
        return found
