"""A replica's rows of one table, for comparison with home's, read in the session that applies the stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from embassy.model.verification import DIGEST_BYTES, Key, TableBegin
from embassy.pg import row_digests
from embassy.pg.apply_session import ApplySession, StatementFailed, judgement
from embassy.pg.digested_table import digested_table
from embassy.pg.row_digests import Range


class Unreadable(Exception):  # noqa: N818 - not an error of the stream: it says why a table stays undecided
    """The table cannot be compared; the message says why."""


class ReplicaRows:
    """Reads a table as home reads its own. What fails leaves the open transaction as it was."""

    def __init__(self, session: ApplySession, begin: TableBegin) -> None:
        """Look the table up.

        Raises:
            Unreadable: the replica has none that can be compared.
            TransientError: the session ended.
        """
        self._session = session
        self._connection = session.connection
        with aside(self._session):
            found = digested_table(self._connection, begin.table, begin.key)
        if found is None:
            raise Unreadable("the replica lacks the table")
        lacking = [name for name in begin.columns if name not in found.columns]
        if lacking:
            raise Unreadable(f"the replica lacks column {lacking[0]}")
        for column, theirs in zip(found.key, begin.collations, strict=True):
            if not _alike(column.collation, theirs):
                raise Unreadable(
                    f"key column {column.name} is ordered by {theirs or 'bytes'} at home, and by "
                    f"{column.collation or 'bytes'} in the replica: embassy verify --by-digest compares the table"
                )
        self._table = found._replace(columns=begin.columns)

    def summed(self, after: Key | None, until: Key | None) -> tuple[int, bytes]:
        """How many rows a range has, and the sum of their digests.

        Raises:
            Unreadable, TransientError: as for the constructor; so do all others.
        """
        with aside(self._session):
            return row_digests.range_sum(self._connection, self._table, Range(after, until))

    def between(self, after: Key | None, until: Key | None) -> dict[Key, bytes]:
        """The digests of a range, cut as in messages."""
        with aside(self._session):
            rows = row_digests.range_rows(self._connection, self._table, Range(after, until))
        return {row.key: row.digest[:DIGEST_BYTES] for row in rows}

    def listed(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """The digests of those of the rows listed that are there."""
        with aside(self._session):
            rows = row_digests.listed_rows(self._connection, self._table, keys)
        return {row.key: row.digest[:DIGEST_BYTES] for row in rows}

    def bag_summed(self, first_byte: tuple[int, int]) -> tuple[int, bytes]:
        """Of the rows whose digest begins with a byte of a range: how many, and the sum of their digests."""
        with aside(self._session):
            return row_digests.bag_sum(self._connection, self._table, first_byte)

    def bag(self, first_byte: tuple[int, int]) -> list[bytes]:
        """Their digests."""
        with aside(self._session):
            return list(row_digests.bag_rows(self._connection, self._table, first_byte))


@contextmanager
def aside(session: ApplySession) -> Iterator[None]:
    """Do something in the open transaction that leaves it as it was if it fails.

    Raises:
        Unreadable: it failed; the message has no value of a row.
        TransientError: the session ended.
    """
    connection = session.connection
    session.run()
    try:
        connection.execute("SAVEPOINT embassy_verify")
        yield
        connection.execute("RELEASE SAVEPOINT embassy_verify")
    except psycopg.Error as error:
        transient = judgement(error, session.place)
        if transient is not None:
            raise transient from error
        connection.execute("ROLLBACK TO SAVEPOINT embassy_verify")
        connection.execute("RELEASE SAVEPOINT embassy_verify")
        raise Unreadable(StatementFailed(0, error).reason) from error


def _alike(ours: str, theirs: str) -> bool:
    """Whether two orders are one; a version that only one side knows tells nothing."""
    shorter, longer = sorted((_spelt(ours), _spelt(theirs)), key=len)
    return bool(shorter) == bool(longer) and longer[: len(shorter)] == shorter


def _spelt(order: str) -> list[str]:
    return order.lower().replace("-", "").split()
