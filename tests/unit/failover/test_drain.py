"""What a promotion finds in the embassy's log: with real signatures."""

from __future__ import annotations

import contextlib
import time

import pytest

from embassy.model.errors import ConfigurationError, EmbassyError
from embassy.pg.progress_store import Progress
from embassy.wire.enrolment import Enrolment
from embassy.wire.verifying import RecordVerifier
from failover.drain import Reach
from tests.harness.envelope import Writer
from tests.harness.memory_log import MemoryLog
from tests.unit.wire.test_succession import BASE, NEXT, SIGNED, proven


class Idle:
    """A consumer that applies nothing more, and has no fault."""

    def failure(self) -> EmbassyError | None:
        return None


def reach(log: MemoryLog, progress: Progress, enrolment: Enrolment) -> Reach:
    return Reach(
        "land",
        log=log,
        signers=RecordVerifier(enrolment),
        progress=lambda: progress,
        applying=lambda: contextlib.nullcontext(Idle()),
        stall_seconds=0,
        accept_undrained=False,
        clock=time.monotonic,
        pause=lambda _seconds: None,
        tell=lambda _words: None,
    )


def test_an_enrolment_without_the_successor_whom_the_replica_follows_does_not_call_it_level() -> None:
    """The file on the machine that promotes may be a copy from before the identity was rotated."""
    writer, log = Writer(enrolment=proven(SIGNED), identity=NEXT), MemoryLog()
    key = writer.key()
    log.append(key)
    progress = Progress(writer.head._replace(generation=1), key, 1)
    for value in writer.data(b"not applied yet"):
        log.append(value)
    left = reach(log, progress, proven(SIGNED)).left(progress)
    assert (left.level, left.records) == (False, 1)
    stale = reach(log, progress, proven(BASE))
    for look in (stale.drain, lambda: stale.left(progress)):
        with pytest.raises(ConfigurationError, match="is of a producer that the enrolment does not name"):
            look()
