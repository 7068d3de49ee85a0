"""The state of a stream's replication slot and of the log it reads."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn

_FAILOVER_SLOTS_VERSION = 170_000


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


def slot_state(connection: psycopg.Connection, slot: str) -> SlotState:
    """Read the slot.

    Raises:
        IntegrityError: the slot does not exist, or the server has dropped log that it needed.
    """
    row = connection.execute(
        """SELECT confirmed_flush_lsn::text,
                  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                        ELSE pg_current_wal_flush_lsn() END)::text,
                  coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                        ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint,
                  safe_wal_size, wal_status, active
           FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()""",
        (slot,),
    ).fetchone()
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


def slot_exists(connection: psycopg.Connection, slot: str) -> bool:
    """Whether a slot of that name is there, in whichever database."""
    return (
        connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone() is not None
    )


def create_slot(connection: psycopg.Connection, slot: str) -> Lsn:
    """Create a logical slot, synchronised to the source's standbys where the server can (17+).

    Returns:
        The position from which it sends changes.
    """
    failover = ", failover => true" if connection.info.server_version >= _FAILOVER_SLOTS_VERSION else ""
    row = connection.execute(
        f"SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput'{failover})".encode(), (slot,)
    ).fetchone()
    assert row is not None, "the function returns the slot it made"
    return Lsn.parse(row[0])
