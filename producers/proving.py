"""Each start's proof that source, slot and topic belong together; see `producers.continuity` for what is compared."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import psycopg
import structlog

from embassy.model.chain import Signers
from embassy.model.errors import IntegrityError, TransientError
from embassy.pg import incarnations, restored, source_schema
from embassy.pg.replication_session import ReplicationSession, SourceIdentity
from embassy.pg.slots import SlotState, slot_state
from embassy.wire.enrolment import Enrolment
from embassy.wire.head_search import FoundHead, Log, find_head
from embassy.wire.key_record import decode_key_body
from producers.beats_seen import BeatsSeen
from producers.continuity import RestoredError, UnknownIncarnationError, check_continuity, must_remember
from producers.incarnation import Standing


class Proof:
    """Of one start."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        session: ReplicationSession,
        source: SourceIdentity,
        *,
        enrolment: Enrolment,
        slot: str,
        beats: BeatsSeen,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Take whom to ask.

        Args:
            connection: with the source, in autocommit mode.
            session: a walsender of the same.
            source: as it says itself there.
            enrolment: the stream's.
            slot: the stream's.
            beats: what this process has seen of the source's.
            log: told of what cannot be proven.
        """
        self._connection = connection
        self._session = session
        self._source = source
        self._enrolment = enrolment
        self._slot = slot
        self._beats = beats
        self._log = log

    def standing(self, topic: Log, signers: Signers, genesis_at: datetime | None) -> Standing:
        """Where to go on.

        The slot is read before the topic: what a predecessor has confirmed by then, the topic holds. What the source
        has noted is read behind it: of what the topic holds by then, nothing is noted later.

        Args:
            topic: the stream's, at home.
            signers: which of the enrolled producers signed a record.
            genesis_at: when the stream began, as the source knows.

        Raises:
            IntegrityError: the stream must not be continued.
            TransientError: another producer has written meanwhile.
        """
        state = slot_state(self._connection, self._slot)
        found = find_head(topic, signers, self._enrolment.genesis())
        if found is None:
            standing, last = self._beginning(topic, state, genesis_at), None
        else:
            standing, last = Standing(found.head, found.next_offset), _source_named_by(found)
        try:
            self._check(standing, last, state)
        except UnknownIncarnationError:
            # The source forgets names that were followed: the newest must have been the newest when it was asked.
            again = find_head(topic, signers, self._enrolment.genesis())
            if again is not None and again.head.incarnation != standing.head.incarnation:
                raise TransientError(
                    "another producer has begun a data key while this one looked at the source",
                    place=topic.topic,
                    hint="nothing to do: this one begins anew behind it",
                ) from None
            raise
        return standing

    def _beginning(self, topic: Log, state: SlotState, genesis_at: datetime | None) -> Standing:
        """Where a stream of which the topic holds nothing begins."""
        if genesis_at is not None:
            raise IntegrityError(
                f"the topic holds no record of the stream, which began at {genesis_at:%Y-%m-%dT%H:%M:%SZ}: it was "
                "emptied or recreated, or retention passed over all of it",
                place=topic.topic,
                hint="restore the topic, or enrol and resync the stream anew; a second beginning is never made",
            )
        low, _ = topic.bounds()
        genesis = self._enrolment.genesis()
        return Standing(genesis._replace(resume_lsn=genesis.resume_lsn or state.confirmed_lsn), low)

    def _check(self, standing: Standing, last: SourceIdentity | None, state: SlotState) -> None:
        head, source = standing.head, self._source
        stream, epoch = self._enrolment.stream, self._enrolment.epoch
        flushed_lsn = state.flushed_lsn
        if head.resume_lsn > flushed_lsn:  # another producer ships on: the log has grown since
            flushed_lsn = slot_state(self._connection, self._slot).flushed_lsn
        noted = incarnations.noted(self._connection, stream, epoch)
        if not noted.possible:
            self._log.warning(
                "schema embassy of the source is of an earlier version: should the database be restored from a snapshot, "
                "and its log grow past the stream's end, nothing would tell",
                hint="embassy provision apply",
            )
        written_by = source_schema.beat_written_by(self._connection)
        try:
            check_continuity(
                last=last,
                now=source,
                incarnation=head.incarnation,
                noted=noted,
                resume_lsn=head.resume_lsn,
                confirmed_lsn=state.confirmed_lsn,
                flushed_lsn=flushed_lsn,
                switch_points=self._session.switch_points(source.timeline) if last not in (None, source) else {},
                slot=self._slot,
            )
            must_remember(self._beats, written_by, resume_lsn=head.resume_lsn, slot=self._slot)
        except RestoredError:
            with suppress(psycopg.Error):  # what was found is raised anyway
                restored.note(self._connection, stream, epoch, log_end=flushed_lsn, stream_end=head.resume_lsn)
            raise


def _source_named_by(found: FoundHead) -> SourceIdentity | None:
    if found.key_record is None:
        return None
    body = decode_key_body(found.key_record.body)
    return SourceIdentity(body.system_identifier, body.timeline)
