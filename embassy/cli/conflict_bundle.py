"""Conflict bundles: what a superseded database committed and the embassy does not have, as files for people."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from embassy.cli.untaken import Untaken
from embassy.pg.connection import connect, place_of
from embassy.pg.setup_errors import explained
from failover.conflicts import readable


class Bundle(NamedTuple):
    """What one registry's file holds."""

    name: str
    file: str
    transactions: int
    changes: int
    after_lsn: str
    """The embassy has everything up to here."""
    complete: bool
    """Whether the file has all that was committed behind that."""
    missing_after: str
    """Else: what lies between this position"""
    missing_upto: str
    """and this one is not in it,"""
    missing_why: str
    """because of this."""
    sha256: str
    tables: tuple[tuple[str, str], ...] = ()
    """Schema and name of those that the changes are of."""
    statements: int = 0
    """DDL among the changes: the schema is not the embassy's."""


def make_bundle(name: str, dsn: str, untaken: Untaken, *, slot: str, publication: str, output: Path) -> Bundle:
    """Write one registry's file; the slot stays where it is.

    Args:
        name: the registry's; the file is NAME.jsonl.
        dsn: of the database that was superseded.
        untaken: reads what it committed.
        slot: that it was replicated from.
        publication: that of the slot.
        output: the folder, which is there.

    Raises:
        IntegrityError: the slot is gone, or has lost log.
        RefusedError: a session holds the slot.
        TransientError: home's cluster is unreachable, and the slot does not have everything.
    """
    place = place_of(dsn)
    target = output / f"{name}.jsonl"
    digest, transactions, changes, statements = hashlib.sha256(), 0, 0, 0
    tables: set[tuple[str, str]] = set()
    with (
        explained(place),
        connect(dsn, application_name="embassy-failback", autocommit=True) as session,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        for transaction in readable(untaken.transactions(session, slot, publication)):
            line = _line(transaction)
            digest.update(line)
            file.write(line)
            transactions += 1
            changes += len(transaction["changes"])
            statements += sum(change["op"] == "ddl" for change in transaction["changes"])
            tables |= {
                tuple(change["table"].split(".", 1)) for change in transaction["changes"] if "table" in change
            }
        file.flush()
        os.fsync(file.fileno())
    gap = untaken.gap
    return Bundle(
        name,
        str(target),
        transactions,
        changes,
        str(untaken.after),
        gap is None,
        str(gap.after_lsn) if gap else "",
        str(gap.upto_lsn) if gap else "",
        gap.why if gap else "",
        digest.hexdigest(),
        tuple(sorted(tables)),
        statements,
    )


def _line(transaction: dict[str, Any]) -> bytes:
    return json.dumps(transaction, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
