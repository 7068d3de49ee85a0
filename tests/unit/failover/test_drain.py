"""What a promotion finds in the embassy's log: with real signatures."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from embassy.model.errors import ConfigurationError, EmbassyError, IntegrityError, RefusedError, TransientError
from embassy.pg.progress_store import Progress
from embassy.wire.enrolment import Enrolment
from embassy.wire.verifying import RecordVerifier
from failover.drain import Reach
from tests.harness.envelope import ENROLMENT, Writer
from tests.harness.memory_log import MemoryLog
from tests.unit.wire.test_succession import BASE, NEXT, SIGNED, proven


class Idle:
    """A consumer that applies nothing more, and has no fault."""

    def failure(self) -> EmbassyError | None:
        return None


class Lost(MemoryLog):
    """A topic that cannot be read, until it can."""

    unanswered = 1_000_000
    error: EmbassyError = TransientError("all brokers are down", hint="is the broker up?")

    def bounds(self) -> tuple[int, int]:
        self.unanswered -= 1
        if self.unanswered >= 0:
            raise self.error
        return super().bounds()


def reach(
    log: MemoryLog, progress: Progress, enrolment: Enrolment, *, stall_seconds: float = 0, undrained: bool = False
) -> Reach:
    waited = itertools.count()
    return Reach(
        "land",
        log=log,
        signers=RecordVerifier(enrolment),
        progress=lambda: progress,
        applying=lambda: contextlib.nullcontext(Idle()),
        stall_seconds=stall_seconds,
        accept_undrained=undrained,
        clock=lambda: float(next(waited)),
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


@pytest.mark.parametrize(
    "error",
    [TransientError("all brokers are down", hint="is the broker up?"), IntegrityError("the topic is gone")],
)
def test_a_log_that_is_lost_holds_only_those_up_who_do_not_accept_it(error: EmbassyError) -> None:
    writer = Writer()
    log = Lost(values=[writer.key()])
    log.error = error
    progress = Progress(writer.head, log.values[0], 1)
    for value in writer.data(b"not applied yet"):
        log.append(value)

    refusing = reach(log, progress, ENROLMENT)
    for look in (refusing.drain, lambda: refusing.left(progress)):
        with pytest.raises(type(error), match=str(error.args[0])) as caught:
            look()
        assert "--accept-undrained" in caught.value.hint

    accepting = reach(log, progress, ENROLMENT, stall_seconds=60, undrained=True)
    assert f"cannot be read: {error.args[0]}; the plan accepts that" in accepting.drain().words
    left = accepting.left(progress)
    assert (left.level, left.records) == (False, None)


def test_a_cluster_that_answers_again_is_drained_although_it_might_be_left() -> None:
    writer = Writer()
    log = Lost(values=[writer.key()])
    log.unanswered = 5
    progress = Progress(writer.head, log.values[0], 1)
    drained = reach(log, progress, ENROLMENT, stall_seconds=60, undrained=True).drain()
    assert drained.words == "nothing was left"


@pytest.mark.parametrize("made_anew", [False, True])
def test_of_a_log_that_was_emptied_nobody_says_that_nothing_was_left(*, made_anew: bool) -> None:
    writer = Writer()
    log = MemoryLog(values=[writer.key()])
    progress = Progress(writer.head, log.values[0], 1)
    log.truncate_front(1)
    assert reach(log, progress, ENROLMENT).drain().words == "nothing was left", "it was read to its end before"
    log.values.append(b"what nobody has read")
    log.truncate_front(1)
    if made_anew:
        log = MemoryLog()
    with pytest.raises(RefusedError, match="no longer holds what the replica has applied"):
        reach(log, progress, ENROLMENT).drain()
    accepting = reach(log, progress, ENROLMENT, undrained=True)
    assert "the plan accepts that" in accepting.drain().words
    left = accepting.left(progress)
    assert (left.level, left.records) == (False, None)
