"""A table whose changes end the batch: who reads them must find the replica as it was right there."""

from __future__ import annotations

from producers.table_changes import TableChanges, TakePieces


class LastOfBatch(TableChanges):
    """Sorts its changes into the open batch, to which nothing is added but the rest of their transaction."""

    __slots__ = ()

    def takers(self, oid: bytes) -> dict[bytes, TakePieces]:  # noqa: ARG002 - the signature is the table's
        """None: every message is taken by `take`."""
        return {}

    def take(self, message: bytes) -> None:
        """Take any insert, update or delete.

        Raises:
            IntegrityError: it is malformed or does not fit the table's description.
        """
        super().take(message)
        self._batch.ends = True
