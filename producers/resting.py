"""How a stream's loop waits, and what does not end an idle one's wait: most streams are idle most of the time.

To an idle stream the source mostly tells only where its log ends, since some database of its server has written to it.
And whoever waits for nothing but a beat's acknowledgement can take it along with that, or a moment later.
"""

from __future__ import annotations

import select
import time

from embassy.wire.kafka_writer import Appender
from producers.confirming import Confirming
from producers.slot_reader import SlotReader

_BEAT_ACK_SECONDS = 0.5
"""How late it may be noticed at an idle stream that the cluster has a beat."""


def wait(
    readable: list[int],
    seconds: float,
    *,
    idle: bool,
    reader: SlotReader,
    appender: Appender,
    confirming: Confirming,
) -> list[bytes]:
    """Wait until there is something for the loop to do.

    Args:
        readable: descriptors, with the appender's first.
        seconds: for so long at most.
        idle: whether there is nothing but the source to wait for, and nothing but beats on the way.
        reader: of the slot.
        appender: of the topic.
        confirming: takes acknowledgements.

    Returns:
        Messages of the source that were received meanwhile: the first one, if any.

    Raises:
        EmbassyError: the session ended, or a record was refused.
    """
    if appender.hush(hushed=idle) and not idle:
        return []
    try:
        if not idle:
            select.select(readable, [], [], seconds)
            return []
        return _rest(readable, seconds, reader, appender, confirming)
    finally:
        appender.hush(hushed=False)


def _rest(
    readable: list[int], seconds: float, reader: SlotReader, appender: Appender, confirming: Confirming
) -> list[bytes]:
    early: list[bytes] = []
    source, until = reader.fileno, time.monotonic() + seconds
    while not early and not reader.keepalive.reply_requested and seconds > 0:
        patience = min(seconds, _BEAT_ACK_SECONDS) if appender.inflight else seconds
        ready = select.select(readable, [], [], patience)[0]
        if ready and ready != [source]:
            break  # someone rings
        if ready:
            reader.drain(early.append, 1, 1)
        confirming.take_acks()
        seconds = until - time.monotonic()
    return early
