"""What a slot sends: from its walsender, or, as long as small transactions are far behind, by query.

*The walsender's session is the lease,* whoever reads: another producer waits for it. When a stretch of log is to be
read by query, that session ends and another begins at once, to send what is committed behind the stretch. It goes over
the stretch without sending anything, as it would have to in any case to find its place, and is read afterwards.
Another producer may have had the slot between the two: the loop proves behind that that the topic is still its own.

*Nothing is lost or twice.* Both sources know a transaction by the start of its commit record. Those before the
stretch's end come by query, the others from the walsender; and what ends before what was taken already is passed over
by the loop (`producers.tail`), as after any start. docs/adr/0013-a-backlog-is-read-by-query.md
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from embassy.model.errors import EmbassyError, TransientError
from embassy.model.lsn import Lsn
from embassy.pg.backlog_session import BacklogSession, Stretch
from embassy.pg.lost_session import passing
from embassy.pg.replication_session import Keepalive, ReplicationSession, SourceIdentity
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint

LATE_SECONDS, SMALL_TRANSACTIONS = 2.0, 256
"""So many transactions one after another that came so late are the sign that many more may wait."""
_STRETCH_BYTES = 256 << 20
_FIRST_SHARE = 8
"""Of what is to be read: the first rows come after so small a part of all decoding."""
_AGAIN_BYTES_MOST = 1 << 30
_ASK_SECONDS, _REFUSED_SECONDS = 10.0, 600.0
_STUCK_SECONDS = 60.0
_HELD_SECONDS = 5.0
_NOTHING_HEARD = Keepalive(Lsn(0), reply_requested=False)


def pays(log: Stretch, reached: Lsn, least_bytes: int) -> bool:
    """Whether to read by query what a walsender has not sent yet.

    The log from where the server keeps it is decoded two times more than by streaming: for the copy of the slot, and by
    the walsender that looks for its new place.

    Args:
        log: where it begins and ends.
        reached: what has been read.
        least_bytes: of log, for which it may.
    """
    new, again = log.end - reached, max(reached - log.kept_from, 0)
    return new >= least_bytes and again <= min(new, _AGAIN_BYTES_MOST)


def next_end(kept_from: Lsn, reached: Lsn, end: Lsn) -> Lsn:
    """Up to where to ask next.

    The server decodes all that is asked for before it sends any, and whoever comes behind it waits: the first stretch is
    a small share of what there is. Each query decodes again from where the log is kept, so never for less than that.

    Args:
        kept_from: where decoding begins.
        reached: what has been read.
        end: what is to be read.
    """
    share = min(_STRETCH_BYTES, (end - reached) // _FIRST_SHARE + 1)
    return min(end, Lsn(reached + max(share, reached - kept_from)))


class Patience:
    """When to ask next whether reading by query pays; outlives a stream's sessions."""

    def __init__(self, least_bytes: int) -> None:
        self.least_bytes = least_bytes
        """Of log, from which on it may."""
        self.not_before = float("-inf")


class SlotReader:
    """One stream's slot, held and read."""

    def __init__(
        self,
        stream: str,
        *,
        open_session: Callable[[], ReplicationSession],
        open_backlog: Callable[[], BacklogSession],
        patience: Patience,
        clock: Callable[[], float],
    ) -> None:
        """Connect; the slot is taken by `ReplicationSession.start` of ``session``.

        Args:
            stream: its name, for the log.
            open_session: connects a walsender.
            open_backlog: connects a session that reads by query.
            patience: of the stream.
            clock: monotonic.
        """
        self._open_session = open_session
        self._open_backlog = open_backlog
        self._patience = patience
        self._clock = clock
        self._log = structlog.get_logger(component="producer", stream=stream)
        self._backlog: BacklogSession | None = None
        self._end = Lsn(0)
        self._due = False
        self._small = 0
        self._drained_at = 0.0
        self.session = open_session()
        """The walsender's; holding it is the lease."""

    @property
    def fileno(self) -> int:
        """The socket to wait on for reading."""
        return (self._backlog or self.session).fileno

    @property
    def keepalive(self) -> Keepalive:
        """What the walsender's last keepalive said; nothing while it is not read."""
        return self.session.keepalive if self._backlog is None else _NOTHING_HEARD

    @property
    def sent_at(self) -> int:
        """The source's clock when the last message came: microseconds since 1970 UTC."""
        return (self._backlog or self.session).sent_at

    def drain(self, add: Callable[[bytes], object], messages: int, size: int) -> bool:
        """Pass on what has arrived; see `ReplicationSession.drain`.

        Raises:
            TransientError, ConfigurationError, IntegrityError: the session ended, or the server refused to go on.
        """
        backlog = self._backlog
        if backlog is None:
            return self.session.drain(add, messages, size)
        self._drained_at = self._clock()
        try:
            return self._drain(backlog, add, messages, size)
        except TransientError:
            self._stream_from_now_on()
            raise

    def _drain(self, backlog: BacklogSession, add: Callable[[bytes], object], messages: int, size: int) -> bool:
        if backlog.asked:
            return backlog.drain(add, messages, size)
        failpoint(failpoints.PRODUCER_BETWEEN_STRETCHES)
        if backlog.reached < self._end:
            with passing("backlog"):
                kept_from = backlog.stretch().kept_from
            backlog.ask(next_end(kept_from, backlog.reached, self._end))
            return True
        self._log.info("the backlog is read: streaming", upto=str(self._end))
        backlog.close()
        self._backlog = None
        return False

    def confirm(self, flushed: Lsn) -> None:
        """Tell the slot that everything up to here is durable elsewhere.

        Raises:
            TransientError: the session ended, or nothing was taken for so long that the source must not wait for it.
        """
        if self._backlog is not None and self._clock() - self._drained_at > _STUCK_SECONDS:
            self._stream_from_now_on()
            raise TransientError(
                "a query of the source has waited a minute for the home cluster; it is ended",
                place="kafka.home",
                hint="is the home cluster up? Nothing is lost: the slot keeps what is unconfirmed",
            )
        self.session.confirm(flushed)

    def delivered(self, small: int, age_seconds: float) -> None:
        """Notice that many small transactions are late: it is worth a look how many more there are.

        Args:
            small: how many have come since the last call.
            age_seconds: how long the newest transaction had been committed when it came.
        """
        self._small = self._small + small if age_seconds >= LATE_SECONDS else 0
        if self._small >= SMALL_TRANSACTIONS:
            self._small = 0
            self.late()

    def late(self) -> None:
        """Say that there is reason to look whether much is waiting."""
        self._due = self._backlog is None

    @property
    def due(self) -> bool:
        """Whether `turn` would look."""
        return self._due and self._clock() >= self._patience.not_before

    def turn(self, resume_lsn: Lsn, source: SourceIdentity) -> bool:
        """Read by query from now on if that pays; called between two turns, while no part of a transaction was shipped.

        To do so the slot is let go and taken again, and another producer may have had it in between: whoever appends
        makes sure first of what is in the topic.

        Args:
            resume_lsn: everything that ends by here was passed on.
            source: who has proven to be the stream's own.

        Returns whether that was done; a transaction that has been passed on in part comes again, from its beginning.

        Raises:
            TransientError: the lease was lost in between.
        """
        if not self.due:
            return False
        now = self._clock()
        self._due = False
        self._patience.not_before = now + _ASK_SECONDS
        try:
            backlog = self._open_backlog()
        except EmbassyError as error:
            self._refused(error)
            return False
        self._backlog = backlog  # from here on it is closed with the reader
        try:
            with passing("backlog"):
                log = backlog.stretch()
                if worth := pays(log, resume_lsn, self._patience.least_bytes):
                    server = backlog.server()
                    backlog.begin(resume_lsn)
                    # asked for now, so that it is decoded while the slot is taken again
                    backlog.ask(next_end(log.kept_from, resume_lsn, log.end))
        except EmbassyError as error:
            self._refused(error)
            worth = False
        if not worth:
            backlog.close()
            self._backlog = None
            return False
        self._take_again(log.end, source, server)
        self._end = log.end
        self._drained_at = now
        self._log.info(
            "far behind: reading by query",
            bytes=log.end - resume_lsn,
            resume_lsn=str(resume_lsn),
            upto=str(log.end),
        )
        return True

    def close(self) -> None:
        """End all sessions; the slot is free once the server has noticed."""
        if self._backlog is not None:
            self._backlog.close()
        self.session.close()

    def _take_again(self, begin: Lsn, source: SourceIdentity, server: str) -> None:
        """Let another walsender hold the slot, which sends what is committed from a position on."""
        self.session.close()
        self.session = self._open_session()
        if (self.session.identity(), self.session.server()) != (source, server):
            raise TransientError(
                "another server answers than a moment ago",
                place="source",
                hint="the producer starts anew and looks",
            )
        self.session.start(begin, wait_seconds=_HELD_SECONDS)

    def _refused(self, error: EmbassyError) -> None:
        """Go on streaming, which needs nothing that the stream has not got."""
        self._stream_from_now_on()
        self._log.warning("the backlog cannot be read by query, and is streamed", reason=str(error))

    def _stream_from_now_on(self) -> None:
        """For a while: what does not work must not be what the stream always begins with."""
        self._patience.not_before = self._clock() + _REFUSED_SECONDS
