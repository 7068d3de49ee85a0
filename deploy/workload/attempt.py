"""One attempt at one business transaction, and an honest account of how it ended."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from deploy.workload.ledger import Ledger, Moment, Outcome
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind

if TYPE_CHECKING:
    from random import Random

# SQLSTATE classes that a healthy client meets: rollbacks (deadlock, serialization), resources, operator intervention,
# lost connections, and a server that is read-only after a failover.
_EXPECTED_CLASSES = ("40", "53", "57", "58", "08")
_EXPECTED_STATES = ("25006", "55P03")


@dataclass(frozen=True, slots=True)
class Habits:
    """How often a client does what applications also do, as shares of its transactions."""

    roll_back: float = 0.02
    """Everything is written, then ROLLBACK: none of it may ever show."""
    try_under_savepoint: float = 0.03
    """The work is done under a savepoint, rolled back to it, and done again."""
    release_savepoint: float = 0.05
    """The work is done in a subtransaction."""
    empty: float = 0.01
    """BEGIN, a read, COMMIT, before the transaction itself."""


def now() -> Moment:
    """Return the present on both clocks."""
    return Moment(time.time_ns(), time.monotonic_ns())


def is_expected(error: psycopg.Error) -> bool:
    """Whether a crash, a lock conflict or a full server explains an error, rather than a defect of the workload."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith(_EXPECTED_CLASSES) or state in _EXPECTED_STATES


class Attempt:
    """Runs transactions of one client over connections it is given."""

    def __init__(
        self, workload: RegistryWorkload, ledger: Ledger, rng: Random, *, client: int, scale: Scale, habits: Habits
    ) -> None:
        self._ledger = ledger
        self._rng = rng
        self._client = client
        self._scale = scale
        self._habits = habits
        self._journal = sql.SQL("INSERT INTO {} (token, kind, client, sequence) VALUES (%s, %s, %s, %s)").format(
            sql.Identifier(workload.schema, "journal")
        )
        self._last = sql.SQL("SELECT coalesce(max(sequence), 0) FROM {} WHERE client = %s").format(
            sql.Identifier(workload.schema, "journal")
        )
        self._sequence: int | None = None

    def run(self, connection: Connection, kind: TransactionKind) -> Outcome:
        """Run one transaction under a fresh token and enter it in the ledger.

        Raises:
            psycopg.Error: whatever ended the transaction; the ledger knows the outcome already.
        """
        if self._sequence is None:
            # An earlier run may have used this client's number; its journal rows stay for ever.
            (last,) = connection.execute(self._last, (self._client,)).fetchone() or (0,)
            self._sequence = int(last)
        rng, habits = self._rng, self._habits
        if rng.random() < habits.empty:
            self._nothing(connection)
        ticket = Ticket(uuid.uuid4(), self._client, self._scale)
        sequence = self._sequence + 1
        ends_in_rollback = rng.random() < habits.roll_back
        try:
            connection.execute("BEGIN")
            self._write(connection, kind, ticket, sequence)
            if ends_in_rollback:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            # COMMIT was never sent, so nothing of this can ever be visible, whatever became of the connection.
            self._ledger.roll_back(ticket.token, kind.name, self._client, sequence)
            raise
        if ends_in_rollback:
            self._ledger.roll_back(ticket.token, kind.name, self._client, sequence)
            return Outcome.ROLLED_BACK
        return self._commit(connection, kind, ticket, sequence)

    def _nothing(self, connection: Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        connection.execute("COMMIT")

    def _write(self, connection: Connection, kind: TransactionKind, ticket: Ticket, sequence: int) -> None:
        rng, habits = self._rng, self._habits
        row = (ticket.token, kind.name, self._client, sequence)
        # A coin: neither end of a transaction is special.
        journal_first = rng.random() < 0.5
        if journal_first:
            connection.execute(self._journal, row)
        manner = rng.random()
        if manner < habits.try_under_savepoint and not kind.heavy:
            self._try_in_vain(connection, kind, sequence)
            kind.run(connection, rng, ticket)
        elif manner < habits.try_under_savepoint + habits.release_savepoint:
            connection.execute("SAVEPOINT step")
            kind.run(connection, rng, ticket)
            connection.execute("RELEASE SAVEPOINT step")
        else:
            kind.run(connection, rng, ticket)
        if not journal_first:
            connection.execute(self._journal, row)

    def _try_in_vain(self, connection: Connection, kind: TransactionKind, sequence: int) -> None:
        """Do the work with a decoy token and roll back to the savepoint: a decoy on the replica is a phantom."""
        decoy = Ticket(uuid.uuid4(), self._client, self._scale)
        self._ledger.roll_back(decoy.token, kind.name, self._client, sequence)
        connection.execute("SAVEPOINT attempt")
        kind.run(connection, self._rng, decoy)
        connection.execute(self._journal, (decoy.token, kind.name, self._client, sequence))
        connection.execute("ROLLBACK TO SAVEPOINT attempt")

    def _commit(self, connection: Connection, kind: TransactionKind, ticket: Ticket, sequence: int) -> Outcome:
        self._ledger.enter(ticket.token, kind.name, self._client, sequence, now())
        try:
            answer = connection.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            # An error over a live connection is the server's word; anything else leaves the outcome open, even a
            # FATAL one: a backend told to stop while it waits for its standbys has committed already.
            if connection.closed or error.sqlstate is None or error.diag.severity_nonlocalized != "ERROR":
                self._sequence = sequence
                self._ledger.settle(ticket.token, Outcome.UNKNOWN, now())
            else:
                self._ledger.settle(ticket.token, Outcome.ROLLED_BACK, now())
            raise
        # A COMMIT of a failed transaction is answered with ROLLBACK, not with an error.
        outcome = Outcome.COMMITTED if answer == "COMMIT" else Outcome.ROLLED_BACK
        if outcome is Outcome.COMMITTED:
            self._sequence = sequence
        self._ledger.settle(ticket.token, outcome, now())
        return outcome
