"""Is this still the source that the stream was written from, and does the log hold nothing it has forgotten?

A database that was restored, a slot that was recreated, a standby promoted short of what the stream already has:
each would silently skip or contradict changes. So each start proves that none happened.

Positions tell, as long as the log ends before the stream. On the stream's own timeline, what the source has noted of the
stream's incarnations tells as well, however long the log. On a later one it need not have the notes: a standby may
have been promoted behind the stream's end and before a note, and where it left the timeline is what decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from embassy.model.errors import IntegrityError
from embassy.model.incarnation import says_noted
from embassy.model.lsn import Lsn
from embassy.pg import restored
from embassy.pg.incarnations import Noted
from embassy.pg.replication_session import SourceIdentity
from producers.beats_seen import BeatsSeen


class RestoredError(IntegrityError):
    """The source is in an older state than the stream, as can be seen for now: it goes on, and stays another one."""


class UnknownIncarnationError(IntegrityError):
    """The source does not know the stream's newest KEY."""


def check_continuity(
    *,
    last: SourceIdentity | None,
    now: SourceIdentity,
    incarnation: bytes,
    noted: Noted,
    resume_lsn: Lsn,
    confirmed_lsn: Lsn,
    flushed_lsn: Lsn,
    switch_points: Mapping[int, Lsn],
    slot: str,
) -> None:
    """Refuse to go on from a source that cannot prove to be the stream's own.

    Args:
        last: the source as the stream's last KEY record names it; None for a stream without records.
        now: the source as it answers now.
        incarnation: of the stream's last KEY record.
        noted: what the source knows of the stream's incarnations; asked after that record was read.
        resume_lsn: the end of the last whole transaction in the stream.
        confirmed_lsn: the slot's ``confirmed_flush_lsn``.
        flushed_lsn: how far the source's log reaches.
        switch_points: for each ancestor of the present timeline, the position at which it was left.
        slot: the slot's name, for the message.

    Raises:
        RestoredError: it is the stream's own, in an older state, by its log.
        UnknownIncarnationError: the same, by what it has noted; or another producer has written on meanwhile.
        IntegrityError: the stream must not be continued from this source.
    """
    place = f"slot {slot}"
    if last is not None and last.system_identifier != now.system_identifier:
        raise IntegrityError(
            f"the source is another PostgreSQL cluster: system identifier {now.system_identifier}, "
            f"the stream's is {last.system_identifier}",
            place=place,
            hint="correct source.dsn, or resync the stream from the new cluster",
        )
    if confirmed_lsn > resume_lsn:
        raise IntegrityError(
            f"the slot begins at {confirmed_lsn} and the stream ends at {resume_lsn}: the slot was recreated or "
            "advanced by someone else, and the changes between are lost to it",
            place=place,
            hint="resync the stream",
        )
    if last is not None and last.timeline != now.timeline:
        left_at = switch_points.get(last.timeline)
        if left_at is None:
            raise IntegrityError(
                f"timeline {now.timeline} does not descend from timeline {last.timeline}, which the stream is from",
                place=place,
                hint="connect to the branch the stream was written from, or resync",
            )
        if resume_lsn > left_at:
            raise IntegrityError(
                f"this server was promoted at {left_at} of timeline {last.timeline}; the stream already has changes "
                f"up to {resume_lsn} that it never got",
                place=place,
                hint=restored.HINT,
            )
    if resume_lsn > flushed_lsn:
        raise RestoredError(
            f"the source's log ends at {flushed_lsn}, before the stream's end at {resume_lsn}: it was restored from "
            "an older state",
            place=place,
            hint=restored.HINT,
        )
    if last is not None and last.timeline == now.timeline:
        _must_know(incarnation, noted, place)


def must_remember(beats: BeatsSeen, written_by: int | None, *, resume_lsn: Lsn, slot: str) -> None:
    """Refuse a source that has forgotten a beat which it has sent to this process, and which is in the stream.

    Args:
        beats: what this process has seen.
        written_by: the transaction that wrote the source's row of the beat last; None: there is no row.
        resume_lsn: the end of the last whole transaction in the stream.
        slot: the slot's name, for the message.

    Raises:
        RestoredError: it has.
    """
    forgotten = beats.forgotten(resume_lsn, written_by)
    if forgotten is not None:
        raise RestoredError(
            f"the source has forgotten a heartbeat that the stream has, of transaction {forgotten}; the newest that it "
            f"knows is of {written_by}: it was restored from an older state, or lost its last writes with its storage",
            place=f"slot {slot}",
            hint=restored.HINT,
        )


def _must_know(incarnation: bytes, noted: Noted, place: str) -> None:
    """Make sure that the source is not in a state of before the stream's newest KEY, whose name it noted first."""
    if not says_noted(incarnation) or incarnation in noted.names:
        return
    if noted.at is None:
        newest = "and it knows no earlier one"
    else:
        newest = f"and the last one that it knows is {_brief(noted.names[-1])} of {noted.at:%Y-%m-%dT%H:%M:%SZ}"
    raise UnknownIncarnationError(
        f"the source does not know the stream's newest data key {_brief(incarnation)}, which was noted there before "
        f"it was used, {newest}: it was restored from an older state; what it has written since is not a continuation",
        place=place,
        hint=restored.HINT,
    )


def _brief(incarnation: bytes) -> str:
    return incarnation.hex()[:8]
