"""The text of a whole row, of which digests are made; `embassy.pg.row_digests` has PostgreSQL make the same.

Each value's text output, written as PostgreSQL's ``quote_literal`` writes it, NULL as ``NULL``, with a space between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def row_text(values: Iterable[bytes | None]) -> bytes:
    """The text of a row, given each value's text in UTF-8, None for NULL."""
    return b" ".join(map(_literal, values))


def row_digest(values: Iterable[bytes | None]) -> bytes:
    """SHA-256 of a row's text."""
    return hashlib.sha256(row_text(values)).digest()


def _literal(value: bytes | None) -> bytes:
    if value is None:
        return b"NULL"
    quoted = value.replace(b"'", b"''")
    if b"\\" in quoted:
        return b"E'" + quoted.replace(b"\\", b"\\\\") + b"'"
    return b"'" + quoted + b"'"
