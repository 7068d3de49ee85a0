"""One stream's consumer from start to stop: take the lease, read the progress, find the place in the topic, apply.

The replica is the truth about progress. What a lost session leaves open, the lost answer to a COMMIT included, the
next start finds decided in the progress row, once it has the lease: the server gives that only when the old session is
over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import psycopg
import structlog

from consumers import inbox, replica_writer, verifier
from consumers.admission import Admission
from consumers.applier import SETTINGS, Applier
from consumers.chunk_writer import rows_to_clear
from consumers.follow import Clocks, Ended, Following
from consumers.gate import Gate
from consumers.inbox import Inbox, Opener, resume
from consumers.place import place_in
from consumers.replica_writer import ReplicaWriter
from consumers.seldom import Seldom
from consumers.verifier import Verifier
from embassy.model.chain import Follower, Signers
from embassy.model.control import Control, Freeze, Point
from embassy.model.errors import RefusedError, StaleError, TransientError
from embassy.model.wording import iso
from embassy.pg import control_store, progress_store
from embassy.pg import reign as reigns
from embassy.pg.apply_session import ApplySession, Call, Query
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.progress_store import ControlMoved, Progress
from embassy.pg.replica_catalog import holds_rows
from embassy.pg.stream_lock import CONSUMER_LEASE
from embassy.runtime.config import ConsumerTuning, Protection, Replica
from embassy.runtime.stop import Stop
from embassy.runtime.supervised_stream import Finished
from embassy.wire.enrolment import Enrolment
from embassy.wire.kafka_reader import StreamsReader
from embassy.wire.reader_pool import ReaderPool

_LEASE_POLL_SECONDS = 0.5
_LEASE_SECONDS = 25.0
"""How long a run up to a point waits for it: longer than a server takes to notice that a holder is gone."""
_FROZEN_POLL_SECONDS = 0.5
_AUTHORITY_SECONDS = 10.0
_ROLLBACK = Call(Query("ROLLBACK"))


class Gauges(inbox.Gauges, replica_writer.Gauges, verifier.Gauges, Protocol):
    """What the loop tells of itself."""

    def replayed(self, reason: str) -> None:
        """A batch was applied change by change: an SQLSTATE, or a word."""

    def frozen(self, *, frozen: bool) -> None:
        """Whether the stream is frozen."""

    def awaits(self, holder: str) -> None:
        """Who applies the stream instead, and is waited for; empty: nobody."""


class StreamConsumer:
    """Applies one stream."""

    def __init__(
        self,
        name: str,
        *,
        topic: str,
        enrolment: Enrolment,
        signers: Signers,
        replica: Replica,
        readers: ReaderPool,
        reader: StreamsReader,
        opener: Opener,
        tuning: ConsumerTuning,
        gauges: Gauges,
        clock: Callable[[], float],
        ahead: Executor,
        wall: Callable[[], float] = time.time,
        protection: Protection | None = None,
        until: Point | None = None,
        froze: Callable[[Freeze], None] = lambda _: None,
        authority: Callable[[psycopg.Connection[Any]], None] = lambda _: None,
    ) -> None:
        """Take what the stream needs; nothing is connected to yet.

        Args:
            name: the stream's, in logs.
            topic: in the embassy's cluster.
            enrolment: the stream's beginning.
            signers: which of its producers each record is of.
            replica: the database.
            readers: the clients with which streams look for their places.
            reader: the client that many streams share.
            opener: opens records.
            tuning: limits.
            gauges: told how it goes.
            clock: monotonic.
            ahead: opens what comes next while the replica is busy; streams may share it.
            wall: seconds since 1970 UTC, which an apply delay is measured by.
            protection: what freezes the stream.
            until: where this run ends.
            froze: told when this consumer has frozen the stream itself.
            authority: looks now and then, with the session at the replica, who may write there.
        """
        self.name = name
        self._topic = topic
        self._enrolment = enrolment
        self._signers = signers
        self._readers = readers
        self._replica = replica
        self._reader = reader
        self._opener = opener
        self._tuning = tuning
        self._gauges = gauges
        self._clock = clock
        self._ahead = ahead
        self._wall = wall
        self._protection = protection or Protection()
        self._until = until
        self._froze = froze
        self._authority = Seldom(_AUTHORITY_SECONDS, authority, clock)
        self._log = structlog.get_logger(component="consumer", stream=name)

    def run(self, stop: Stop, pulse: Callable[[], None]) -> None:
        """Apply until told to stop, or up to the point that was given.

        Raises:
            Finished: everything up to that point is applied.
            TransientError: the cluster or the replica is unreachable, or the database is not this epoch's replica yet.
            IntegrityError: a record is missing, cannot be opened or cannot be applied.
            RefusedError: the database is not a replica, or not this enrolment's; or a point was given, and it is frozen.
            StaleError: a point was given, and another consumer applies the stream.
        """
        with self._session(pulse) as session, transient(session.place):
            self._must_be_replica(session)
            if not self._leased(session, stop, pulse):
                return
            control_store.begin(session.connection, self._enrolment.stream)
            control_store.note_delay(session.connection, self._enrolment.stream, self._replica.apply_delay_seconds)
            ended: Ended | None = None
            while not stop.is_set():
                control = control_store.read(session.connection, self._enrolment.stream)
                if control.freeze is not None:
                    if self._until is not None:
                        raise RefusedError(
                            f"the stream is frozen by {control.freeze.by}: {control.freeze.reason}",
                            place=session.place,
                            hint="two persons let it go on up to a point: embassy unfreeze plan --stop-at",
                        )
                    if ended is not None:
                        self._froze(control.freeze)
                        ended = None
                    self._stay_frozen(session, control, control.freeze, stop, pulse)
                    continue
                self._gauges.frozen(frozen=False)
                try:
                    ended = self._apply(session, control, stop, pulse)
                except ControlMoved:
                    self._log.info("something new was said about applying")
                    ended = None
                session.run([_ROLLBACK])
                if ended is not None and not ended.frozen:
                    self._finish(session, ended)

    def _must_be_replica(self, session: ApplySession) -> None:
        """Before anything is asked of a database that may still be what it was in an earlier epoch.

        Raises:
            TransientError: a later epoch's replica is not one yet.
        """
        epoch = self._enrolment.epoch
        found = reigns.reign(session.connection, self._enrolment.stream)
        if epoch > 1 and found.follows < epoch:
            raise TransientError(
                f"the database is not a replica of epoch {epoch} yet",
                place=session.place,
                hint="embassy failback run, with the promotion's report, makes it one; the consumer waits for that",
            )

    def _apply(
        self, session: ApplySession, control: Control, stop: Stop, pulse: Callable[[], None]
    ) -> Ended | None:
        """Apply under one version of the control row."""
        progress = self._progress(session)
        self._gauges.applied(0, 0, progress.head.resume_lsn, progress.committed_at)  # what is here already
        signers = self._signers
        head = resume(self._opener, progress.head, progress.key_record, signers, session.place)
        offset = place_in(self._readers.log(self._topic), progress, signers)
        self._log.info("applying", sequence=progress.head.sequence, offset=offset)
        follower = Follower(
            head,
            topic=self._topic,
            signers=signers,
            clock=self._clock,
            hold_seconds=self._tuning.hold_seconds,
        )
        holds = partial(holds_rows, session.connection)
        gate = Gate(
            control,
            Admission(self._protection, holds, partial(rows_to_clear, session), control.admitted),
            delay_seconds=self._replica.apply_delay_seconds,
            until=self._until,
        )
        writer = ReplicaWriter(
            session,
            Applier(session, replayed=self._replayed, pulse=pulse),
            stream=self._enrolment.stream,
            progress=progress,
            gauges=self._gauges,
            clock=self._clock,
            control_version=control.version,
            verifier=Verifier(session, stream=self._enrolment.stream, gauges=self._gauges),
        )
        subscription = self._reader.subscribe(self._topic, offset, self._tuning.queue_bytes)
        try:
            with stop.waking(subscription.wake):
                return Following(
                    session.connection,
                    self._enrolment.stream,
                    control_version=control.version,
                    subscription=subscription,
                    inbox=Inbox(follower, self._opener, self._gauges),
                    gate=gate,
                    writer=writer,
                    clocks=Clocks(self._clock, self._wall),
                    freezes=self._until is None,
                    authority=self._authority,
                    ahead=self._ahead,
                ).run(stop, pulse)
        finally:
            self._reader.unsubscribe(self._topic)

    def _stay_frozen(
        self,
        session: ApplySession,
        control: Control,
        freeze: Freeze,
        stop: Stop,
        pulse: Callable[[], None],
    ) -> None:
        """Hold the lease and read nothing until something new is said; what comes meanwhile waits in Kafka."""
        self._gauges.frozen(frozen=True)
        self._log.critical(
            "frozen: nothing is applied",
            by=freeze.by,
            reason=freeze.reason,
            number=freeze.number,
            hint="two persons lift it: embassy unfreeze plan, approve, run",
        )
        while control_store.version(session.connection, self._enrolment.stream) == control.version:
            pulse()
            self._authority(session.connection)
            if stop.wait(_FROZEN_POLL_SECONDS):
                return

    def _finish(self, session: ApplySession, ended: Ended) -> None:
        """Tell how far the replica is, and end."""
        progress = self._progress(session)
        raise Finished(
            f"everything up to {ended.at} is applied; the newest commit in the replica is from "
            f"{iso(progress.committed_at / 1_000_000)}"
        )

    @contextmanager
    def _session(self, pulse: Callable[[], None]) -> Iterator[ApplySession]:
        connection = connect(
            self._replica.dsn,
            application_name=f"embassy-consumer-{self._topic}",
            autocommit=True,
            settings={**ApplySession.settings(), **SETTINGS},
            primary=True,
        )
        try:
            yield ApplySession(connection, place=place_of(self._replica.dsn), pulse=pulse)
        finally:
            connection.close()

    def _leased(self, session: ApplySession, stop: Stop, pulse: Callable[[], None]) -> bool:
        """Wait for the lease; False if told to stop first."""
        holder, since = "", self._clock()
        while not CONSUMER_LEASE.try_take(session.connection, self._enrolment.stream):
            if not holder:
                holder = CONSUMER_LEASE.in_whose_hands(session.connection, self._enrolment.stream)
                self._gauges.awaits(holder)
                self._log.info("waiting: another consumer applies this stream", holder=holder)
            if self._until is not None and self._clock() - since > _LEASE_SECONDS:
                raise StaleError(
                    f"another consumer applies this stream: {holder}",
                    place=session.place,
                    hint="stop that one, then run this again; embassy freeze --stop-at stops a stream that is applied",
                )
            pulse()
            self._authority(session.connection)
            if stop.wait(_LEASE_POLL_SECONDS):
                return False
        self._gauges.awaits("")
        return True

    def _progress(self, session: ApplySession) -> Progress:
        progress = progress_store.read(session.connection, self._enrolment.stream)
        if progress is None:
            raise RefusedError(
                "the replica does not know this stream: it has no row in embassy.progress",
                place=session.place,
                hint="embassy provision apply begins it, from the copy that the stream continues",
            )
        progress_store.check(progress, self._enrolment.genesis())
        return progress

    def _replayed(self, reason: str) -> None:
        self._gauges.replayed(reason)
        self._log.info("a batch is applied change by change", reason=reason)
