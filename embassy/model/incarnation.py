"""Names of incarnations: a name tells whether the source had noted it before the KEY that begins with it was made.

Such a KEY proves something of the database that it is from: whatever state does not know the name is older than the
KEY. Of a name that was never noted, as by a source of an earlier version, nothing can be concluded.
"""

from __future__ import annotations

import hashlib
import os

from embassy.model.record import ID_BYTES

_MARK_BYTES = 4
_LABEL = b"data-embassy noted incarnation 1\0"


def new_name(*, noted: bool) -> bytes:
    """A random name; ``noted``: the source notes it before it is used."""
    while True:
        random = os.urandom(ID_BYTES - _MARK_BYTES)
        name = random + (_mark(random) if noted else os.urandom(_MARK_BYTES))
        if says_noted(name) == noted:
            return name


def says_noted(name: bytes) -> bool:
    """Whether the source had noted a name; one that was not says so by chance once in 2^32."""
    random, mark = name[:-_MARK_BYTES], name[-_MARK_BYTES:]
    return mark == _mark(random)


def _mark(random: bytes) -> bytes:
    return hashlib.sha256(_LABEL + random).digest()[:_MARK_BYTES]
