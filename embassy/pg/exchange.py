"""Several statements in one exchange, each a transaction of its own: for what a session asks again and again.

An exchange costs whoever asks two switches between threads, however much is asked. A statement is prepared when it is
first asked, and its answer needs no cursor. Like `embassy.pg.apply_session` this knows libpq.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, generators, pq
from psycopg.adapt import Transformer

from embassy.model.errors import EmbassyError

_NUMBERS = itertools.count(1)

Row = tuple[Any, ...]
Answer = Row | psycopg.Error | None
"""The first row; None: there is none, nor should there be one. Or why the statement failed."""


class Question(NamedTuple):
    """A statement."""

    sql: bytes
    values: tuple[bytes | None, ...] = ()
    """Of its parameters $1, $2 and so on, in text form."""


class Errand(NamedTuple):
    """Something that is asked, and what is done with the answer."""

    ask: Callable[[], Question]
    take: Callable[[Answer], bool]
    """Returns whether that is all; if not it is asked again at once."""
    takes: type[psycopg.Error] | tuple[type[psycopg.Error], ...] = ()
    """Which errors are answers to it; every other one is raised."""


def plain(sql: str, *, unless: type[psycopg.Error] | tuple[type[psycopg.Error], ...] = ()) -> Errand:
    """A statement that answers nothing, and may fail in a way that is no harm."""
    question = Question(sql.encode())
    return Errand(lambda: question, lambda _: True, unless)


class Exchange:
    """Asks with one session in autocommit mode, between whose other statements it is called."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.prepare_threshold = None  # psycopg drops all prepared statements when it wants to drop its own
        self._connection = connection
        self._pgconn = connection.pgconn
        self._rows = Transformer(connection)
        self._names: dict[bytes, bytes] = {}

    def run(self, errands: Sequence[Errand]) -> None:
        """Ask all, and give each its answer.

        Raises:
            psycopg.Error, EmbassyError: the session broke; or what the first errand raised that did, when all are done.
        """
        failed: Exception | None = None
        while errands:
            again = []
            answers = self.ask([errand.ask() for errand in errands])
            for errand, answer in zip(errands, answers, strict=True):
                try:
                    if isinstance(answer, psycopg.Error) and not isinstance(answer, errand.takes):
                        raise answer
                    if not errand.take(answer):
                        again.append(errand)
                except (psycopg.Error, EmbassyError) as error:
                    failed = failed or error
            errands = again
        if failed is not None:
            raise failed

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order.

        Raises:
            psycopg.OperationalError: the session broke, for the reason that the server gave if it gave one.
        """
        return self._connection.wait(self._asked(questions))

    def _asked(self, questions: Sequence[Question]) -> Generator[Any, Any, list[Answer]]:
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        for sql, values in questions:
            name = self._names.get(sql)
            if name is None:
                name = b"embassy_asked_%d" % next(_NUMBERS)
                pgconn.send_prepare(name, sql)
            pgconn.send_query_prepared(name, values or None)
            pgconn.pipeline_sync()
            self._names[sql] = name
        yield from generators.send(pgconn)
        answers: list[Answer] = []
        told: list[pq.abc.PGresult] = []
        while len(answers) < len(questions):
            try:
                result = yield from generators.fetch(pgconn)
            except errors.OperationalError as error:
                reason = _reason(told)
                if reason is None:
                    raise
                raise reason from error
            if result is not None:
                told.append(result)
            elif pgconn.status != pq.ConnStatus.OK:
                raise errors.OperationalError("the server closed the connection")
            if told and told[-1].status == pq.ExecStatus.PIPELINE_SYNC:
                answers.append(self._answer(questions[len(answers)].sql, told[:-1]))
                told = []
        pgconn.exit_pipeline_mode()
        return answers

    def _answer(self, sql: bytes, results: Sequence[pq.abc.PGresult]) -> Answer:
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                self._names.pop(sql, None)  # perhaps it was not prepared
                return errors.error_from_result(result)
        last = results[-1]
        if last.status != pq.ExecStatus.TUPLES_OK or not last.ntuples:
            return None
        self._rows.set_pgresult(last)
        row: Row = self._rows.load_row(0, tuple)
        return row


def _reason(told: Sequence[pq.abc.PGresult]) -> errors.OperationalError | None:
    """Why the server ended a session, if that was the last that it told: libpq knows only that it was closed behind it.

    Of whatever class the reason is, the session is over.
    """
    if not told or told[-1].status != pq.ExecStatus.FATAL_ERROR:
        return None
    why = errors.error_from_result(told[-1])
    return why if isinstance(why, errors.OperationalError) else errors.OperationalError(str(why))
