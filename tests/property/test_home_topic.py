"""Random topics of a home that was cut off: what no embassy took is told whole, or it is said that it cannot be."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.home_topic import HomeTopic
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.wire.batch_codec import BatchEncoder
from embassy.wire.recipient_keys import HeldKeys
from tests.harness.envelope import ENROLMENT, OSLO, RIGA, THIEF, Writer, enrolled
from tests.harness.memory_log import MemoryLog
from tests.harness.transactions import numbered

_LATER = enrolled(epoch=2, producer=THIEF.public)
_NOBODY = b"no record"


@dataclass
class History:
    """A topic as it came about, and what was committed."""

    log: MemoryLog = field(default_factory=MemoryLog)
    writer: Writer = field(default_factory=Writer)
    encoder: BatchEncoder = field(default_factory=BatchEncoder)
    committed: list[int] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    """Of each KEY that a DATA record followed: its offset, and the position before it."""

    def begin(self) -> None:
        self.writer.sealer = Writer(head=self.writer.head).sealer
        self.log.append(self.writer.key())

    def commit(self, numbers: list[int], rng: random.Random) -> None:
        """One batch; or one transaction in parts, which may be given up for a new incarnation and come again."""
        if len(numbers) == 1 and rng.random() < 0.5:
            if rng.random() < 0.3:
                self._send(numbers, 0, complete=False, rng=rng)
                self.begin()
            parts = rng.randrange(1, 4)
            for part in range(parts):
                self._send(numbers, part, complete=part == parts - 1, rng=rng)
        else:
            self._send(numbers, 0, complete=True, rng=rng)
        self.committed += numbers

    def _send(self, numbers: list[int], part: int, *, complete: bool, rng: random.Random) -> None:
        writer = self.writer
        encoded = self.encoder.encode(numbered(numbers, part, complete=complete))
        resume = Lsn(numbers[-1]) if complete else writer.head.resume_lsn
        for sealed in writer.sealer.data_records(writer.head, encoded, resume, rng.choice((600, 900_000))):
            writer.head = sealed.head
            self.log.append(sealed.value)


def _history(rng: random.Random) -> History:
    history = History()
    history.begin()
    at = 0
    for _ in range(rng.randrange(1, 25)):
        if rng.random() < 0.2:
            history.begin()
        count = rng.choice((1, 1, 2, 5))
        history.commit([at + 10 * i for i in range(1, count + 1)], rng)
        at += 10 * count
        if rng.random() < 0.1:
            history.log.append(_NOBODY)
        if rng.random() < 0.1:  # a copy
            history.log.append(rng.choice(history.log.values))
    later = Writer(enrolment=_LATER, identity=THIEF, head=_LATER.genesis())
    for _ in range(rng.choice((0, 0, 3, 20))):  # the way home, in the same topic
        history.log.append(later.key())
    return history


def _told(history: History, after: int, upto: int) -> list[int]:
    topic = HomeTopic(history.log, ENROLMENT, HeldKeys((RIGA,)))
    return [int(transaction.end_lsn) for transaction in topic.transactions(Lsn(after), Lsn(upto))]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_all_that_was_committed_between_two_positions_is_told_in_order(rng: random.Random) -> None:
    history = _history(rng)
    ends = [0, *history.committed]
    after, upto = sorted((rng.choice(ends), rng.choice(ends)))
    assert _told(history, after, upto) == [end for end in history.committed if after < end <= upto]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_retention_or_a_broker_has_lost_is_never_passed_over(rng: random.Random) -> None:
    history = _history(rng)
    after, upto = sorted((rng.choice([0, *history.committed]), history.committed[-1]))
    wanted = [end for end in history.committed if after < end <= upto]
    if rng.random() < 0.5:
        history.log.truncate_front(rng.randrange(1, len(history.log.values) + 1))
    else:
        del history.log.values[rng.randrange(len(history.log.values))]
    told: list[int] = []
    topic = HomeTopic(history.log, ENROLMENT, HeldKeys((RIGA,)))
    try:
        told += (int(transaction.end_lsn) for transaction in topic.transactions(Lsn(after), Lsn(upto)))
    except IntegrityError:
        assert told == wanted[: len(told)]
    else:
        assert told == wanted


def test_one_for_whom_nothing_was_wrapped_is_told_so() -> None:
    history = History(writer=Writer(recipients=(OSLO.public,)))
    history.log.append(history.writer.key())
    history.commit([10, 20], random.Random(1))
    with pytest.raises(IntegrityError, match="not wrapped for this recipient"):
        _told(history, 0, 20)


def test_a_topic_that_ends_before_what_was_confirmed_says_where() -> None:
    history = History()
    history.begin()
    history.commit([10, 20], random.Random(1))
    with pytest.raises(IntegrityError, match="home's topic ends at 0/14, and the slot was confirmed up to 0/1E"):
        _told(history, 10, 30)
