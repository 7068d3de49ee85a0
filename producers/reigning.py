"""Whether a database writes the epoch that a producer is enrolled for: asked at each start, before anything else."""

from __future__ import annotations

from typing import Any

import psycopg

from embassy.model.errors import RefusedError, TransientError
from embassy.pg import reign as reigns
from embassy.pg import source_fence
from embassy.pg.reign import Reign
from embassy.wire.enrolment import Enrolment


def must_reign(connection: psycopg.Connection[Any], enrolment: Enrolment, name: str) -> Reign:
    """Make sure that this database writes the enrolment's epoch; ``name`` is the stream's, for errors.

    Raises:
        TransientError: it is not promoted to it yet, or was without a slot.
        RefusedError: it was superseded.
    """
    epoch = enrolment.epoch
    try:
        found = reigns.reign(connection, enrolment.stream)
    except psycopg.errors.InsufficientPrivilege as error:
        if epoch == 1:
            raise
        raise TransientError(
            f"the database lets this role see nothing of the product: it is not promoted to epoch {epoch} yet",
            place=name,
            hint="nothing to do: the promotion grants what the producer needs (promotion.reverse_role)",
        ) from error
    if found.follows > epoch:
        raise RefusedError(
            f"superseded: the database is at epoch {found.follows}, and this enrolment is of epoch {epoch}",
            place=name,
            hint="nothing that it commits counts any more; its next epoch needs an enrolment of its own",
        )
    if found.is_replica or (found.follows and found.follows < epoch):
        raise TransientError(
            f"the database is at epoch {found.follows}, and this enrolment of epoch {epoch}: it is not promoted yet",
            place=name,
            hint="nothing to do: the producer begins by itself behind embassy promote run",
        )
    if found.epoch > found.written:
        raise TransientError(
            f"the database was promoted to epoch {epoch}, and has no slot that sends it",
            place=name,
            hint="embassy provision apply, with streams.NAME.source naming this database, makes one and copies all",
        )
    fenced = source_fence.superseded_by(connection, enrolment.stream, epoch)
    if fenced is not None and fenced.proven:
        raise RefusedError(
            f"home is superseded: it was fenced for epoch {fenced.to_epoch} by {fenced.by}; this enrolment is "
            f"of epoch {epoch}",
            place=name,
            hint="nothing of home counts any more; failback begins in the embassy",
        )
    return found
