"""Bringing one superseded database home: step after step, each decided from what is seen, and safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import EmbassyError, IntegrityError, RefusedError, StaleError
from embassy.model.record import Head
from embassy.model.touched import Touched
from embassy.model.verification import TableName
from embassy.model.wording import counted
from embassy.pg import promotion_store, replica_turn, source_fence, verify_store
from embassy.pg import reign as reigns
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.replica_turn import OwnSlot
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.pg.slots import end_holder
from embassy.pg.source_fence import Fence
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.pg.table_copies import awaited, registry_tables
from embassy.runtime.failpoints import failpoint
from failover.conflicts import lacking
from failover.failback import FailbackStep, SeenHome, decide_failback
from failover.promotion import Finished, Refuse, Why

_APPLICATION = "embassy-failback"
_REFUSALS: Mapping[Why, type[EmbassyError]] = {Why.STALE: StaleError}


class HomeWish(NamedTuple):
    """Which database comes home, and on whose word."""

    name: str
    stream: bytes
    nonce: bytes
    site: str
    """That superseded it: which it follows from now on."""
    genesis: Head
    """Of the epoch that superseded it."""
    fenced_at: datetime | None
    """When the embassy saw this database shut, in a switchover; None: a disaster."""
    sealed_at: datetime | None
    """When the embassy had what it has of this database, and nobody had written there yet; by the embassy's clock."""
    application_roles: tuple[str, ...]
    by: str
    reason: str


class HomePorts(NamedTuple):
    """What it reaches out to."""

    dsn: str
    revoke: Callable[[psycopg.Connection[Any], Sequence[str]], None]
    """Takes the application's roles their login, unless other registries of the server are open, which share them."""
    may_bundle: Callable[[], object]
    """Raises ConfigurationError where no place is named for a file; asked before anything is done."""
    bundle: Callable[[OwnSlot], Mapping[str, Any]]
    """Writes what never shipped to a file that stays; returns what is noted of it: ``file``, ``transactions``, ``tables``
    (schema and name of each that it touches), ``statements`` (how many change the schema), and what
    `failover.conflicts.lacking` wants."""
    kept: Callable[[Mapping[str, Any]], bool]
    """Whether the file of which that was noted is there, and as it was written."""
    touched: Callable[[OwnSlot], Mapping[TableName, Touched] | None]
    """The rows that what never shipped touches; None: it cannot be told."""
    level: Callable[[psycopg.Connection[Any]], None]
    """Brings the tables that wait for rows level; returns once none waits."""
    tell: Callable[[FailbackStep, str], None]


class StreamFailback:
    """Runs a report's part about one database."""

    def __init__(self, wish: HomeWish, ports: HomePorts) -> None:
        self.name = wish.name
        self.place = place_of(ports.dsn)
        self._wish = wish
        self._ports = ports
        self._told: dict[str, Any] = {}
        self._kept = False

    def run(self) -> Mapping[str, Any]:
        """Take every step that is left; returns what was done, and which tables are not proven to be level.

        Raises:
            RefusedError: it must not be done, as things are.
            ConfigurationError: a file has to be written, and no place is named for it.
            StaleError: another run is at it, or the report is not the latest.
            TransientError: a database is unreachable, or a table stays locked; run it again.
            IntegrityError: what never shipped cannot be told any more.
        """
        with (
            transient(self.place),
            explained(self.place),
            connect(
                self._ports.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS
            ) as connection,
        ):
            if not PROMOTION_LOCK.try_take(connection, self._wish.stream):
                raise StaleError(
                    "another run is at work on this stream",
                    place=self.name,
                    hint="wait for it; run this again if that run has died",
                )
            replica_turn.prepare(connection)
            while True:
                seen = self._look(connection)
                action = decide_failback(seen)
                if isinstance(action, Finished):
                    noted = self._noted(connection)  # whichever run made it: what it lacks is told each time
                    bundle = {} if noted is None else {"bundle": noted}
                    unproven = [{"table": table, "why": why} for table, why in self._unproven(connection)]
                    told = {"name": self.name, "stream": self._wish.stream.hex(), **bundle, **self._told}
                    return {**told, "unproven": unproven}
                if isinstance(action, Refuse):
                    raise _REFUSALS.get(action.why, RefusedError)(action.reason, place=self.name, hint=action.hint)
                if not seen.bundled:
                    self._ports.may_bundle()
                self._take(connection, action.step)

    def _look(self, connection: psycopg.Connection[Any]) -> SeenHome:
        wish = self._wish
        reign = reigns.reign(connection, wish.stream)
        begun = reign.follows >= wish.genesis.epoch
        cleared = begun or self._shipped_all(connection) or replica_turn.is_cleared(connection, wish.nonce)
        return SeenHome(
            to_epoch=wish.genesis.epoch,
            epoch=reign.follows,
            raised=reign.raised,
            shut=begun or replica_turn.is_shut(connection, wish.nonce),
            bundled=cleared or self._is_kept(connection),
            guarded=begun or replica_turn.is_guarded(connection),
            cleared=cleared,
            slot=not begun and replica_turn.own_slot(connection, wish.stream) is not None,
            level=not awaited(connection),
        )

    def _take(self, connection: psycopg.Connection[Any], step: FailbackStep) -> None:
        self._ports.tell(step, "")
        failpoint(f"failback.before_{step.value}")
        takers: Mapping[FailbackStep, Callable[[psycopg.Connection[Any]], str]] = {
            FailbackStep.FENCE: self._fence,
            FailbackStep.BUNDLE: self._bundle,
            FailbackStep.GUARD: self._guard,
            FailbackStep.CLEAR: self._clear,
            FailbackStep.SLOT: self._drop_slot,
            FailbackStep.BEGIN: self._begin,
            FailbackStep.LEVEL: self._level,
        }
        words = takers[step](connection)
        failpoint(f"failback.after_{step.value}")
        self._ports.tell(step, words)

    def _fence(self, connection: psycopg.Connection[Any]) -> str:
        wish = self._wish
        if not source_fence.is_ready(connection):
            raise RefusedError(
                "the database has no table that tells of fences",
                place=self.place,
                hint="embassy provision apply, with streams.NAME.source naming it, adds it",
            )
        done = source_fence.fence(
            connection,
            Fence(wish.nonce, wish.stream, wish.genesis.epoch, wish.by, wish.reason, promoted=True),
            roles=wish.application_roles,
            place=self.place,
            revoke=self._ports.revoke,
        )
        return f"{done.tables} tables shut, {done.sessions} sessions ended"

    def _shipped_all(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether the embassy saw this database shut, and it is that very one: nothing was committed behind that."""
        if self._wish.fenced_at is None:
            return False
        return promotion_store.home_fenced_at(connection, self._wish.nonce) == self._wish.fenced_at

    def _is_kept(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether what never shipped is in a file, before it is taken out of the tables; the file is read once a run."""
        noted = self._noted(connection)
        self._kept = self._kept or (noted is not None and self._ports.kept(noted))
        return self._kept

    def _noted(self, connection: psycopg.Connection[Any]) -> Mapping[str, Any] | None:
        return replica_turn.bundle_of(connection, self._wish.nonce)

    def _bundle(self, connection: psycopg.Connection[Any]) -> str:
        wish = self._wish
        found = replica_turn.own_slot(connection, wish.stream)
        if found is None:
            raise IntegrityError(
                "the slot that the database was replicated from is gone: nothing tells what it never shipped",
                place=self.place,
                hint="keep a copy of it if that matters; then make it anew: docs/runbooks/failback.md, From nothing",
            )
        if (noted := self._noted(connection)) is not None:
            self._ports.tell(
                FailbackStep.BUNDLE, f"{noted['file']} is not there any more as it was written: once more"
            )
        end_holder(connection, found.slot)
        bundle = self._ports.bundle(found)
        replica_turn.note_bundle(
            connection, nonce=wish.nonce, stream=wish.stream, epoch=wish.genesis.epoch, bundle=bundle
        )
        self._told["bundle"] = bundle
        kept = counted(bundle["transactions"], "transaction")
        told = f"{kept} that {self._wish.site} does not have, kept in {bundle['file']}"
        return told + lacking(bundle)

    def _guard(self, connection: psycopg.Connection[Any]) -> str:
        noted = self._noted(connection)
        if noted is not None and noted["statements"] and not self._shipped_all(connection):
            raise RefusedError(
                f"{noted['statements']} statements that never shipped changed the schema: it is not that of "
                f"{self._wish.site}",
                place=self.name,
                hint=f"they are in {noted['file']}: make it anew, docs/runbooks/failback.md, From nothing",
            )
        return f"{replica_turn.guard(connection)} tables guarded as a replica's"

    def _clear(self, connection: psycopg.Connection[Any]) -> str:
        """Only with the slot, which shows what to take out: it is dropped in a later step."""
        found, noted = replica_turn.own_slot(connection, self._wish.stream), self._noted(connection)
        known = found is not None and noted is not None and noted["complete"]
        touched = self._ports.touched(found) if found is not None and known else None
        deleted = replica_turn.clear(
            connection, self._wish.nonce, touched, publication=found.publication if found is not None else ""
        )
        self._told["cleared"] = deleted
        return (
            f"{sum(deleted.values())} rows of {len(deleted)} tables, which never shipped, are taken out"
            if touched is not None
            else f"{len(deleted)} tables are emptied: it is not known which of their rows never shipped"
        )

    def _drop_slot(self, connection: psycopg.Connection[Any]) -> str:
        found = replica_turn.own_slot(connection, self._wish.stream)
        if found is not None:
            replica_turn.drop_own_slot(connection, found.slot)
        return "the slot of its own reign is gone"

    def _begin(self, connection: psycopg.Connection[Any]) -> str:
        wish = self._wish
        self._ports.revoke(
            connection, wish.application_roles
        )  # the others may have been open when this one was shut
        replica_turn.begin(
            connection,
            wish.stream,
            wish.genesis,
            level=self._shipped_all(connection),
            as_of=wish.sealed_at,
        )
        waiting = awaited(connection)
        return f"a replica of epoch {wish.genesis.epoch}" + (
            f"; {len(waiting)} tables wait for rows" if waiting else ", level where that begins"
        )

    def _level(self, connection: psycopg.Connection[Any]) -> str:
        self._ports.level(connection)
        unproven = self._unproven(connection)
        if not unproven:
            return f"every row is that of {self._wish.site}"
        return f"not proven to be that of {self._wish.site}: " + "; ".join(
            f"{table}: {why}" for table, why in unproven
        )

    def _unproven(self, connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
        """The tables of which the last comparison did not show that every row is the embassy's, and why."""
        found = verify_store.tables(connection, self._wish.stream, with_findings=False)
        doubts = {table.result.table: table.result.doubt for table in found}
        if doubts:  # else nothing had to be compared: home was shut before the embassy opened
            left_out = "nothing has compared it: it is kept out of the stream, or new"
            doubts = dict.fromkeys((TableName(*name) for name in registry_tables(connection)), left_out) | doubts
        return sorted((str(table), doubt) for table, doubt in doubts.items() if doubt)
