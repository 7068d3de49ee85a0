"""One stream's producer from start to stop: prove, take the slot, become the writer, tail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, Protocol

import psycopg
import structlog

from embassy.model.chain import Signers
from embassy.model.record import Head
from embassy.pg import ddl_capture, restored, source_schema
from embassy.pg.backlog_session import BacklogSession
from embassy.pg.connection import connect
from embassy.pg.exchange import Errand
from embassy.pg.incarnations import IncarnationNotes
from embassy.pg.orders import Orders, OrdersLook
from embassy.pg.publication_watch import PublicationWatch
from embassy.pg.reign import Reign
from embassy.pg.replication_session import ReplicationSession, SourceIdentity
from embassy.pg.slots import SlotState, slot_errand
from embassy.runtime.config import ProducerTuning, Source
from embassy.runtime.failpoints import PRODUCER_AFTER_GENESIS_MARKED, failpoint
from embassy.runtime.stop import Stop
from embassy.wire.enrolment import Enrolment
from embassy.wire.head_search import Log
from embassy.wire.kafka_writer import Appender, KafkaWriter
from embassy.wire.reader_pool import ReaderPool
from embassy.wire.sealing import Sealer
from producers import confirming, copier, shipping
from producers.beats_seen import BeatsSeen
from producers.confirming import Confirming
from producers.continuity import must_remember
from producers.copier import Copier, CopyTuning
from producers.copy_desk import CopyDesk, Renewed
from producers.copy_lane import CopyLane
from producers.heartbeat import Chore, Heartbeat, Rotations, Turns, beat
from producers.incarnation import Standing
from producers.large_objects import Cadence, LargeObjectSweep
from producers.pace import Pace
from producers.proving import Proof
from producers.reigning import must_reign
from producers.renewal import Renewal
from producers.shipping import Shipping
from producers.slot_reader import Patience, SlotReader
from producers.tail import Tail

_SEQUENCES_SECONDS = 3.0
_OWNERS_SECONDS = 10.0
_SLOT_SECONDS = 5.0
_SEQUENCES_IDLE_SECONDS = 15.0
"""Only what is rolled back moves a sequence then: no committed row depends on it."""
_SLOT_IDLE_SECONDS = 15.0
"""Other databases of the server write log, and this slot keeps it."""
_PUBLICATION_SECONDS = 5.0
_PUBLICATION_IDLE_SECONDS = 30.0
"""Of a publication that somebody has altered nothing is seen in the stream: so it is looked at all the same."""
_CLEAR_SECONDS = 60.0
_AUTHORITY_SECONDS = 10.0
_BEATS_AHEAD = 2
"""Of the slowest heart: so long before a data key's time is over the name of the next one is noted."""


class Gauges(shipping.Gauges, confirming.Gauges, copier.Gauges, Protocol):
    """What the stream's loop, its copies and its looks for large objects tell of themselves."""

    def large_objects(self, age_seconds: float) -> None:
        """All that was new in large objects so long ago is in the stream."""


class StreamSetup(NamedTuple):
    """What a stream's producer is made of, from the configuration."""

    name: str
    topic: str
    slot: str
    source: Source
    enrolment: Enrolment
    signers: Signers
    """Which of the enrolment's producers signed a record, from 1; 0 is none."""
    slowest_beat_seconds: float
    """Between two beats of an idle heart."""
    decoding_bytes: int
    """Memory that the source may decode a large transaction in; see `producers.decoding_memory`."""


class StreamProducer:
    """Runs one stream until told to stop; each error ends the run and names its family."""

    def __init__(
        self,
        setup: StreamSetup,
        *,
        sealer: Sealer,
        readers: ReaderPool,
        writer: KafkaWriter,
        tuning: ProducerTuning,
        gauges: Gauges,
        slot_gauge: Callable[[SlotState], None],
        authority: Errand,
        turns: Turns,
        beats: BeatsSeen,
        clock: Callable[[], float],
    ) -> None:
        """Take what the stream needs; nothing is connected to yet.

        Args:
            setup: the stream.
            sealer: makes its records.
            readers: read its topic.
            writer: appends to it.
            tuning: limits.
            gauges: told how it goes.
            slot_gauge: told of the slot.
            authority: asks the source who may write there.
            turns: of the process's hearts.
            beats: what this process has seen of the source's; kept over runs.
            clock: monotonic.
        """
        self.name = setup.name
        self._setup = setup
        self._sealer = sealer
        self._readers = readers
        self._writer = writer
        self._tuning = tuning
        self._gauges = gauges
        self._slot_gauge = slot_gauge
        self._authority = authority
        self._turns = turns
        self._beats = beats
        self._clock = clock
        self._patience = Patience(tuning.backlog_bytes)
        self._reign = Reign(0, raised=False, written=0, began_at=None)
        self._rotate = threading.Event()
        self._rotations = Rotations(self.rotate)
        self._orders = OrdersLook(setup.enrolment.stream)
        self._publication = PublicationWatch(setup.name, setup.enrolment.stream, setup.source.publication)
        enrolment = setup.enrolment
        self._incarnations = IncarnationNotes(
            setup.source.dsn, enrolment.stream, enrolment.epoch, place=f"streams.{setup.name}.source"
        )
        self._log = structlog.get_logger(component="producer", stream=setup.name)

    def rotate(self) -> None:
        """Begin a new incarnation, with a fresh data key and the sealer's present keys, at the next transaction's end.

        May be called from any thread. Nothing waits for it: what is in flight is acknowledged first, as at each rotation.
        """
        self._rotate.set()

    def run(self, stop: Stop, pulse: Callable[[], None]) -> None:
        """Tail the stream's slot.

        Raises:
            TransientError: something is unreachable, or another producer holds the slot; try again.
            IntegrityError: the stream must not be continued; someone has to look.
            ConfigurationError: a setting of the source or the topic is wrong.
            RefusedError: home is superseded.
        """
        setup = self._setup
        log = self._readers.log(setup.topic)
        with closing(self._reader()) as reader:
            standing, source = self._prove(reader.session, log)
            reader.session.start(standing.head.resume_lsn)
            appender = self._writer.appender(setup.topic)
            desk = CopyDesk(appender.wake)
            stirred = _Stirred()
            try:
                loop = self._loop(
                    reader,
                    appender,
                    log,
                    standing,
                    source,
                    copies=CopyLane(desk, setup.source.dsn, self._clock),
                    renewed=lambda before, after: desk.tell(Renewed(before, after)),
                    pulse=pulse,
                    rouse=stirred,
                )
                loop.begin()
                self._mark_genesis()
                self._log.info("tailing", slot=setup.slot, resume_lsn=str(standing.head.resume_lsn))
                copies = self._copier(loop, desk)
                copies.adopt(standing.head, loop.head)
                sweep = self._sweep(loop)
                heartbeat = self._heartbeat(loop, desk, copies, sweep)
                stirred.tell = heartbeat.rouse
                with heartbeat, copies, sweep:
                    loop.run(stop)
            finally:
                desk.close()
                appender.close()

    def _loop(
        self,
        reader: SlotReader,
        appender: Appender,
        log: Log,
        standing: Standing,
        source: SourceIdentity,
        *,
        copies: CopyLane,
        renewed: Callable[[Head, Head], None],
        pulse: Callable[[], None],
        rouse: Callable[[], None],
    ) -> Tail:
        renewal = Renewal(self._tuning, self._rotate, self._clock)
        acknowledgements = Confirming(
            appender=appender,
            reader=reader,
            tuning=self._tuning,
            copies=copies,
            gauges=self._gauges,
            clock=self._clock,
            pulse=pulse,
            next_offset=standing.next_offset,
        )
        records = Shipping(
            standing=standing,
            appender=appender,
            log=log,
            verified=self._setup.signers,
            sealer=self._sealer,
            source=source,
            named=self._incarnations.begin,
            renewal=renewal,
            confirming=acknowledgements,
            tuning=self._tuning,
            gauges=self._gauges,
        )
        return Tail(
            reader=reader,
            appender=appender,
            shipping=records,
            confirming=acknowledgements,
            renewal=renewal,
            tuning=self._tuning,
            copies=copies,
            renewed=renewed,
            clock=self._clock,
            pulse=pulse,
            rouse=rouse,
            beats=self._beats,
        )

    def _heartbeat(self, loop: Tail, desk: CopyDesk, copies: Copier, sweep: LargeObjectSweep) -> Heartbeat:
        tuning, slot, slowest = self._tuning, self._setup.slot, self._setup.slowest_beat_seconds
        names = self._incarnations

        def ordered(found: Orders) -> None:
            self._rotations.noticed(found.rotation_requested_at)
            copies.noticed(wanted=found.copies)
            sweep.noticed(found.large_object_changes)

        return Heartbeat(
            self.name,
            dsn=self._setup.source.dsn,
            slot=slot,
            pace=Pace(tuning.heartbeat_seconds, slowest),
            stages=lambda: loop.stages,
            carried=loop.has_carried,
            turns=self._turns,
            known=partial(self._known, loop),
            chores=(
                Chore(Cadence.NONE_SECONDS, sweep.look_where_none()),
                Chore(0, self._orders.errand(ordered)),
                Chore(
                    tuning.heartbeat_seconds,
                    names.errand(lambda: loop.head.incarnation),
                    wanted=lambda: loop.renews_in(_BEATS_AHEAD * slowest) and names.lacks(loop.head.incarnation),
                ),
                Chore(_SEQUENCES_SECONDS, source_schema.SAMPLE_SEQUENCES, _SEQUENCES_IDLE_SECONDS),
                Chore(_SLOT_SECONDS, slot_errand(slot, self._slot_gauge), _SLOT_IDLE_SECONDS),
                Chore(_AUTHORITY_SECONDS, self._authority),
                Chore(_PUBLICATION_SECONDS, self._publication.errand(desk.fail), _PUBLICATION_IDLE_SECONDS),
                Chore(_CLEAR_SECONDS, ddl_capture.CLEAR_ROWS),
                Chore(_OWNERS_SECONDS, ddl_capture.SAMPLE_OWNERS),
            ),
        )

    def _known(self, loop: Tail, connection: psycopg.Connection[Any]) -> None:
        """Each session that writes at the source looks first whether it may.

        A superseded database forgets what its reign has said when it becomes a replica; what came later would meet the
        rows of the next epoch there. And a beat would hide that the source has forgotten one.

        Raises:
            RefusedError: the database was superseded.
            IntegrityError: it has forgotten what the stream has.
        """
        must_reign(connection, self._setup.enrolment, self.name)
        written_by = source_schema.beat_written_by(connection)
        must_remember(self._beats, written_by, resume_lsn=loop.head.resume_lsn, slot=self._setup.slot)

    def _sweep(self, loop: Tail) -> LargeObjectSweep:
        return LargeObjectSweep(
            self.name,
            dsn=self._setup.source.dsn,
            stream=self._setup.enrolment.stream,
            clock=self._clock,
            known=partial(self._known, loop),
            carried=self._gauges.large_objects,
        )

    def _copier(self, loop: Tail, desk: CopyDesk) -> Copier:
        return Copier(
            self.name,
            dsn=self._setup.source.dsn,
            desk=desk,
            tuning=CopyTuning(self._tuning.copy_tables, self._tuning.copy_chunk_bytes),
            beat=lambda connection: beat(connection, loop.stages),
            known=partial(self._known, loop),
            gauges=self._gauges,
        )

    def _reader(self) -> SlotReader:
        of_slot = {
            "slot": self._setup.slot,
            "publication": self._setup.source.publication,
            "application_name": f"embassy-producer-{self._setup.topic}",
        }
        return SlotReader(
            self.name,
            open_session=partial(
                ReplicationSession, self._setup.source.dsn, **of_slot, decoding_bytes=self._setup.decoding_bytes
            ),
            open_backlog=partial(BacklogSession, self._setup.source.dsn, **of_slot),
            patience=self._patience,
            clock=self._clock,
        )

    def _prove(self, session: ReplicationSession, log: Log) -> tuple[Standing, SourceIdentity]:
        """Where to go on, once the source has proven to be the stream's own."""
        enrolment, slot = self._setup.enrolment, self._setup.slot
        source = session.identity()
        with self._connected() as connection:
            self._reign = must_reign(connection, enrolment, self._setup.name)
            restored.check(connection, enrolment.stream, enrolment.epoch, place=self._setup.name)
            self._rotations.begin(self._orders(connection).rotation_requested_at)
            self._publication.prove(connection)
            genesis_at = source_schema.begun_at(connection, enrolment.stream, self._reign)
            proof = Proof(
                connection, session, source, enrolment=enrolment, slot=slot, beats=self._beats, log=self._log
            )
            return proof.standing(log, self._setup.signers, genesis_at), source

    def _connected(self) -> psycopg.Connection[Any]:
        return connect(
            self._setup.source.dsn, application_name="embassy-producer-start", autocommit=True, primary=True
        )

    def _mark_genesis(self) -> None:
        """Note at the source that the stream has begun, before anything of it is confirmed to the slot.

        Repeated at each start: the first may have died between its KEY and the mark.
        """
        with self._connected() as connection:
            source_schema.mark_genesis(connection, self._setup.enrolment.stream, self._reign.epoch)
        failpoint(PRODUCER_AFTER_GENESIS_MARKED)


class _Stirred:
    """Tells the heart of commits, once there is one."""

    def __init__(self) -> None:
        self.tell: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.tell()
