"""The state of a stream's replication slot and of the log it reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors, sql

from embassy.model.errors import IntegrityError, TransientError
from embassy.model.lsn import Lsn
from embassy.pg.connection import connect
from embassy.pg.exchange import Answer, Errand, Question
from embassy.pg.sessions import end_sessions

_HOLDS: LiteralString = (
    "a.pid = (SELECT s.active_pid FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = %s)"
)
_FAILOVER_SLOTS_VERSION = 170_000
_SLOT_OPTIONS_VERSION = 150_000


class SlotState(NamedTuple):
    """One row of pg_replication_slots, and the end of the log."""

    confirmed_lsn: Lsn
    flushed_lsn: Lsn
    retained_bytes: int
    """Write-ahead log that the slot keeps from being recycled."""
    safe_bytes: int | None
    """How much more may be written before the slot is in danger; None: without limit."""
    wal_status: str
    active: bool


_STATE = """SELECT confirmed_flush_lsn::text,
                  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                        ELSE pg_current_wal_flush_lsn() END)::text,
                  coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                        ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint,
                  safe_wal_size, wal_status, active
           FROM pg_replication_slots WHERE slot_name = {} AND database = current_database()"""


def slot_state(connection: psycopg.Connection[Any], slot: str) -> SlotState:
    """Read the slot.

    Raises:
        IntegrityError: the slot does not exist, or the server has dropped log that it needed.
    """
    return _state(connection.execute(_state_question(slot).sql).fetchone(), slot)


def slot_errand(slot: str, found: Callable[[SlotState], None]) -> Errand:
    """The same, to be asked along with other things."""
    question = _state_question(slot)

    def take(answer: Answer) -> bool:
        assert not isinstance(answer, psycopg.Error), "the exchange raises it"
        found(_state(answer, slot))
        return True

    return Errand(lambda: question, take)


def _state_question(slot: str) -> Question:
    return Question(_STATE.format(sql.Literal(slot).as_string()).encode())


def _state(row: tuple[Any, ...] | None, slot: str) -> SlotState:
    place = f"slot {slot}"
    if row is None:
        raise IntegrityError(
            "the replication slot does not exist in this database",
            place=place,
            hint="a new stream's slot is made by embassy provision apply; if this one was dropped, the changes since "
            "then are not in the stream: resync it",
        )
    confirmed, flushed, retained, safe, wal_status, active = row
    if wal_status == "lost" or confirmed is None:
        raise IntegrityError(
            "the source has dropped log that the slot still needed",
            place=place,
            hint="resync the stream; then raise max_slot_wal_keep_size or shorten outages",
        )
    return SlotState(Lsn.parse(confirmed), Lsn.parse(flushed), retained, safe, wal_status, active)


class FoundSlot(NamedTuple):
    """A slot of a name, in whichever database."""

    database: str
    plugin: str
    wal_status: str
    failover: bool
    """Synchronised to standbys, so that a stream survives the promotion of one (17+)."""
    active: bool
    invalidation: str
    """Why it can no longer be used; empty: it can."""


def find_slot(connection: psycopg.Connection[Any], slot: str) -> FoundSlot | None:
    """The slot of that name, if there is one."""
    row = connection.execute(
        """SELECT coalesce(database, ''), coalesce(plugin, ''), coalesce(wal_status, ''),
                  coalesce((pg_catalog.to_jsonb(s) ->> 'failover')::boolean, false), active,
                  coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason', '')
           FROM pg_catalog.pg_replication_slots s WHERE slot_name = %s""",
        (slot,),
    ).fetchone()
    return None if row is None else FoundSlot(*row)


class NewSlot(NamedTuple):
    """A slot that was just made."""

    lsn: Lsn
    """From here on it sends changes."""
    snapshot: str
    """A session that sets it sees just the rows that the slot will not send; valid while the slot's maker lives."""


@contextmanager
def new_slot(dsn: str, slot: str, *, wait_seconds: float) -> Iterator[NewSlot]:
    """Create a logical slot, synchronised to the source's standbys where the server can (17+).

    PostgreSQL first waits for the transactions that are open now. Inside the context the slot's snapshot is valid.

    Raises:
        TransientError: they did not end in time; there is no slot then.
    """
    with connect(dsn, application_name="embassy-provision", autocommit=True, replication="database") as walsender:
        version = walsender.info.server_version
        options: LiteralString = "(SNAPSHOT 'export', FAILOVER true)"
        if version < _FAILOVER_SLOTS_VERSION:
            options = "(SNAPSHOT 'export')" if version >= _SLOT_OPTIONS_VERSION else "EXPORT_SNAPSHOT"
        patience = threading.Timer(wait_seconds, walsender.cancel_safe)
        patience.start()
        try:
            row = walsender.execute(
                sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {}").format(
                    sql.Identifier(slot), sql.SQL(options)
                )
            ).fetchone()
        except errors.QueryCanceled as error:
            raise TransientError(
                f"transactions that are open keep the slot from being made; gave up after {wait_seconds:g} s",
                place=f"slot {slot}",
                hint="end them (pg_stat_activity, pg_prepared_xacts: the oldest xact_start), then run it again",
            ) from error
        finally:
            patience.cancel()
            patience.join()
        assert row is not None, "the command returns the slot it made"
        yield NewSlot(Lsn.parse(row[1]), row[2])


def end_holder(connection: psycopg.Connection[Any], slot: str) -> None:
    """End the session that holds a slot, if one does.

    Raises:
        TransientError: it does not let go.
    """
    if end_sessions(connection, _HOLDS, slot).stayed:
        raise TransientError(
            "a session holds the slot and does not end",
            place=f"slot {slot}",
            hint="stop the producer, then try again",
        )


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> None:
    """Drop a slot that nobody uses."""
    connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (slot,))
