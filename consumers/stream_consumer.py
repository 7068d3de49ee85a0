"""One stream's consumer from start to stop: take the lease, read the progress, find the place in the topic, apply.

The replica is the truth about progress. What a lost session leaves open, the lost answer to a COMMIT included, the
next start finds decided in the progress row, once it has the lease: the server gives that only when the old session is
over.

*A topic that does not hold the place.* If it holds nothing, or ends before what the replica already has, it was emptied
or recreated, or its brokers lost records. The chain would keep the replica right whatever is carried there next, but
someone must look: the stream halts at once. Once a bridge has carried again what home still holds, up to the replica's
place, the next start finds it and goes on; records from before are passed over. If the topic holds newer records only,
they are held until one links, and the hold's end halts the stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from consumers import inbox, replica_writer
from consumers.applier import SETTINGS, Applier
from consumers.inbox import Inbox, Opener, resume
from consumers.replica_writer import ReplicaWriter
from embassy.model.chain import Follower
from embassy.model.errors import IntegrityError, RefusedError
from embassy.model.record import SealedRecord
from embassy.pg import lease, progress_store
from embassy.pg.apply_session import ApplySession
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.progress_store import Progress
from embassy.runtime.config import ConsumerTuning, KafkaCluster, Replica
from embassy.wire.enrolment import Enrolment
from embassy.wire.head_search import Log, locate, read_records
from embassy.wire.kafka_reader import StreamsReader, Subscription, TopicReader
from embassy.wire.verifying import RecordVerifier

_WAIT_SECONDS = 0.25
_LEASE_POLL_SECONDS = 0.5
_TAIL_RECORDS = 2_000
_ALIVE_SECONDS = 5.0


class Gauges(inbox.Gauges, replica_writer.Gauges, Protocol):
    """What the loop tells of itself."""

    def replayed(self, reason: str) -> None:
        """A batch was applied change by change: an SQLSTATE, or a word."""


class StreamConsumer:
    """Applies one stream."""

    def __init__(
        self,
        name: str,
        *,
        topic: str,
        enrolment: Enrolment,
        foreign: KafkaCluster,
        replica: Replica,
        reader: StreamsReader,
        opener: Opener,
        tuning: ConsumerTuning,
        gauges: Gauges,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self._topic = topic
        self._enrolment = enrolment
        self._foreign = foreign
        self._replica = replica
        self._reader = reader
        self._opener = opener
        self._tuning = tuning
        self._gauges = gauges
        self._clock = clock
        self._alive_at = clock()
        self._log = structlog.get_logger(component="consumer", stream=name)

    def run(self, stop: threading.Event, pulse: Callable[[], None]) -> None:
        """Apply until told to stop.

        Raises:
            TransientError: the cluster or the replica is unreachable.
            IntegrityError: a record is missing, cannot be opened or cannot be applied.
            RefusedError: the database is not a replica, or not this enrolment's.
        """
        with self._session(pulse) as session, transient(session.place):
            if not self._leased(session, stop, pulse):
                return
            progress = self._progress(session)
            self._gauges.applied(0, 0, progress.head.resume_lsn, progress.committed_at)  # what is here already
            verified = RecordVerifier(self._enrolment).verified
            resume(self._opener, progress.head, progress.key_record, verified, session.place)
            with TopicReader(self._foreign, self._topic, f"{self._topic}-resume") as log:
                offset = place_in(log, progress, verified)
            self._log.info("applying", sequence=progress.head.sequence, offset=offset)
            follower = Follower(
                progress.head,
                topic=self._topic,
                verified=verified,
                clock=self._clock,
                hold_seconds=self._tuning.hold_seconds,
            )
            writer = ReplicaWriter(
                session,
                Applier(session, replayed=self._replayed, pulse=pulse),
                stream=self._enrolment.stream,
                progress=progress,
                gauges=self._gauges,
                clock=self._clock,
            )
            subscription = self._reader.subscribe(self._topic, offset, self._tuning.queue_bytes)
            try:
                source = Inbox(follower, self._opener, self._gauges)
                while not stop.is_set():
                    pulse()
                    if not _follow(subscription, source, writer, stop, pulse):
                        self._must_live(session)
            finally:
                self._reader.unsubscribe(self._topic)

    @contextmanager
    def _session(self, pulse: Callable[[], None]) -> Iterator[ApplySession]:
        connection = connect(
            self._replica.dsn,
            application_name=f"embassy-consumer-{self._topic}",
            autocommit=True,
            settings={**ApplySession.settings(), **SETTINGS},
        )
        try:
            yield ApplySession(connection, place=place_of(self._replica.dsn), pulse=pulse)
        finally:
            connection.close()

    def _must_live(self, session: ApplySession) -> None:
        """Ask the replica for a sign of life while nothing comes: a promotion ends the session of its consumer."""
        now = self._clock()
        if now - self._alive_at >= _ALIVE_SECONDS:
            self._alive_at = now
            session.connection.execute("SELECT")

    def _leased(self, session: ApplySession, stop: threading.Event, pulse: Callable[[], None]) -> bool:
        """Wait for the lease; False if told to stop first."""
        told = False
        while not lease.try_lease(session.connection, self._enrolment.stream):
            if not told:
                told = True
                self._log.info("waiting: another consumer applies this stream", holder=self._holder(session))
            pulse()
            if stop.wait(_LEASE_POLL_SECONDS):
                return False
        return True

    def _holder(self, session: ApplySession) -> str:
        return lease.holder(session.connection, self._enrolment.stream)

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


def place_in(log: Log, progress: Progress, verified: Callable[[SealedRecord], bool]) -> int:
    """The offset from which the topic continues the replica.

    Raises:
        IntegrityError: the topic holds nothing, or ends before what the replica has.
    """
    head = progress.head
    low, high = log.bounds()
    offset = locate(log, head, verified, progress.next_offset)
    if head.sequence == 0 or offset > low:
        return offset
    if low == high:
        if high == progress.next_offset:
            return offset  # read to its end, and then retention passed
        raise _behind(log, progress, "holds no record")
    newest = max(
        (
            record.header.sequence
            for _, record in read_records(log, max(low, high - _TAIL_RECORDS), high)
            if verified(record)
        ),
        default=0,
    )
    if newest <= head.sequence:
        raise _behind(log, progress, f"ends at record {newest}")
    return offset


def _behind(log: Log, progress: Progress, what: str) -> IntegrityError:
    return IntegrityError(
        f"the topic {what}, and the replica has applied up to record {progress.head.sequence}: it was emptied or "
        "recreated, or its brokers lost records",
        place=log.topic,
        hint="restart the bridge: it carries again what home still holds; once it has passed that record, start this "
        "consumer. If home no longer holds what follows, resync the stream",
    )


def _follow(
    subscription: Subscription,
    source: Inbox,
    writer: ReplicaWriter,
    stop: threading.Event,
    pulse: Callable[[], None],
) -> bool:
    """One turn of the loop: take what has come, apply it, commit what is whole; returns whether anything had come."""
    taken = subscription.take(_WAIT_SECONDS)
    for event in source.receive(taken):
        writer.take(event)
        pulse()
        if stop.is_set():
            break
    writer.commit()
    return bool(taken)
