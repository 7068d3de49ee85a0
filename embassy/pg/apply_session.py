"""The session that writes to a replica: statements in pipelines, rows by COPY, and nothing about what they mean.

Statements are prepared once and their parameters go to libpq as the bytes they are, so a statement over ten thousand
rows costs what one over a single row costs. This is the only place of the consumer that knows libpq.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import errors, generators, pq

from embassy.model.errors import EmbassyError, RefusedError, TransientError

_SETTINGS = {
    # The rows were checked and the triggers fired at the source.
    "session_replication_role": "replica",
    # The progress moves with the rows: what a crash of the server takes, it takes of both, and it is applied again.
    "synchronous_commit": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # A plan that is kept may grow wrong as its table grows; planning costs little beside thousands of rows.
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "64MB",
    # The server too must notice a peer that is gone: its session holds the stream's lease.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
_PREPARED_MOST = 2000
_AT_ONCE_BYTES = 32 << 10
_COPY_PIECE_BYTES = 256 << 10
_TRANSIENT = ("08", "40", "53", "57", "58")
_LOCK_NOT_AVAILABLE, _IDLE_TIMEOUT, _READ_ONLY = "55P03", "25P03", "25006"
# The server's words for these name objects only; those of other classes may quote a row's values.
_SPEAKABLE = ("0A", "23", "25", "42", "55")

_Result = TypeVar("_Result")


class Query(NamedTuple):
    """A statement, prepared when it is first used."""

    sql: str
    types: tuple[int, ...] = ()
    """Oids of the parameters' types; what is left out follows from the statement."""
    binary: bool = False
    """Whether the parameters are in binary form."""


class Call(NamedTuple):
    """One execution of a query."""

    query: Query
    values: Sequence[bytes | None] = ()


_BEGIN = Query("BEGIN")


class StatementFailed(Exception):  # noqa: N818 - what it means is for the caller to say
    """The server refused a statement; the transaction is aborted up to its last savepoint.

    Attributes:
        index: which of the calls of `ApplySession.run` it was.
        sqlstate: the error's code.
        reason: what happened, without any value of a row.
    """

    def __init__(self, index: int, error: psycopg.Error) -> None:
        self.index = index
        self.sqlstate = error.sqlstate or ""
        self.reason = _reason(error)
        super().__init__(f"{self.sqlstate} {self.reason}")


class ApplySession:
    """Wraps a connection in autocommit mode; its caller's statements begin and end transactions."""

    def __init__(self, connection: psycopg.Connection[Any], *, place: str, pulse: Callable[[], None]) -> None:
        # psycopg's own prepared statements would go when this class drops its own, and it would not notice.
        connection.prepare_threshold = None
        self.connection = connection
        self.place = place
        self._pgconn = connection.pgconn
        self._pulse = pulse
        self._names: dict[Query, bytes] = {}
        self._made = 0
        self._deferred: list[Query] = []

    @staticmethod
    def settings() -> dict[str, str]:
        """What the session's connection must be opened with."""
        return dict(_SETTINGS)

    def begin(self) -> None:
        """Begin a transaction with the next statement."""
        if len(self._names) >= _PREPARED_MOST:
            self.forget()
        self.defer(_BEGIN)

    def forget(self) -> None:
        """Prepare every statement anew: there are many, or the tables that they name were altered."""
        self._names.clear()
        self.connection.execute("DEALLOCATE ALL")

    def defer(self, query: Query) -> None:
        """Send a statement that cannot fail and has no parameters along with the next one."""
        self._deferred.append(query)

    def run(self, calls: Sequence[Call] = ()) -> list[int]:
        """Execute in order, in one round trip; returns each one's number of rows.

        Raises:
            StatementFailed: one failed, and none after it was executed.
            TransientError: the session ended, or the server asks to try later.
            RefusedError: the database is read-only.
        """
        deferred = len(self._deferred)
        everything = [*map(Call, self._deferred), *calls]
        self._deferred.clear()
        if not everything:
            return []
        commands: deque[Callable[[], None]] = deque()
        owners: list[tuple[int, Query | None]] = []
        named: dict[Query, bytes] = {}
        for index, (query, values) in enumerate(everything, -deferred):
            name = self._names.get(query) or named.get(query)
            if name is None:
                self._made += 1
                name = named[query] = b"embassy_%d" % self._made
                owners.append((index, query))
                prepare = self._pgconn.send_prepare
                commands.append(partial(prepare, name, query.sql.encode(), query.types or None))
            owners.append((index, None))
            formats = [1] * len(values) if query.binary else None
            commands.append(partial(self._pgconn.send_query_prepared, name, values or None, formats))
        commands.append(self._pgconn.pipeline_sync)
        small = sum(len(value or b"") for _, values in everything for value in values) < _AT_ONCE_BYTES
        counts: list[int] = []
        failed: StatementFailed | None = None
        for (index, prepared), result in zip(
            owners, self._wait(self._exchange(commands, at_once=small)), strict=True
        ):
            if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                if prepared is not None:
                    self._names[prepared] = named[prepared]
                else:
                    counts.append(result.command_tuples or 0)
            elif result.status != pq.ExecStatus.PIPELINE_ABORTED and failed is None:
                failed = StatementFailed(index, self._judged(errors.error_from_result(result)))
        if failed is not None:
            raise failed
        return counts[deferred:]

    def count(self, call: Call, planned: Sequence[str]) -> int:
        """The number that a query gives; a transaction that is open stays as it is, and no other is begun.

        Args:
            call: the query.
            planned: planner's switches that are on for it alone.

        Raises:
            StatementFailed, TransientError, RefusedError: as for `run`.
        """
        with self.connection.transaction(force_rollback=True):
            for switch in planned:
                self.connection.execute(f"SET LOCAL {switch} = on".encode())
            self._pgconn.send_query_params(call.query.sql.encode(), list(call.values), call.query.types)
            *_, last = self._wait(generators.execute(self._pgconn))
            if last.status != pq.ExecStatus.TUPLES_OK:
                raise StatementFailed(0, self._judged(errors.error_from_result(last)))
            return int(last.get_value(0, 0) or 0)

    def copy(self, statement: str, blocks: Iterable[bytes]) -> int:
        """Run a COPY … FROM STDIN; returns its number of rows. While the server takes a block, the next one is made.

        Raises:
            StatementFailed, TransientError, RefusedError: as for `run`.
        """
        statements = "; ".join([*(query.sql for query in self._deferred), statement])
        self._deferred.clear()
        try:
            self._pgconn.send_query(statements.encode())
            *_, last = self._wait(generators.execute(self._pgconn))
            if last.status != pq.ExecStatus.COPY_IN:
                raise errors.error_from_result(last)
            for block in blocks:
                view = memoryview(block)
                for start in range(0, len(block), _COPY_PIECE_BYTES):
                    self._wait(generators.copy_to(self._pgconn, view[start : start + _COPY_PIECE_BYTES]))
            ended = self._wait(generators.copy_end(self._pgconn, None))
        except psycopg.Error as error:
            raise StatementFailed(0, self._judged(error)) from error
        return ended.command_tuples or 0

    def _exchange(self, commands: deque[Callable[[], None]], *, at_once: bool) -> Generator[Any, Any, list[Any]]:
        """Send all, receiving meanwhile; returns one result a command but the synchronisation.

        Args:
            commands: what to send.
            at_once: whether to put all into libpq's buffer, which the synchronisation sends. Else each waits until the
                socket takes it, and travels in a packet of its own.
        """
        results: list[Any] = []
        fetched: list[list[Any]] = []
        self._pgconn.enter_pipeline_mode()
        if at_once:
            for command in commands:
                command()
        else:
            fetched = yield from generators.pipeline_communicate(self._pgconn, commands)
        yield from generators.send(self._pgconn)  # what it sent may still stand in libpq's buffer
        while True:
            for answers in fetched:
                if answers[-1].status == pq.ExecStatus.PIPELINE_SYNC:
                    self._pgconn.exit_pipeline_mode()
                    return results
                results.append(answers[-1])
            answers = yield from generators.fetch_many(self._pgconn)
            fetched = [answers] if answers else []
            if not answers and self._pgconn.status != pq.ConnStatus.OK:
                raise errors.OperationalError("the server closed the connection")

    def _wait(self, generator: Generator[Any, Any, _Result]) -> _Result:
        try:
            return self.connection.wait(self._pulsed(generator))
        except psycopg.OperationalError as error:
            raise self._judged(error) from error

    def _pulsed(self, generator: Generator[Any, Any, _Result]) -> Generator[Any, Any, _Result]:
        """Tell that the session lives while a long statement runs: a lost one is noticed by keepalives."""
        try:
            state = next(generator)
            while True:
                ready = yield state
                if not ready:
                    self._pulse()
                state = generator.send(ready)
        except StopIteration as stopped:
            result: _Result = stopped.value
            return result

    def _judged(self, error: psycopg.Error) -> psycopg.Error:
        """The error itself if the statement is to blame for it."""
        transient = judgement(error, self.place)
        if transient is not None:
            raise transient from error
        return error


def judgement(error: psycopg.Error, place: str) -> EmbassyError | None:
    """The error as it is to be told if not the statement but the server or the session is to blame, else None."""
    state = error.sqlstate
    if state is None or state.startswith(_TRANSIENT) or state in (_LOCK_NOT_AVAILABLE, _IDLE_TIMEOUT):
        words = " ".join(str(error).split()) if state is None else _reason(error)
        return TransientError(f"the replica does not answer: {words}", place=place)
    if state == _READ_ONLY:
        return RefusedError(
            "the replica's database is read-only",
            place=place,
            hint="is the server a standby? the dsn must name the one that can be written",
        )
    return None


def _reason(error: psycopg.Error) -> str:
    """What happened, for people, without any value of a row."""
    state = error.sqlstate or ""
    diag = error.diag
    if state.startswith(_SPEAKABLE) or (state.startswith(_TRANSIENT) and diag.message_primary):
        return f"{diag.message_primary} ({state})"
    name = type(error).__name__
    where = [
        f"{kind} {found}"
        for kind, found in (
            ("column", diag.column_name),
            ("type", diag.datatype_name),
            ("constraint", diag.constraint_name),
        )
        if found
    ]
    return f"{name} ({state})" + (f", {', '.join(where)}" if where else "")
