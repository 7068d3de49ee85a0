"""Clients: threads that keep doing business with a registry, whatever happens to its server."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import psycopg

from deploy.workload.attempt import Attempt, Habits, is_expected
from deploy.workload.registry import RegistryWorkload, Scale, TransactionKind
from deploy.workload.severing import sever

if TYPE_CHECKING:
    from deploy.workload.ledger import Ledger
    from deploy.workload.registry import Connection

_BACKOFF_FIRST_SECONDS = 0.05
_BACKOFF_LAST_SECONDS = 1.0
_BEHIND_AT_MOST_SECONDS = 1.0


class Deck:
    """Deals kinds of transactions: each as often as its weight in every round, in shuffled order.

    Unlike independent draws this makes sure that rare kinds occur. One deck may serve several clients.
    """

    def __init__(self, kinds: tuple[TransactionKind, ...], rng: Random) -> None:
        self._round = [kind for kind in kinds for _ in range(kind.weight)]
        self._rng = rng
        self._left: list[TransactionKind] = []
        self._lock = threading.Lock()

    def deal(self) -> TransactionKind:
        """Return the next kind."""
        with self._lock:
            if not self._left:
                self._left = self._round.copy()
                self._rng.shuffle(self._left)
            return self._left.pop()


def crew(
    workload: RegistryWorkload,
    dsn: str,
    ledger: Ledger,
    *,
    clients: int,
    seed: int,
    rate_per_second: float | None = 20.0,
    scale: Scale | None = None,
) -> tuple[Client, ...]:
    """Return clients, numbered from 1 and not started, that share one deck and the rate; see ``Client``."""
    deck = Deck(workload.transactions, Random(f"{seed}/{workload.name}/deck"))  # noqa: S311 - believable, not secret
    return tuple(
        Client(
            workload,
            dsn,
            ledger,
            client=number,
            seed=seed,
            rate_per_second=None if rate_per_second is None else rate_per_second / clients,
            scale=scale,
            deck=deck,
        )
        for number in range(1, clients + 1)
    )


class Client:
    """One client of a registry, on a thread of its own.

    It takes kinds from a deck, runs them at a steady rate and writes to the ledger what it was told. Over crashes of the
    server it reconnects until it is told to stop. A transaction that fails is over: the next one is another, with a
    token of its own; nothing is ever tried again under the same token.
    """

    def __init__(
        self,
        workload: RegistryWorkload,
        dsn: str,
        ledger: Ledger,
        *,
        client: int,
        seed: int,
        rate_per_second: float | None = 20.0,
        scale: Scale | None = None,
        habits: Habits | None = None,
        deck: Deck | None = None,
    ) -> None:
        """Prepare a client; ``start`` starts it.

        Args:
            workload: the registry's business; it must have transactions.
            dsn: where the registry lives.
            ledger: told about every transaction.
            client: its number in the journal; no two clients that run at once share one.
            seed: together with ``client`` determines what it chooses to do.
            rate_per_second: transactions started a second; None for as many as the server takes.
            scale: what the registry was seeded with.
            habits: shares of rollbacks, savepoints and empty transactions.
            deck: shared with other clients; one of its own if not given.
        """
        self._dsn = dsn
        self._ledger = ledger
        rng = Random(f"{seed}/{workload.name}/{client}")  # noqa: S311 - believable, not secret
        self._deck = deck or Deck(workload.transactions, rng)
        self._attempt = Attempt(
            workload, ledger, rng, client=client, scale=scale or Scale(), habits=habits or Habits()
        )
        self._period_seconds = 0.0 if rate_per_second is None else 1.0 / rate_per_second
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._name = f"{workload.name}/{client}"
        self.last_error = ""
        """Why the last connection could not be opened or was lost, for whoever sees no progress."""
        self._thread = threading.Thread(target=self._work, name=f"client {self._name}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Finish the transaction under way and stop; returns at once."""
        self._stopping.set()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Finish the transaction under way and stop; after ``timeout_seconds`` cut its connection.

        Raises:
            TimeoutError: the thread did not end even so.
        """
        self._stopping.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            sever(self._connection)
            self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"client {self._name} did not stop")

    def is_alive(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def _work(self) -> None:
        backoff_seconds = _BACKOFF_FIRST_SECONDS
        while not self._stopping.is_set():
            try:
                with self._connect() as connection:
                    self._connection = connection
                    backoff_seconds = _BACKOFF_FIRST_SECONDS
                    self._serve(connection)
            except psycopg.OperationalError as error:
                self.last_error = str(error)
            finally:
                self._connection = None
            self._stopping.wait(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, _BACKOFF_LAST_SECONDS)

    def _connect(self) -> Connection:
        return psycopg.connect(
            self._dsn, autocommit=True, application_name=f"client {self._name}", connect_timeout=5
        )

    def _serve(self, connection: Connection) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            kind = self._deck.deal()
            try:
                self._attempt.run(connection, kind)
            except psycopg.Error as error:
                if not is_expected(error):
                    self._ledger.report_failure(f"{self._name}: {kind.name}: {type(error).__name__}: {error}")
                if connection.closed:
                    self.last_error = str(error)
                    return
                connection.execute("ROLLBACK")
            if self._period_seconds:
                due = max(due + self._period_seconds, time.monotonic() - _BEHIND_AT_MOST_SECONDS)
                self._stopping.wait(max(0.0, due - time.monotonic()))


def stop_all(clients: Sequence[Client]) -> None:
    """Let all finish the transaction they are at, together, and wait for their ends.

    Raises:
        TimeoutError: one does not end.
    """
    for client in clients:
        client.ask_to_stop()
    for client in clients:
        client.stop()
