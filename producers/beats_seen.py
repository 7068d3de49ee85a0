"""The beats of one source that this process has seen: what the source must not have forgotten when it is met again.

The beat is a row, and each one renews it. So the transaction that wrote the row last is, on the stream's own source,
that of the newest beat seen or a later one. A database that lost its last moments with its storage shows an earlier
one, until somebody beats there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from embassy.model.lsn import Lsn

_KEPT = 100
_OLD_SECONDS = 86_400.0
"""Numbers of transactions come again after four thousand million: what is compared must not be that far apart."""
_ROUND = 1 << 32


class BeatsSeen:
    """Of one stream's source; outlives the sessions with it. Noted by the stream's loop, asked from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with none; ``clock`` is monotonic."""
        self._clock = clock
        self._seen: deque[tuple[float, int, Lsn]] = deque(maxlen=_KEPT)

    def note(self, xid: int, end_lsn: Lsn) -> None:
        """A beat has come, in this transaction, which ends there."""
        self._seen.append((self._clock(), xid, end_lsn))

    def forgotten(self, resume_lsn: Lsn, written_by: int | None) -> int | None:
        """The transaction of the stream's newest beat, if the source has forgotten it; None if not, or if nobody knows.

        Args:
            resume_lsn: the stream's end. Beats behind it are not in the stream: a standby may be promoted without them.
            written_by: the transaction that wrote the source's row of the beat last; None: there is no row.
        """
        since = self._clock() - _OLD_SECONDS
        for at, xid, end_lsn in reversed(tuple(self._seen)):
            if end_lsn <= resume_lsn:
                known = written_by is None or at < since or (written_by - xid) % _ROUND < _ROUND // 2
                return None if known else xid
        return None
