"""Where a topic continues a replica.

*A topic that does not hold the place.* If it holds nothing, or ends before what the replica already has, it was emptied
or recreated, or its brokers lost records. The chain would keep the replica right whatever is carried there next, but
someone must look: the stream halts at once. Once a bridge has carried again what home still holds, up to the replica's
place, the next start finds it and goes on; records from before are passed over. If the topic holds newer records only,
they are held until one links, and the hold's end halts the stream.
"""

from __future__ import annotations

from embassy.model.chain import Signers
from embassy.model.errors import IntegrityError
from embassy.pg.progress_store import Progress
from embassy.wire.head_search import Log, locate, read_records

_TAIL_RECORDS = 2_000


def place_in(log: Log, progress: Progress, signers: Signers) -> int:
    """The offset from which the topic continues the replica.

    Raises:
        IntegrityError: the topic holds nothing, or ends before what the replica has.
    """
    head = progress.head
    low, high = log.bounds()
    offset = locate(log, head, signers, progress.next_offset)
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
            if signers(record)
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
