"""How much of a batch may be applied, and when: what operators have said, a stream's thresholds, its delay. Pure."""

from __future__ import annotations

from typing import NamedTuple

from consumers.admission import Admission, Violation
from embassy.model.batch import Batch
from embassy.model.control import Control, Point
from embassy.model.errors import IntegrityError


class Passage(NamedTuple):
    """What may be done with a batch."""

    done: int
    """How many of its transactions are in the replica already."""
    upto: int
    """The transactions before this one may be applied."""
    due: float
    """When, in seconds since 1970 UTC; 0: at once."""
    end: Violation | Point | None
    """Why not all of them; None: all."""


class Gate:
    """Stands before one stream's replica while nothing new is said about it."""

    def __init__(
        self, control: Control, admission: Admission, *, delay_seconds: float = 0, until: Point | None = None
    ) -> None:
        """Open the gate.

        Args:
            control: what was said.
            admission: the thresholds.
            delay_seconds: how old a commit must be.
            until: where this run ends, whatever the delay.
        """
        self._control = control
        self._admission = admission
        self._point = until if until is not None else control.stop_at
        at_once = until is not None or (control.stop_at is not None and control.at_once)
        self._delay_seconds = 0 if at_once else delay_seconds

    def forget_parts(self) -> None:
        """The transaction that was open comes again, whole."""
        self._admission.forget()

    def judge(self, head: bytes, batch: Batch, record: bytes = b"") -> Passage:
        """Say how much of a batch may be applied.

        Args:
            head: the hash of the record before it.
            batch: the batch.
            record: the hash of its own last record.

        Raises:
            IntegrityError: the batch is not the one within which applying stopped.
        """
        transactions = batch.transactions
        done = self._control.done(head, transactions)
        if done is None:
            raise IntegrityError(
                f"the batch holds no transaction committed at {self._control.cut and self._control.cut.lsn}, behind "
                "which applying stopped",
                hint="the topic does not hold what it held then: resync the stream",
            )
        upto = len(transactions)
        end: Violation | Point | None = None
        if self._point is not None:
            behind = (i for i, transaction in enumerate(transactions) if self._point.excludes(transaction))
            upto = next(behind, upto)
            end = self._point if upto < len(transactions) else None
        violation = self._admission.judge(batch, done, record)
        if violation is not None and (violation.number < upto or batch.chunk is not None):
            upto, end = violation.number, violation
        upto = max(upto, done)
        due = 0.0
        if self._delay_seconds and done < upto:
            due = transactions[upto - 1].committed_at / 1_000_000 + self._delay_seconds
        return Passage(done, upto, due, end)
